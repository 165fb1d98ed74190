/** The memory that output of a run takes while the run's log cannot accept it. */
import { expect, it, vi } from "vitest";
import { PIECE_BYTES, WINDOW_BYTES } from "../../../container/sandboxd/protocol.ts";
import type { Connection, Follower } from "../../../src/container/connection.ts";
import { type OutputSink, RunFollower } from "../../../src/container/follower.ts";

class TestFollower extends RunFollower {
  protected override async requestRun(): Promise<void> {}

  run() {
    return this.waitForOutcome();
  }
}

/**
 * Follows a run whose log accepts no output until `accept` is called. @param position how many bytes of the output the log has
 */
function followRun(position = 0) {
  const accepted = Promise.withResolvers<void>();
  const settled = Promise.withResolvers<void>();
  const take = vi.fn<OutputSink["take"]>(() => accepted.promise);
  const output = vi.fn<OutputSink["output"]>();
  const sink = {
    id: "run",
    maxOutputBytes: undefined as number | undefined,
    isEnded: false as boolean,
    take,
    output,
    recordSkipped: () => undefined,
    hasRoom: () => true,
    position: () => position,
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
  return { sink, receive, take, output, close, accept: accepted.resolve, end };
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

it("a piece that arrives again with one more byte keeps no memory for its old bytes", async () => {
  const { receive, take, output, end } = followRun(PIECE_BYTES - 1);
  take.mockImplementation(async (_bytes, pass) => pass());
  receive(PIECE_BYTES);
  await vi.waitFor(() => expect(output).toHaveBeenCalledOnce());
  expect(output.mock.calls[0]?.[1].buffer.byteLength).toBe(1);
  await end();
});

it("the connection ends if more output of a run waits than sandboxd sends ahead", async () => {
  const { receive, close, end } = followRun();
  receive(2 * WINDOW_BYTES);
  expect(close).not.toHaveBeenCalled();
  receive(3 * PIECE_BYTES);
  expect(close).toHaveBeenCalled();
  await end();
});

it("a log that says how much it reads at once gets no more at once, and nothing after the run's end", async () => {
  const { sink, receive, take, output, end } = followRun();
  sink.maxOutputBytes = 4096;
  const readBytes = () => output.mock.calls.reduce((sum, [, { length }]) => sum + length, 0);
  sink.position = readBytes;
  take.mockImplementation(async (_bytes, pass) => pass());
  receive(PIECE_BYTES);
  await vi.waitFor(() => expect(readBytes()).toBe(PIECE_BYTES));
  expect(new Set(output.mock.calls.map(([, { length }]) => length))).toEqual(new Set([4096]));
  take.mockImplementation(async () => void (sink.isEnded = true));
  take.mockClear();
  receive(PIECE_BYTES);
  await vi.waitFor(() => expect(take).toHaveBeenCalled());
  await end();
  expect(take).toHaveBeenCalledOnce();
});
