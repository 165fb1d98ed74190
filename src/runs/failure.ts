/** What becomes of a run whose execution threw. */
import { type ErrorCode, type Failure, ToolError, platformFailure } from "../sandbox/errors.ts";
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

export function failureOf(error: unknown, runID: string): RunFailure {
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
  const isLoss = LOSSES.has(failure.code);
  const end: End = { state: isLoss ? "lost" : "failed", note: noteOf(failure) };
  return { end, error: ToolError.from(failure), isLoss };
}

/** What is said to a caller of a call, not of a run that is over: made again, it would run twice. */
function noteOf({ code, message, hint }: Failure): string {
  return [message, code === "no_answer" ? NO_ANSWER : hint].filter(Boolean).join(" ");
}

const NO_ANSWER =
  "How far it got is not known, and what it started may still run. Look with run_command (ps, ls) before you repeat it; when the sandbox answers nothing any more, destroy_sandbox and start afresh.";
