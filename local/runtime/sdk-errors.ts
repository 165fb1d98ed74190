/**
 * Errors as the Sandbox SDK expects them from a container: a plain `Error` whose own properties `code` and `details`
 * travel over capnweb. The SDK rebuilds its typed class (ContextNotFoundError, ...) from `code` and hands `details` out
 * as the error's `context`. An Error subclass would arrive as a plain Error, so there is none.
 */

/** The codes this runtime uses, out of the SDK's registry; an unknown code would surface as a transport failure. */
export type ErrorCode =
  | "CONTEXT_NOT_FOUND"
  | "CODE_EXECUTION_ERROR"
  | "PYTHON_NOT_AVAILABLE"
  | "INTERNAL_ERROR";

export interface SandboxError extends Error {
  code: ErrorCode;
  details: Record<string, unknown>;
}

/** Builds the error to throw. `details` becomes the SDK error's `context`; its values must be plain data. */
export function sandboxError(
  code: ErrorCode,
  message: string,
  details: Record<string, unknown> = {},
): SandboxError {
  return Object.assign(new Error(message), { code, details });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `ENOENT` and the like, or undefined when the error did not come from the system. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
