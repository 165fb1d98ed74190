/**
 * Follows a run's output. After a broken connection it continues at the same byte. If it is more than 1 MiB behind, it skips to
 * the last 256 KiB and marks the gap.
 */
import { useEffect, useState } from "preact/hooks";
import type { ToolOutputs } from "../client/tool-types.ts";
import type { ListedRun, RunState } from "../src/shared/run-listing.ts";
import { isReadWhole, nextOffset } from "../src/shared/watch-intervals.ts";
import type { Block, Watch } from "./host.ts";
import { live } from "./live.ts";
import { OutputLog } from "./output-log.ts";
import { usePolled } from "./poll.ts";
import { callTool } from "./tools.ts";

export interface FollowedRun {
  log: OutputLog;
  /** A number that changes when the log changes. */
  version: number;
  state: RunState | undefined;
  exitCode: number | undefined;
  bytes: number;
  isInteractive: boolean;
  problem: string | undefined;
}

/** A page of a log, as `get_result` returns it with a cursor. It has the fields of a result of `send_input`. */
export type LogPage = ToolOutputs["send_input"];

const NO_OUTPUT = {
  state: undefined,
  exitCode: undefined,
  bytes: 0,
  isInteractive: false,
  problem: undefined,
};

export function useRun(id: string | undefined): FollowedRun {
  const [followed, setFollowed] = useState<FollowedRun & { id?: string }>(() => ({
    ...NO_OUTPUT,
    log: new OutputLog(),
    version: 0,
  }));

  useEffect(() => {
    if (id === undefined) return undefined;
    const stop = new AbortController();
    const log = new OutputLog();
    let version = 0;
    const update = (changes: Partial<FollowedRun>) => {
      if (stop.signal.aborted) return;
      version++;
      setFollowed((before) => ({
        ...(before.id === id ? before : { ...NO_OUTPUT, id }),
        ...changes,
        log,
        version,
      }));
    };
    update({ ...NO_OUTPUT });
    const watch: Watch = { name: "get_result", arguments: { id, cursor: 0 } };
    const onProblem = (problem: string) => update({ problem });
    const stopWatching = live.add({
      watch,
      onUpdate({ data, problem }) {
        if (problem !== undefined) {
          onProblem(problem);
          return true;
        }
        const page = data as LogPage;
        const { state, exit_code: exitCode, log_bytes: bytes, interactive, next_cursor: next } = page;
        for (const { text } of page.log) log.append(text);
        const cursor = nextOffset(page);
        if (cursor > next) log.addGap(cursor - next);
        watch.arguments = { id, cursor };
        update({ state, exitCode, bytes, isInteractive: interactive === true, problem: undefined });
        return isReadWhole(page);
      },
      onProblem,
    });
    return () => {
      stop.abort();
      stopWatching();
    };
  }, [id]);

  return followed.id === id ? followed : { ...NO_OUTPUT, log: new OutputLog(), version: 0 };
}

/** The fields of `get_result` for every run. */
interface RunFields extends ListedRun {
  /** The program or command. The server may have cut it. */
  source: string;
}

export interface RunDetails {
  fields: RunFields | undefined;
  /** The text that models get, and pictures. */
  content: Block[];
  problem: string | undefined;
}

/** A run's data without its log. @param key a new key loads the data again; undefined loads nothing */
export function useRunDetails(id: string, key: string | undefined): RunDetails {
  const { value, problem } = usePolled(key, (signal) =>
    callTool<RunFields>("get_result", { id, wait_seconds: 0 }, signal),
  );
  return { fields: value?.data, content: value?.content ?? [], problem };
}
