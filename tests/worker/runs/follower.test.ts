/** What becomes of a run whose connection breaks again and again, with the time in the test's hands. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Connection, Follower } from "../../../src/container/connection.ts";
import { sleep } from "../support.ts";
import { type OutputSink, RunFollower } from "../../../src/container/follower.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A run whose connection is there at once whenever it is asked for, and breaks when the test says so. */
class Broken extends RunFollower {
  asked = 0;

  protected override async ask(): Promise<void> {
    this.asked++;
  }

  follow() {
    return this.outcome();
  }
}

/** Breaks the connection after it has lasted so long each time, milliseconds; answers how the run ended, if it has. */
async function ended(times: number, lastedMs: number): Promise<unknown> {
  let follower: Follower | undefined;
  const connection = {
    follow: (_id: string, one: Follower) => {
      follower = one;
      return () => undefined;
    },
    ask: async () => undefined,
    tell: () => undefined,
  } as unknown as Connection;
  const sink = {
    id: "run",
    ended: false,
    hasRoom: () => true,
    stored: () => 0,
    settled: new Promise<void>(() => undefined),
    over: sleep,
  } as unknown as OutputSink;
  const run = new Broken({ connection, running: () => true, ready: async () => undefined }, sink);
  let end: unknown;
  run.follow().catch((error: unknown) => (end = error));
  for (let n = 0; n < times; n++) {
    await vi.advanceTimersByTimeAsync(lastedMs);
    follower?.broken();
    await vi.advanceTimersByTimeAsync(1000);
  }
  return end;
}

it("goes on however often a connection breaks that has lasted", async () => {
  expect(await ended(60, 1500)).toBeUndefined();
});

it("ends where each connection breaks at once", async () => {
  expect(await ended(60, 0)).toMatchObject({ code: "no_answer" });
});

it("says for how long there was no answer, and not how long one attempt may take", async () => {
  // Each of twenty attempts breaks at once, and the next follows within a second.
  expect(await ended(21, 0)).toMatchObject({ message: expect.stringContaining("not answered for 20 s") });
});
