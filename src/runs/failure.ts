/** How a run ends if its executor throws. */
import { type ErrorCode, ToolError, internalError } from "../shared/errors.ts";
import type { End } from "./run-types.ts";
import { failureNote } from "./texts.ts";

export interface RunFailure {
  end: End;
  /** The error for a waiting caller, unless the run was lost. */
  error: ToolError;
  /** Whether the run may have begun and its end is unknown. If so, its caller gets a `lost` run instead of an error. */
  isLoss: boolean;
  cause?: unknown;
}

/** After these errors it is unknown how far the run got. */
const LOSSES: ReadonlySet<ErrorCode> = new Set(["sandbox_restarted", "connection_lost", "no_answer"]);

/** @param mayHaveRun whether the run may have begun. If so, the text must not claim that nothing happened */
export function failureOf(error: unknown, runID: string, mayHaveRun: boolean): RunFailure {
  const failure = error instanceof ToolError ? error.toFailure() : undefined;
  if (!failure) {
    const internal = internalError(runID);
    const end: End = { state: "lost", note: failureNote(internal.toFailure(), false) };
    return { end, error: internal, isLoss: false, cause: error ?? "nothing" };
  }
  const isKnownLoss = LOSSES.has(failure.code);
  const isLoss = isKnownLoss || mayHaveRun;
  const end: End = { state: isLoss ? "lost" : "failed", note: failureNote(failure, isLoss && !isKnownLoss) };
  return { end, error: ToolError.from(failure), isLoss };
}
