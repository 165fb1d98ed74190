/** How sandboxd handles calls for a command whose shell is still being started. */
import { expect, it, vi } from "vitest";
import type { CommandRun } from "../../container/sandboxd/command-run.ts";
import { RunTable } from "../../container/sandboxd/run-table.ts";
import { Slots } from "../../container/sandboxd/slot.ts";

vi.mock("node:fs", async (original) => ({
  ...(await original<object>()),
  // The scripts of the sandbox are there.
  statSync: () => ({ size: 1 }),
}));

it("a repeated call starts no further shell for a command whose first shell was killed", async () => {
  const take = vi.spyOn(Slots.prototype, "take").mockReturnValue(new Promise(() => undefined));
  const table = new RunTable({});
  const listener = { onEvent: vi.fn(), onPiece: vi.fn() };
  const call = { type: "start", id: "r1", session: "main", command: "true", timeoutMs: 1000 } as const;
  void table.call(call, listener);
  const run: Pick<CommandRun, "id" | "directory" | "discard"> = {
    id: "r1",
    directory: "/nonexistent",
    discard: () => undefined,
  };
  table.onNeverBegun(run as CommandRun);
  void table.call(call, listener);
  await new Promise((resolve) => void setImmediate(resolve));
  expect(listener.onEvent).not.toHaveBeenCalled();
  expect(take).toHaveBeenCalledTimes(2);
});
