/** The errors of the client library. All of them have a `code` for programs and a `hint` for people. */
import { ACCESS_HINTS, unreachable } from "./texts.ts";

/** The code if something other than this server's MCP endpoint responds. */
export const WRONG_ADDRESS = "wrong_address";

/** The base of all errors of this library. */
export class SandboxError extends Error {
  override readonly name: string = "SandboxError";
  /** The kind of error: the code of a tool's error (`not_found`, `quota_exceeded`, ...), or a code of this library. */
  readonly code: string;
  /** What to do next, as a sentence; empty if nothing can be done. */
  readonly hint: string;
  /** The run that the call was following. The run continues, and `server.result(runID)` returns to it. */
  runID?: string;

  constructor(code: string, message: string, hint = "", options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
  }
}

/** No server responded, or the connection broke. It is unknown whether the call took effect. */
export class ConnectionError extends SandboxError {
  override readonly name = "ConnectionError";

  constructor(url: string, cause: unknown) {
    const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
    const why = reason instanceof Error ? reason.message : String(reason);
    super("unreachable", ...unreachable(url, why), { cause });
  }
}

/** The server does not accept the token (401), or does not allow the call (403), for example because the token lacks a scope. */
export class AccessError extends SandboxError {
  override readonly name = "AccessError";

  constructor(status: number, message: string) {
    if (status === 401) super("unauthorized", message, ACCESS_HINTS.unauthorized);
    else super("forbidden", message, ACCESS_HINTS.forbidden);
  }
}

/** The server refused the call, or failed. `code` and `hint` come from the server. */
export class CallError extends SandboxError {
  override readonly name: string = "CallError";
}

/** The server, or a proxy before it, refused the call for now (429), or failed (5xx). After 5xx the call may have taken effect. */
export class UnavailableError extends CallError {
  override readonly name = "UnavailableError";
  /** When to try again, from `Retry-After`, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(code: string, message: string, hint: string, retryAfterMs?: number) {
    super(code, message, hint);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The arguments do not match the tool's schema. Nothing was done. */
export class InputError extends CallError {
  override readonly name = "InputError";

  constructor(message: string) {
    super("invalid_argument", message);
  }
}
