/** What runs use of their principal's quota. */
import { afterEach, expect, it, vi } from "vitest";
import { Lease } from "../../../src/actors/lease.ts";
import { parseConfig } from "../../../src/shared/config.ts";
import { dayOf } from "../../../src/shared/days.ts";
import type { Runs } from "../../../src/runs/runs.ts";
import { sleep, until } from "../support.ts";
import type { End } from "../../../src/runs/run-types.ts";
import { ALLOWANCE, Conducted, executorOf, start, withRuns } from "./conducted-runs.ts";

afterEach(() => void vi.restoreAllMocks());

const quotaOf = (answered = Promise.resolve()) =>
  new Lease({
    limits: parseConfig({} as never).limits,
    request: async () => {
      await answered;
      return { slots: 10, seconds: 10_000, until: Date.now() + 300_000 };
    },
    background: (work) => void work.catch(() => undefined),
    onSettled: () => undefined,
  });

it("the seconds of code count when it has ended, and its place when its output was delivered", async () => {
  const quota = quotaOf();
  vi.useFakeTimers({ toFake: ["Date"] });
  const work = async (runs: Runs) => {
    const { id, execution } = await start(runs);
    execution.run.markStarted();
    vi.advanceTimersByTime(1100);
    execution.run.markExecuted();
    const settled = quota.settle();
    // The next actor counts runs that ended after a settlement. The end of this run is before it.
    expect([...settled.spent]).toEqual([[dayOf(Date.now()), 2]]);
    expect(settled.inUse).toEqual({ slots: 1, seconds: 0 });
    vi.advanceTimersByTime(1100);
    execution.end({ state: "succeeded" });
    await runs.result(id, 5000);
    await until(() => quota.settle().inUse.slots === 0);
    expect(quota.settle()).toMatchObject({ spent: new Map(), inUse: { slots: 0, seconds: 0 } });
  };
  await withRuns("metering", work, { quota });
});

it("a run whose code ends after the run's time limit returns its reservation once", async () => {
  const quota = quotaOf();
  const work = async (runs: Runs) => {
    const { id, execution } = await start(runs);
    execution.run.markStarted();
    execution.end({ state: "timed_out" });
    await runs.result(id, 5000);
    await until(() => !runs.hasActive);
    execution.run.markExecuted();
    expect(quota.settle().inUse).toEqual({ slots: 0, seconds: 0 });
  };
  await withRuns("metering-late", work, { quota });
});

it("a run that is cancelled just before its reservation arrives keeps nothing of it", async () => {
  const answered = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const quota = quotaOf(answered.promise);
  const work = async (runs: Runs) => {
    const executor = executorOf(() => new Conducted());
    const { id } = await runs.start(executor, "title", ALLOWANCE, {
      waitUntil: 0,
      replyBy: Date.now(),
      namesID: true,
    });
    const cancelling = runs.cancel(id, 5000);
    await sleep(50);
    answered.resolve();
    await sleep(50);
    ended.resolve();
    expect(await cancelling).toMatchObject({ state: "cancelled" });
    expect(quota.settle().inUse).toEqual({ slots: 0, seconds: 0 });
  };
  const completeEnd = async (end: End) => {
    await ended.promise;
    return end;
  };
  await withRuns("metering-cancelled", work, { quota, completeEnd });
});
