/** How fast the actor stores what a cancelled run still prints, measured with a fake clock. */
import { expect, it, vi } from "vitest";
import { ActiveRun } from "../../../src/runs/active-run.ts";
import { Backlog } from "../../../src/runs/backlog.ts";
import { HeadAndTail } from "../../../src/runs/head-and-tail.ts";

const MiB = 1024 * 1024;

/** Starts a run of a new sandbox, and cancels it. It prints again as soon as the actor has accepted its last output. */
function startCancelled(): { bytes: number; isOver: boolean } {
  const backlog = new Backlog(
    () => [],
    () => "cancelling",
  );
  const record = {
    id: "default.01m8n4f9aq53knekwjmgnz00h6",
    output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
  };
  const run = new ActiveRun(record as never, {} as never, { backlog } as never);
  void run.cancel();
  const printed = { bytes: 0, isOver: false };
  void (async () => {
    while (!printed.isOver && printed.bytes < 1024 * MiB)
      await run.take(MiB / 4, () => (printed.bytes += MiB / 4));
  })();
  return printed;
}

it("cancelled runs print little more without a wait than sandboxd sends ahead, because others may follow without end", async () => {
  vi.useFakeTimers({ toFake: ["performance", "setTimeout", "clearTimeout", "Date"] });
  const runs = Array.from({ length: 10 }, startCancelled);
  const printed = () => runs.reduce((sum, { bytes }) => sum + bytes, 0) / MiB;
  await vi.advanceTimersByTimeAsync(60_000);
  const before = printed();
  expect(before).toBeGreaterThan(320);
  expect(before).toBeLessThan(1500);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(printed() - before).toBeLessThan(900);
  for (const run of runs) run.isOver = true;
  vi.useRealTimers();
});
