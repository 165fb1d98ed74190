/** What becomes of a run whose execution threw. */
import { type Failure, platformFailure } from "../sandbox/errors.ts";
import type { End } from "./run.ts";

export interface RunFailure {
  end: End;
  /** What was thrown. */
  error: unknown;
}

export function failureOf(error: unknown): RunFailure {
  const failure = platformFailure(error);
  if (!failure) return { error, end: { state: "lost", note: "An internal error of the server ended it." } };
  return {
    error,
    end: { state: failure.code === "sandbox_restarted" ? "lost" : "failed", note: noteOf(failure) },
  };
}

function noteOf({ message, hint }: Failure): string {
  return [message, hint].filter(Boolean).join(" ");
}
