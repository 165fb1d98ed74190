/**
 * Errors for callers, written for a model. Each says what failed and with which values, why, and which call to make next.
 * Errors pass from the actor to the Worker as data (`Failure`), because thrown errors lose their properties.
 */

import { makeVisible, toVisibleJSON } from "./shown.ts";
import { clause } from "./text.ts";
import { valueWithin } from "./timers.ts";

export type ErrorCode =
  | "invalid_argument"
  | "not_found"
  | "is_directory"
  | "not_directory"
  | "permission_denied"
  | "no_space"
  | "file_system"
  | "too_large"
  | "not_shown"
  | "language_unavailable"
  | "quota_exceeded"
  | "not_configured"
  | "sandbox_restarted"
  | "connection_lost"
  | "no_answer"
  | "exhausted"
  | "damaged"
  | "storage_unavailable"
  | "sandbox_unavailable"
  | "internal";

export interface Failure {
  code: ErrorCode;
  /** What failed, with its values, as a sentence. */
  message: string;
  /** The next call, as a sentence; empty if there is nothing to do. */
  hint: string;
  retryable: boolean;
}

export type Outcome<T> = { ok: true; value: T } | { ok: false; failure: Failure };

/** An error meant for the caller. All other errors are internal, and only the log has their details. */
export class ToolError extends Error implements Failure {
  override readonly name = "ToolError";
  readonly code: ErrorCode;
  readonly hint: string;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, hint = "", retryable = false) {
    // Message and hint may contain file names and program output.
    super(makeVisible(message));
    this.code = code;
    this.hint = makeVisible(hint);
    this.retryable = retryable;
  }

  static from(failure: Failure): ToolError {
    return new ToolError(failure.code, failure.message, failure.hint, failure.retryable);
  }

  get text(): string {
    return [this.message, this.hint].filter(Boolean).join(" ");
  }

  toFailure(): Failure {
    const { code, message, hint, retryable } = this;
    return { code, message, hint, retryable };
  }
}

export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw ToolError.from(outcome.failure);
}

/** The result of the work, or the `ToolError` that it throws, as data. Other errors are thrown. */
export async function outcomeOf<T>(work: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    if (error instanceof ToolError) return { ok: false, failure: error.toFailure() };
    throw error;
  }
}

/** The result of the work; undefined if it fails with a `ToolError` of one of these codes. Without `codes`: any `ToolError`. */
export async function undefinedIfFailed<T>(
  work: Promise<T>,
  codes?: readonly ErrorCode[],
): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ToolError && (codes?.includes(error.code) ?? true)) return undefined;
    throw error;
  }
}

/**
 * An actor throws an error with this text if a newer server has written its database. Callers of the actor get only the error's
 * message, so they recognize the error by this text.
 */
export const NEWER_DATABASE = "A newer server has written this database";

/** The platform's message about a failure of its own, which is not the actor's, or about a damaged database. */
export const PLATFORM_FAILURE = /^internal error; reference = \w+$|: SQLITE_(CORRUPT|NOTADB)$/;

/** Messages of platform errors that have no property to identify them, such as broken connections. */
const RESET_MESSAGE =
  /^broken\.|Network connection lost|Durable Object (storage operation exceeded|reset because|has been reset)|isolate exceeded|Cannot resolve Durable Object/;

/** Whether a stub's error means that the actor or account was reset, or its connection lost, during the call. */
export function isReset(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ToolError) return false;
  // This error resets the actor each time that it starts.
  if (error.message.includes(NEWER_DATABASE)) return false;
  if (Reflect.get(error, "durableObjectReset") === true) return true;
  // The actor's own code threw this error, so the actor was not reset, even if the message looks like it.
  if (Reflect.get(error, "remote") === true) return false;
  return Reflect.get(error, "retryable") === true || RESET_MESSAGE.test(error.message);
}

/** The error for the caller. For an unexpected error, the caller gets only a reference to the log. */
export function toolErrorOf(error: unknown, ref: string): ToolError {
  if (error instanceof ToolError) return error;
  if (error instanceof Error && error.message.includes(NEWER_DATABASE))
    return new ToolError(
      "storage_unavailable",
      "The stored data was written by a newer version of this server. Nothing was changed.",
      "Tell the user that the operator has to deploy the newer version again.",
    );
  if (
    error instanceof Error &&
    (PLATFORM_FAILURE.test(error.message) || error.message.includes("SQLITE_FULL"))
  )
    return new ToolError(
      "storage_unavailable",
      `The server could not use one of its databases (ref ${ref}).`,
      "Repeat the call once, after you have checked its effects. If it fails again, tell the user that the operator has to look at the server: on a local server, the usual reason is a full disk, or a damaged file.",
    );
  return internalError(ref);
}

export const internalError = (ref: string) =>
  new ToolError(
    "internal",
    `Internal error (ref ${ref}).`,
    "The server's log has the details under that reference.",
  );

/** The error for an unknown run. A run of another principal gets the same error. */
export const unknownRun = (id: string) =>
  new ToolError(
    "not_found",
    `There is no run ${id}.`,
    "It may have expired; list_runs shows a sandbox's runs.",
  );

export const SANDBOX_STOPPED =
  "The sandbox stopped during this call: its processes, kernels and unsaved files are gone.";
export const SANDBOX_STOPPED_HINT =
  "The next call restarts the sandbox and says which files are back. Repeat the work whose results are missing, then this call.";

/** Whether an error means that the container, or only its connection, disappeared during the call. */
export function isGone(error: unknown): boolean {
  return error instanceof ToolError && error.code === "sandbox_restarted";
}

export const connectionLost = () =>
  new ToolError(
    "connection_lost",
    "The connection to the sandbox broke during this call. The sandbox still runs, but it is unknown what the call has done.",
    "Look at what was done (list_files, read_file), then repeat the rest.",
  );

/** Waits for a sandbox's result. @throws {ToolError} `no_answer` after `ms` milliseconds */
export function withTimeout<T>(ms: number, promise: Promise<T>): Promise<T> {
  return valueWithin(ms, promise, () => sandboxUnresponsive(ms));
}

export const sandboxUnresponsive = (ms: number) =>
  new ToolError(
    "no_answer",
    `The sandbox has not responded for ${Math.round(ms / 1000)} s: it hangs or is too busy.`,
    "Make the same call again in a minute. If that fails too, use destroy_sandbox and start again.",
    true,
  );

/**
 * The error for a call to a container that has certainly ended or is being replaced. If the container may still run, because
 * perhaps only the connection broke, the error is `containerGone`.
 */
export class EndingError extends ToolError {}

/** @param what begins the message, for example "The command was not started" */
export function ending(what: string): EndingError {
  return new EndingError(
    "sandbox_restarted",
    `${what}, because the platform is replacing the sandbox's container and saves the workspace.`,
    "Make the same call again in a minute: the next container has the workspace.",
    true,
  );
}

export const exhausted = () =>
  new ToolError(
    "exhausted",
    "The sandbox is out of processes or memory.",
    "Stop a run with cancel_run (list_runs shows the ids), or use destroy_sandbox and start again.",
    true,
  );

const NO_RUN_TO_STOP = "There is no run that cancel_run could stop. Use destroy_sandbox and start again.";

/** Corrects the hint of `exhausted` for a sandbox without a run, where cancel_run cannot help. */
export function correctExhaustedHint(failure: Failure): Failure {
  if (failure.code !== "exhausted") return failure;
  return { ...failure, hint: NO_RUN_TO_STOP };
}

/** User code removed or changed something that the server needs. @param what a short clause */
export const damaged = (what: string) =>
  new ToolError(
    "damaged",
    `The sandbox is damaged: ${clause(what)}. Most calls will fail.`,
    "Use destroy_sandbox; the next call makes a new sandbox.",
  );

export function saysExhausted(words: string): boolean {
  // bash prints "fork: retry:" for every failed attempt, even if a later one succeeds.
  return /EAGAIN|ENOMEM|(?<!retry: )Resource temporarily unavailable|Cannot (fork|allocate memory)|can't start new thread/i.test(
    words,
  );
}

export function unwritable(detail: string): ToolError {
  if (/No space left|quota/i.test(detail))
    return new ToolError(
      "no_space",
      "The command could not be started: the sandbox's disk is full.",
      "Delete files with run_code in javascript, which can start without space, then try again; or use destroy_sandbox.",
    );
  const reason = detail.trim().split("\n").at(-1);
  return new ToolError(
    "file_system",
    `The command could not be started: its files under /var/lib/sandbox-mcp cannot be written (${reason ? toVisibleJSON(reason) : "the sandbox gave no reason"}).`,
    "Restore that directory with run_code, or use destroy_sandbox.",
  );
}

/** @param bytes the most input of these calls */
export const tooManyUnended = (calls: number, bytes: number) =>
  new ToolError(
    "quota_exceeded",
    `More than ${calls} of your calls have not ended, or they have more than ${bytes / 1024 / 1024} MiB of input. Calls whose client has disconnected count too.`,
    "Wait until some of them have ended, then repeat this call.",
    true,
  );

/** @param max in bytes */
export const tooMuchUnread = (max: number) =>
  new ToolError(
    "quota_exceeded",
    `This answer was withheld: your requests and the answers that you have not read yet would take more than ${max / 1024 / 1024} MiB of the server's memory.`,
    "Read the earlier answers, then repeat this call.",
    true,
  );

export const TOO_MANY_REQUESTS = {
  error: "Too many requests",
  message: "You sent more requests than are allowed per minute. Wait, then try again.",
};

export function isUnresponsive(error: unknown): boolean {
  return error instanceof ToolError && error.code === "no_answer";
}
