/** Follows a run's output from where it was read to: a connection that breaks costs neither a gap nor a line twice. */
import { useEffect, useState } from "preact/hooks";
import { Log } from "./log.ts";
import { pause, shown, wordsOf } from "./poll.ts";
import { type Block, callTool, SignedOut, ToolFailed } from "./tools.ts";

export type RunState = "running" | "succeeded" | "failed" | "cancelled" | "timed_out" | "lost";

export interface Followed {
  log: Log;
  /** Changes with the log. */
  version: number;
  state: RunState | undefined;
  exitCode: number | undefined;
  /** Bytes of output so far. */
  bytes: number;
  /** Whether it can be typed into. */
  isInteractive: boolean;
  /** Once it has ended: what it left beside its output. */
  result: Block[];
  problem: string | undefined;
}

/** A page of a log, as `get_result` with a cursor gives it. */
interface LogPage {
  state: RunState;
  exit_code?: number;
  log: { stream: "stdout" | "stderr"; text: string }[];
  next_cursor: number;
  log_bytes: number;
  interactive?: true;
}

/** How long the server waits for more output, seconds. */
const WAIT_SECONDS = 20;

/** Between two questions, so that a program that prints all the time costs a few of them a second, milliseconds. */
const BETWEEN_MS = 300;
const RETRY_MS = 2000;

/** How far reading may be behind, bytes: beyond that it goes on near the end. */
const MAX_BEHIND = 1024 * 1024;
const TAIL = 256 * 1024;

const NOTHING = {
  state: undefined,
  exitCode: undefined,
  bytes: 0,
  isInteractive: false,
  result: [],
  problem: undefined,
};

export function useRun(id: string | undefined, onSignedOut: () => void): Followed {
  const [followed, setFollowed] = useState<Followed & { id?: string }>(() => ({
    ...NOTHING,
    log: new Log(),
    version: 0,
  }));

  useEffect(() => {
    if (id === undefined) return undefined;
    const stop = new AbortController();
    const log = new Log();
    let version = 0;
    const update = (changes: Partial<Followed>) => {
      if (stop.signal.aborted) return;
      version++;
      setFollowed((before) => ({
        ...(before.id === id ? before : { ...NOTHING, id }),
        ...changes,
        log,
        version,
      }));
    };
    update({ ...NOTHING });
    void (async () => {
      let cursor = 0;
      let isFirst = true;
      while (!stop.signal.aborted) {
        await shown(stop.signal);
        let waitMs = BETWEEN_MS;
        try {
          const args = { id, cursor, wait_seconds: isFirst ? 0 : WAIT_SECONDS };
          const { data } = await callTool<LogPage>("get_result", args, stop.signal);
          if (stop.signal.aborted) return;
          const { state, exit_code: exitCode, next_cursor: next, log_bytes: bytes } = data;
          const isInteractive = data.interactive === true;
          // The state may be older than the page of a run that has just ended: the next answer has the rest.
          const isOver = state !== "running" && next >= bytes;
          for (const { text } of data.log) log.append(text);
          isFirst = false;
          cursor = next;
          if (bytes - next > MAX_BEHIND) {
            cursor = bytes - TAIL;
            log.leaveOut(cursor - next);
          }
          update({ state, exitCode, bytes, isInteractive, problem: undefined });
          if (isOver) {
            const { content } = await callTool("get_result", { id, wait_seconds: 0 }, stop.signal);
            update({ result: content });
            return;
          }
          if (cursor < bytes) waitMs = 0;
        } catch (error) {
          if (stop.signal.aborted) return;
          if (error instanceof SignedOut) return onSignedOut();
          update({ problem: wordsOf(error) });
          if (error instanceof ToolFailed) return;
          waitMs = RETRY_MS;
        }
        await pause(waitMs, stop.signal);
      }
    })();
    return () => stop.abort();
  }, [id]);

  return followed.id === id ? followed : { ...NOTHING, log: new Log(), version: 0 };
}
