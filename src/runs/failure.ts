/** How a run ends whose executor threw. */
import { type ErrorCode, type Failure, ToolError, internalError } from "../shared/errors.ts";
import type { End } from "./run-types.ts";

export interface RunFailure {
  end: End;
  /** The error for a caller who waits, where the run was not lost. */
  error: ToolError;
  /** The run may have begun and its end is unknown: the caller gets a run that was lost, not an error. */
  isLoss: boolean;
  /** The thrown value of an unexpected error, for the log. */
  cause?: unknown;
}

/** After these errors nobody knows how far the run got. */
const LOSSES: ReadonlySet<ErrorCode> = new Set(["sandbox_restarted", "connection_lost", "no_answer"]);

/** @param mayHaveRun whether the run may have begun: then no answer says that nothing was done */
export function failureOf(error: unknown, runID: string, mayHaveRun: boolean): RunFailure {
  const failure = error instanceof ToolError ? error.toFailure() : undefined;
  if (!failure) {
    const internal = internalError(runID);
    const end: End = { state: "lost", note: noteOf(internal.toFailure(), false) };
    return { end, error: internal, isLoss: false, cause: error ?? "nothing" };
  }
  const isKnownLoss = LOSSES.has(failure.code);
  const isLoss = isKnownLoss || mayHaveRun;
  const end: End = { state: isLoss ? "lost" : "failed", note: noteOf(failure, isLoss && !isKnownLoss) };
  return { end, error: ToolError.from(failure), isLoss };
}

/** A hint to repeat the call is left out where the run may have begun, because it would run twice. */
function noteOf({ code, message, hint }: Failure, mayRun: boolean): string {
  return [message, mayRun || code === "no_answer" ? MAY_RUN : hint].filter(Boolean).join(" ");
}

const MAY_RUN =
  "How far it got is not known, and what it started may still run. Look with run_command (ps, ls) before you repeat it; when the sandbox answers nothing any more, destroy_sandbox and start afresh.";
