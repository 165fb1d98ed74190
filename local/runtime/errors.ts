/**
 * Errors as the Sandbox SDK expects them from a container: a plain `Error` whose own properties `code` and `details`
 * travel over capnweb. The SDK rebuilds its typed class (FileNotFoundError, ...) from `code` and hands `details` out
 * as the error's `context`. An Error subclass would arrive as a plain Error, so there is none.
 */

/** The codes this runtime uses, out of the SDK's registry; an unknown code would surface as a transport failure. */
export type ErrorCode =
  | "FILE_NOT_FOUND"
  | "IS_DIRECTORY"
  | "NOT_DIRECTORY"
  | "FILE_TOO_LARGE"
  | "NO_SPACE"
  | "FILESYSTEM_ERROR"
  | "INVALID_COMMAND"
  | "COMMAND_NOT_FOUND"
  | "COMMAND_EXECUTION_ERROR"
  | "STREAM_START_ERROR"
  | "PROCESS_NOT_FOUND"
  | "PROCESS_ERROR"
  | "SESSION_ALREADY_EXISTS"
  | "SESSION_DESTROYED"
  | "SESSION_TERMINATED"
  | "INVALID_PORT"
  | "GIT_REPOSITORY_NOT_FOUND"
  | "GIT_BRANCH_NOT_FOUND"
  | "GIT_AUTH_FAILED"
  | "GIT_NETWORK_ERROR"
  | "INVALID_GIT_URL"
  | "GIT_CLONE_FAILED"
  | "GIT_OPERATION_FAILED"
  | "BACKUP_CREATE_FAILED"
  | "BACKUP_RESTORE_FAILED"
  | "INVALID_BACKUP_CONFIG"
  | "WATCH_START_ERROR"
  | "VALIDATION_FAILED"
  | "INTERNAL_ERROR"
  | "UNKNOWN_ERROR";

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

export function isSandboxError(error: unknown): error is SandboxError {
  return error instanceof Error && "details" in error && "code" in error;
}

/** The refusal of one argument, in the shape the SDK's ValidationFailedError carries. */
export function validationError(field: string, message: string, reason: string): SandboxError {
  return sandboxError("VALIDATION_FAILED", message, {
    validationErrors: [{ field, message: reason }],
  });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `ENOENT` and the like, or undefined when the error did not come from the system. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
