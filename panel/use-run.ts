/** A run's output as lines, with marks of gaps, and its other data. */
import { useEffect, useState } from "preact/hooks";
import type { ListedRun, RunState } from "../src/shared/run-listing.ts";
import { followLog } from "./follow-log.ts";
import type { Block } from "./host.ts";
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
    const log = new OutputLog();
    let version = 0;
    const update = (changes: Partial<FollowedRun>) => {
      version++;
      setFollowed((before) => ({
        ...(before.id === id ? before : { ...NO_OUTPUT, id }),
        ...changes,
        log,
        version,
      }));
    };
    update({ ...NO_OUTPUT });
    return followLog(id, {
      form: "structured",
      onPage(page, leftOut) {
        const { state, exit_code: exitCode, log_bytes: bytes, interactive } = page;
        for (const { text } of page.log) log.append(text);
        if (leftOut > 0) log.addGap(leftOut);
        update({ state, exitCode, bytes, isInteractive: interactive === true, problem: undefined });
      },
      onProblem: (problem) => update({ problem }),
    });
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
