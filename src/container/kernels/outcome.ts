/** What a call of code came to, from what the executor made of its cell. */
import { isTexts } from "../answer.ts";
import { isRecord } from "../../shared/is-record.ts";
import {
  type CodeError,
  type CodeStream,
  type RichResult,
  boundedError,
  isError,
  parseDocument,
} from "./protocol.ts";

/** What the executor made of a cell; of our cells only its stdout matters, and its error when a cell went wrong. */
export interface Printed {
  logs: { stdout: string[]; stderr: string[] };
  error?: { name: string; message: string; traceback: string[] };
}

/** Whether it is what an executor prints, and not what something else in its place makes of a cell. */
export function isPrinted(answer: unknown): answer is Printed {
  if (!isRecord(answer) || !isRecord(answer.logs)) return false;
  const { logs, error } = answer;
  return isTexts(logs.stdout) && isTexts(logs.stderr) && (error === undefined || isError(error));
}

export interface CodeOutcome {
  /** False when no kernel was given the code: the run was withdrawn before, or the kernel did not start in time. */
  started: boolean;
  /** `error`: the code raised. `died`: the kernel ended by itself or was killed from elsewhere. */
  end: "ok" | "error" | "timeout" | "cancelled" | "died";
  stdout: CodeStream;
  stderr: CodeStream;
  /** Whether the sandbox may hold files of the run, with its output in them instead of in `text`. */
  hasFiles: boolean;
  results: RichResult[];
  error?: CodeError;
  /** What the code passed to exit(), which ends the cell and not the kernel. */
  exitCode?: number;
  /** Whether variables and imports are still there for the next call. */
  state: "kept" | "lost";
  /** Whether the kernel was started for this call. */
  fresh: boolean;
}

/** The outcome of code whose cell has been answered. */
export function outcomeOf(printed: Printed, runID: string, fresh: boolean): CodeOutcome {
  const found = parseDocument(printed.logs.stdout.join(""), runID);
  // Without a document something went wrong around the code; the executor's own words are the best there is.
  if (!found)
    return {
      ...unanswered("error", "kept", fresh),
      error: printed.error ? boundedError(printed.error) : NO_DOCUMENT,
    };
  return {
    started: true,
    end: found.error ? "error" : "ok",
    stdout: found.stdout,
    stderr: found.stderr,
    hasFiles: found.spilled,
    results: found.results,
    error: found.error ?? undefined,
    exitCode: found.exit ?? undefined,
    state: "kept",
    fresh,
  };
}

const NO_DOCUMENT: CodeError = {
  name: "KernelError",
  message: "The kernel did not answer as it should; use another context for a fresh one.",
  traceback: [],
};

/** The outcome of code that gave no answer: what it printed has come from the run's files. */
export function unanswered(
  end: CodeOutcome["end"],
  state: CodeOutcome["state"],
  fresh: boolean,
): CodeOutcome {
  const nothing = { bytes: 0, dropped: 0 };
  return { started: true, end, stdout: nothing, stderr: nothing, hasFiles: true, results: [], state, fresh };
}

export const NEVER_STARTED: CodeOutcome = {
  ...unanswered("cancelled", "kept", false),
  started: false,
  hasFiles: false,
};
