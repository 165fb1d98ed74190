/** How sandboxd handles calls for a command whose shell is still being started. */
import { beforeEach, expect, it, vi } from "vitest";
import { CommandRun } from "../../container/sandboxd/command-run.ts";
import type { Listener } from "../../container/sandboxd/followed-run.ts";
import { RunTable } from "../../container/sandboxd/run-table.ts";
import { type Slot, Slots } from "../../container/sandboxd/slot.ts";

vi.mock("node:fs", async (original) => ({
  ...(await original<object>()),
  // The scripts of the sandbox are there.
  statSync: () => ({ size: 1 }),
}));

const call = { type: "start", id: "r1", session: "main", command: "true", timeoutMs: 1000 } as const;
const run: Pick<CommandRun, "id" | "directory" | "discard" | "listen" | "follow"> = {
  id: call.id,
  directory: "/nonexistent",
  discard: () => undefined,
  listen: () => undefined,
  follow: () => undefined,
};
const neverBegun = (table: RunTable) => table.onNeverBegun(run as CommandRun);
const listenerOf = () => ({ onEvent: vi.fn<Listener["onEvent"]>(), onPiece: vi.fn<Listener["onPiece"]>() });

beforeEach(() => void vi.restoreAllMocks());

it("a repeated call starts no further shell for a command whose first shell was killed", async () => {
  const take = vi.spyOn(Slots.prototype, "take").mockReturnValue(new Promise(() => undefined));
  const table = new RunTable({});
  const listener = listenerOf();
  void table.call(call, listener);
  neverBegun(table);
  void table.call(call, listener);
  await new Promise((resolve) => void setImmediate(resolve));
  expect(listener.onEvent).not.toHaveBeenCalled();
  expect(take).toHaveBeenCalledTimes(2);
});

it("the last caller hears that no shell of a command could start", async () => {
  const slot: Pick<Slot, "begin" | "sendPath"> = { begin: () => undefined, sendPath: () => undefined };
  vi.spyOn(Slots.prototype, "take").mockResolvedValue(slot as Slot);
  vi.spyOn(CommandRun, "start").mockReturnValue(run as CommandRun);
  const table = new RunTable({});
  const [gone, listener] = [listenerOf(), listenerOf()];
  await table.call(call, gone);
  await table.call(call, listener);
  while (gone.onEvent.mock.calls.length + listener.onEvent.mock.calls.length === 0) {
    neverBegun(table);
    await new Promise((resolve) => void setImmediate(resolve));
  }
  expect(gone.onEvent).not.toHaveBeenCalled();
  expect(listener.onEvent).toHaveBeenCalledWith(expect.objectContaining({ type: "refused", id: call.id }));
});
