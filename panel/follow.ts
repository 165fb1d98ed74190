/** Follows a run's output from where it was read to: a connection that breaks costs neither a gap nor a line twice. */
import { useEffect, useState } from "preact/hooks";
import type { ListedRun, RunState } from "../src/shared/run-listing.ts";
import { isReadWhole, type LogPosition, readOnAt } from "../src/shared/watch.ts";
import type { Block, Watch } from "./host.ts";
import { live } from "./live.ts";
import { Log } from "./log.ts";
import { pause, shown, wordsOf } from "./poll.ts";
import { callTool, SignedOut, ToolFailed } from "./tools.ts";

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
  problem: string | undefined;
}

/** A page of a log, as `get_result` with a cursor gives it. */
interface LogPage extends LogPosition {
  state: RunState;
  exit_code?: number;
  log: { stream: "stdout" | "stderr"; text: string }[];
  interactive?: true;
}

/** Before what failed is asked for again, milliseconds. */
const RETRY_MS = 3000;

const NOTHING = {
  state: undefined,
  exitCode: undefined,
  bytes: 0,
  isInteractive: false,
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
    const watch: Watch = { name: "get_result", arguments: { id, cursor: 0 } };
    const onProblem = (problem: string) => update({ problem });
    const leave = live.add({
      watch,
      onUpdate({ data, problem }) {
        if (problem !== undefined) {
          onProblem(problem);
          return true;
        }
        const page = data as LogPage;
        const { state, exit_code: exitCode, log_bytes: bytes, interactive, next_cursor: next } = page;
        for (const { text } of page.log) log.append(text);
        const cursor = readOnAt(page);
        if (cursor > next) log.leaveOut(cursor - next);
        watch.arguments = { id, cursor };
        update({ state, exitCode, bytes, isInteractive: interactive === true, problem: undefined });
        return isReadWhole(page);
      },
      onProblem,
      onSignedOut,
    });
    return () => {
      stop.abort();
      leave();
    };
  }, [id]);

  return followed.id === id ? followed : { ...NOTHING, log: new Log(), version: 0 };
}

/** What `get_result` says of any run. */
export interface RunFields extends ListedRun {
  /** What was run, as far as it is kept. */
  source: string;
}

export interface Told {
  /** Undefined until there is an answer. */
  fields: RunFields | undefined;
  /** What models read of it, and pictures. */
  content: Block[];
  problem: string | undefined;
}

const UNTOLD: Told = { fields: undefined, content: [], problem: undefined };

/** What there is to know of a run beside its log. @param at it is asked for again when that changes; undefined asks for nothing */
export function useTold(id: string, at: string | undefined, onSignedOut: () => void): Told {
  const [told, setTold] = useState<Told>(UNTOLD);
  useEffect(() => {
    if (at === undefined) return undefined;
    const stop = new AbortController();
    const ask = async () => {
      while (!stop.signal.aborted) {
        await shown(stop.signal);
        try {
          const call = { id, wait_seconds: 0 };
          const { data: fields, content } = await callTool<RunFields>("get_result", call, stop.signal);
          return setTold({ fields, content, problem: undefined });
        } catch (error) {
          if (stop.signal.aborted) return;
          if (error instanceof SignedOut) return onSignedOut();
          setTold((before) => ({ ...before, problem: wordsOf(error) }));
          if (error instanceof ToolFailed) return;
        }
        await pause(RETRY_MS, stop.signal);
      }
    };
    void ask();
    return () => stop.abort();
  }, [id, at]);
  return told;
}
