/** How a run follows sandboxd: before its container runs, and while the run's log cannot accept its output. */
import { expect, it, vi } from "vitest";
import { PIECE_BYTES, SHARED_WINDOW_BYTES, WINDOW_BYTES } from "../../../container/sandboxd/protocol.ts";
import { Connection, RUN_WAITING_BYTES } from "../../../src/container/connection.ts";
import { type OutputSink, RunFollower } from "../../../src/container/follower.ts";
import { CommandExecutor } from "../../../src/runs/command-executor.ts";
import { CANCELLED_BEFORE_START } from "../../../src/runs/run-types.ts";
import { sleep } from "../../setup/until.ts";

class TestFollower extends RunFollower {
  override async requestRun(): Promise<void> {}

  run() {
    return this.waitForOutcome();
  }
}

const lifecycle = {
  isRunning: true,
  container: undefined,
  waitUntilReady: async () => undefined,
  waitUntilReadyForRun: async () => undefined,
};

/** A connection to a sandboxd that never responds. */
function openConnection() {
  const silent = {
    isRunning: true,
    fetch: () => new Promise<never>(() => undefined),
    noteUse: () => undefined,
  };
  return new Connection(silent, lifecycle);
}

/**
 * Follows a run whose log accepts no output until `accept` is called. @param position how many bytes of the output the log has
 */
function followRun(position = 0, connection = openConnection(), id = "run") {
  const accepted = Promise.withResolvers<void>();
  const settled = Promise.withResolvers<void>();
  const take = vi.fn<OutputSink["take"]>(() => accepted.promise);
  const output = vi.fn<OutputSink["output"]>();
  const sink = {
    id,
    isEnded: false as boolean,
    take,
    output,
    recordSkipped: () => undefined,
    hasRoom: () => true,
    position: () => position,
    storedBytes: () => 0,
    settled: settled.promise,
    waitUntilEnded: (ms: number) => Promise.race([settled.promise, sleep(ms)]),
  } satisfies OutputSink;
  const follow = vi.spyOn(connection, "follow");
  const variables = { current: undefined };
  const outcome = new TestFollower({ connection, lifecycle, variables }, sink).run();
  const follower = follow.mock.lastCall?.[1];
  let offset = 0;
  const receive = (bytes: number) => {
    for (const end = offset + bytes; offset < end; offset += PIECE_BYTES)
      follower?.onPiece({ id, stream: "stdout", offset, bytes: new Uint8Array(PIECE_BYTES) });
  };
  const end = async () => {
    sink.isEnded = true;
    settled.resolve();
    await outcome;
  };
  return { sink, receive, take, output, accept: accepted.resolve, end, outcome, follower };
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

it("a silent run with output that is not stored is requested again, because sandboxd may wait until it is", async () => {
  vi.useFakeTimers();
  const request = vi.spyOn(TestFollower.prototype, "requestRun");
  const connection = openConnection();
  vi.spyOn(connection, "sendAndConfirm").mockResolvedValue();
  const { end } = followRun(5, connection);
  await vi.advanceTimersByTimeAsync(11_000);
  vi.useRealTimers();
  await end();
  expect(request).toHaveBeenCalledTimes(2);
});

it("a run whose container takes long to start is not lost, although an earlier container's connection breaks", async () => {
  vi.useFakeTimers();
  lifecycle.isRunning = false;
  const started = Promise.withResolvers<void>();
  const request = vi.spyOn(TestFollower.prototype, "requestRun").mockReturnValue(started.promise);
  request.mockClear();
  const connection = openConnection();
  const confirm = vi
    .spyOn(connection, "sendAndConfirm")
    .mockRejectedValue(new Error("there is no container"));
  const { outcome, follower, end } = followRun(0, connection);
  outcome.catch(() => undefined);
  await vi.advanceTimersByTimeAsync(1000);
  follower?.onBreak();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(confirm).not.toHaveBeenCalled();
  lifecycle.isRunning = true;
  started.resolve();
  await vi.advanceTimersByTimeAsync(1000);
  vi.useRealTimers();
  const ended = { type: "ended", id: "run", status: 0, stdout: 0, stderr: 0 } as const;
  follower?.onEvent(ended);
  await expect(outcome).resolves.toEqual(ended);
  expect(request).toHaveBeenCalledOnce();
  request.mockRestore();
  await end();
});

it("a command that is cancelled while its container starts ends at once, and is never started", async () => {
  const connection = openConnection();
  const ready = Promise.withResolvers<void>();
  const isOverThen = Promise.withResolvers<boolean>();
  vi.spyOn(connection, "begin").mockImplementation(async (_call, isOver) => {
    await ready.promise;
    isOverThen.resolve(isOver());
    throw new Error("not started");
  });
  const { sink, end } = followRun(0, connection);
  const runSink = { ...sink, markStarted: () => undefined, keepState: () => undefined, hasFiles: true };
  const link = { connection, lifecycle, variables: { current: undefined } };
  const spec = { command: "echo", session: "main", timeoutMs: 60_000 };
  const execution = new CommandExecutor(link).start(runSink, spec);
  await vi.waitFor(() => expect(connection.begin).toHaveBeenCalledOnce());
  await execution.cancel();
  await expect(execution.done).resolves.toEqual(CANCELLED_BEFORE_START);
  ready.resolve();
  await expect(isOverThen.promise).resolves.toBe(true);
  await end();
});

it("a piece that arrives again with one more byte keeps no memory for its old bytes", async () => {
  const { receive, take, output, end } = followRun(PIECE_BYTES - 1);
  take.mockImplementation(async (pass) => pass());
  receive(PIECE_BYTES);
  await vi.waitFor(() => expect(output).toHaveBeenCalledOnce());
  expect(output.mock.calls[0]?.[1].buffer.byteLength).toBe(1);
  await end();
});

it("the connection ends if more output of all runs waits than sandboxd sends ahead", async () => {
  const connection = openConnection();
  const runs = Array.from({ length: 50 }, (_, number) => followRun(0, connection, `run${number}`));
  const close = vi.spyOn(connection, "close");
  expect(SHARED_WINDOW_BYTES + runs.length * RUN_WAITING_BYTES).toBeLessThan(50 * 1024 * 1024);
  for (const { receive } of runs) receive(3 * PIECE_BYTES);
  expect(close).not.toHaveBeenCalled();
  runs[0]?.receive(WINDOW_BYTES);
  expect(close).toHaveBeenCalled();
  for (const { end } of runs) await end();
});
