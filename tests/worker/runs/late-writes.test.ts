/** Writes of logs that R2 does not confirm in time. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { joinBytes } from "../../../src/shared/text.ts";
import type { Runs, RunsHost } from "../../../src/runs/runs.ts";
import { bucket, until } from "../support.ts";
import { MiB, withRuns, start, isSame, pattern, objectsOf, rowsOf } from "./conducted-runs.ts";

describe("a write to R2 that is never confirmed", () => {
  afterEach(() => void vi.restoreAllMocks());

  /** A bucket that holds the first writes until the test lets them arrive. */
  function withHeldWrites(count: number) {
    const arrive = Promise.withResolvers<void>();
    const held: Promise<void>[] = [];
    const put = async (key: string, content: Uint8Array) => {
      if (held.length === count) return await bucket.put(key, content);
      const written = arrive.promise.then(() => bucket.put(key, content.slice()));
      held.push(written);
      await written;
    };
    return {
      held,
      arrive: arrive.resolve,
      objects: { bucket: { ...bucket, put }, prefix: (id: string) => `hash/${id}/` },
    };
  }

  /** Shortens the time limit of a write from a minute to a second. */
  function withShortLimit() {
    const setTimer = globalThis.setTimeout;
    const spy = vi.spyOn(globalThis, "setTimeout");
    spy.mockImplementation(((work: () => void, ms: number) =>
      setTimer(work, ms === 60_000 ? 1000 : ms)) as never);
    return spy;
  }

  it("does not keep the container of an ended run, and the parts that react to the end do not wait for it", async () => {
    const { arrive, objects } = withHeldWrites(1);
    const work = async (runs: Runs) => {
      const onRunEnd = vi.fn<() => void>();
      runs.subscribe({ onRunEnd });
      const { id, execution } = await start(runs);
      expect(runs.isBusy).toBe(true);
      execution.print("stdout", pattern(3 * MiB, 6));
      execution.end({ state: "succeeded" });
      expect(await runs.result(id, 20_000)).toMatchObject({ state: "succeeded" });
      await until(() => onRunEnd.mock.calls.length > 0);
      expect({ isBusy: runs.isBusy, hasActive: runs.hasActive }).toEqual({ isBusy: false, hasActive: true });
      arrive();
      await until(() => !runs.hasActive);
      expect(onRunEnd).toHaveBeenCalledOnce();
      expect(await objectsOf(id)).toHaveLength(1);
    };
    await withRuns("held-write", work, { objects });
  });

  it.each([
    [1, 0],
    [5, 3 * MiB],
  ])(
    "does not keep the log of a run in memory: after a minute it is written again, or stays in the database (%d writes)",
    async (count, left) => {
      const { held, arrive, objects } = withHeldWrites(count);
      const timers = withShortLimit();
      const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
        const { id, execution } = await start(runs);
        const printed = pattern(3 * MiB, 7);
        execution.print("stdout", printed);
        execution.end({ state: "succeeded" });
        await runs.result(id, 20_000);
        await until(() => !runs.hasActive);
        timers.mockRestore();
        expect(rowsOf(sql, id).bytes).toBe(left);
        const read = async () => joinBytes((await runs.log(id, 0, 4 * MiB)).pieces.map(({ bytes }) => bytes));
        expect(isSame(await read(), printed)).toBe(true);
        const before = await objectsOf(id);
        arrive();
        await Promise.all(held);
        await until(async () => (await objectsOf(id)).length === before.length);
        expect(isSame(await read(), printed)).toBe(true);
        await runs.remove(id);
        expect(await objectsOf(id)).toEqual([]);
        expect(rowsOf(sql, id).count).toBe(0);
      };
      await withRuns(`held-${count}`, work, { objects });
    },
  );

  it("does not keep the logs of many runs in memory, and begins further writes when those have settled", async () => {
    const { held, arrive, objects } = withHeldWrites(100);
    const timers = withShortLimit();
    const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
      const ids: string[] = [];
      for (let count = 0; count < 20; count++) {
        const { id, execution } = await start(runs);
        execution.print("stdout", pattern(MiB / 4, count));
        execution.end({ state: "succeeded" });
        ids.push(id);
      }
      await until(() => !runs.hasActive);
      timers.mockRestore();
      expect(held.length).toBeLessThan(12);
      for (const id of ids) expect(rowsOf(sql, id).bytes).toBe(MiB / 4);
      arrive();
      await Promise.all(held);
      const { id, execution } = await start(runs);
      execution.print("stdout", pattern(MiB / 4, 21));
      execution.end({ state: "succeeded" });
      await until(() => !runs.hasActive);
      expect(rowsOf(sql, id).bytes).toBe(0);
    };
    await withRuns("held-many", work, { objects });
  });

  it("leaves no object of a removed run, even if its actor ended before it could delete the object", async () => {
    const timers = withShortLimit();
    let hasEnded = false;
    const { held, arrive, objects } = withHeldWrites(8);
    const remove = objects.bucket.delete;
    objects.bucket.delete = async (keys) => {
      if (hasEnded) throw new Error("the actor has ended");
      await remove(keys);
    };
    const work = async (runs: Runs) => {
      const { id, execution } = await start(runs);
      execution.print("stdout", pattern(3 * MiB, 8));
      await until(() => {
        execution.print("stdout", "more");
        return held.length === 8;
      });
      execution.end({ state: "succeeded" });
      await until(() => !runs.hasActive);
      timers.mockRestore();
      hasEnded = true;
      arrive();
      await Promise.all(held);
      expect(await objectsOf(id)).toHaveLength(held.length);
      hasEnded = false;
      await runs.remove(id);
      expect(await objectsOf(id)).toEqual([]);
    };
    await withRuns("held-ended", work, { objects });
  });
});

it("many logs that end at once all move to R2, a few at a time", async () => {
  let writing = 0;
  let most = 0;
  const put = async (key: string, content: Uint8Array) => {
    most = Math.max(most, ++writing);
    await bucket.put(key, content);
    writing--;
  };
  const objects = { bucket: { ...bucket, put }, prefix: (id: string) => `hash/${id}/` };
  const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
    const printed = pattern(MiB / 4, 9);
    const ids: string[] = [];
    for (let count = 0; count < 20; count++) {
      const { id, execution } = await start(runs);
      execution.print("stdout", printed);
      execution.end({ state: "succeeded" });
      ids.push(id);
    }
    await until(() => !runs.hasActive);
    expect(most).toBeLessThanOrEqual(4);
    for (const id of ids) {
      expect(rowsOf(sql, id).bytes).toBe(0);
      const { pieces } = await runs.log(id, 0, MiB);
      expect(isSame(joinBytes(pieces.map(({ bytes }) => bytes)), printed)).toBe(true);
    }
  };
  await withRuns("ended-at-once", work, { objects });
});

it("a late report of an execution does not change the record of its ended run", async () => {
  await withRuns("late-report", async (runs) => {
    const { id, execution } = await start(runs);
    execution.run.keepState({ session: "a" });
    runs.endAll("The sandbox stopped.", false);
    const ended = structuredClone(await runs.result(id, 0));
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 60_000 });
    try {
      const { run } = execution;
      run.markStarted();
      run.describe({ ports: [1] });
      run.recordPorts([1]);
      run.keepState({ session: "a", interactive: true });
      execution.end({ state: "succeeded" });
      await until(() => !runs.hasActive);
    } finally {
      vi.useRealTimers();
    }
    expect(await runs.result(id, 0)).toEqual(ended);
  });
});
