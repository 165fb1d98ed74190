/** What becomes of a run whose execution threw. */
import { type ErrorCode, type Failure, ToolError, platformFailure } from "../shared/errors.ts";
import type { End } from "./run.ts";

export interface RunFailure {
  end: End;
  /** What a caller who waits is told where it is no loss. */
  error: ToolError;
  /** It ran, and what ran it went away: a result, not an error. */
  isLoss: boolean;
  /** What was thrown, where nobody foresaw it. */
  cause?: unknown;
}

/** After these nobody knows how far it got. */
const LOSSES: ReadonlySet<ErrorCode> = new Set(["sandbox_restarted", "connection_lost", "no_answer"]);

/** @param mayHaveRun whether it was started, as far as anybody knows: then no error says that nothing was done */
export function failureOf(error: unknown, runID: string, mayHaveRun: boolean): RunFailure {
  const failure = platformFailure(error);
  if (!failure) {
    const note = `Internal error (ref ${runID}). The server's log has the details under that reference.`;
    return {
      end: { state: "lost", note },
      error: new ToolError("internal", note),
      isLoss: false,
      cause: error ?? "nothing",
    };
  }
  const isKnownLoss = LOSSES.has(failure.code);
  const isLoss = isKnownLoss || mayHaveRun;
  const end: End = { state: isLoss ? "lost" : "failed", note: noteOf(failure, isLoss && !isKnownLoss) };
  return { end, error: ToolError.from(failure), isLoss };
}

/** What is said to a caller of a call, not of a run that is over: made again, it would run twice. */
function noteOf({ code, message, hint }: Failure, mayRun: boolean): string {
  return [message, mayRun || code === "no_answer" ? MAY_RUN : hint].filter(Boolean).join(" ");
}

const MAY_RUN =
  "How far it got is not known, and what it started may still run. Look with run_command (ps, ls) before you repeat it; when the sandbox answers nothing any more, destroy_sandbox and start afresh.";
