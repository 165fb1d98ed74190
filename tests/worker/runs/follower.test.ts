/** The memory that output of a run takes while the run's log cannot accept it. */
import { expect, it, vi } from "vitest";
import { PIECE_BYTES, WINDOW_BYTES } from "../../../container/sandboxd/protocol.ts";
import type { Connection, Follower } from "../../../src/container/connection.ts";
import { type OutputSink, RunFollower } from "../../../src/container/follower.ts";

class TestFollower extends RunFollower {
  protected override async requestRun(): Promise<void> {}

  run() {
    return this.outcome();
  }
}

/** Follows a run whose log accepts no output until `accept` is called. */
function followRun() {
  const accepted = Promise.withResolvers<void>();
  const settled = Promise.withResolvers<void>();
  const take = vi.fn<() => Promise<void>>(() => accepted.promise);
  const sink = {
    id: "run",
    isEnded: false as boolean,
    take,
    output: () => undefined,
    recordSkipped: () => undefined,
    hasRoom: () => true,
    position: () => 0,
    storedBytes: () => 0,
    settled: settled.promise,
    waitUntilEnded: () => settled.promise,
  } satisfies OutputSink;
  const followers: Follower[] = [];
  const close = vi.fn<() => void>();
  const connection: Partial<Connection> = {
    follow: (_id, follower) => {
      followers.push(follower);
      return () => undefined;
    },
    sendIfOpen: () => undefined,
    close,
  };
  const lifecycle = { isRunning: true, waitUntilReadyForRun: async () => undefined };
  const variables = { current: undefined };
  const outcome = new TestFollower(
    { connection: connection as Connection, lifecycle, variables },
    sink,
  ).run();
  let offset = 0;
  const receive = (bytes: number) => {
    for (const end = offset + bytes; offset < end; offset += PIECE_BYTES)
      followers[0]?.onPiece({ id: "run", stream: "stdout", offset, bytes: new Uint8Array(PIECE_BYTES) });
  };
  const end = async () => {
    sink.isEnded = true;
    settled.resolve();
    await outcome;
  };
  return { receive, take, close, accept: accepted.resolve, end };
}

it("output that waits when its run has ended is dropped", async () => {
  const { receive, take, accept, end } = followRun();
  receive(WINDOW_BYTES);
  await vi.waitFor(() => expect(take).toHaveBeenCalledOnce());
  await end();
  accept();
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(take).toHaveBeenCalledOnce();
});

it("the connection ends if more output of a run waits than sandboxd sends", async () => {
  const { receive, close, end } = followRun();
  receive(2 * WINDOW_BYTES);
  expect(close).not.toHaveBeenCalled();
  receive(3 * PIECE_BYTES);
  expect(close).toHaveBeenCalled();
  await end();
});
