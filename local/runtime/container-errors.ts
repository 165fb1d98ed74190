/**
 * Errors in the form that the Sandbox SDK expects from a container: a plain `Error` with the own properties `code` and
 * `details`, which capnweb sends. The SDK makes its typed class (ContextNotFoundError, ...) from `code`, with `details` as its
 * `context`. There is no subclass of Error, because it would arrive as a plain Error.
 */

/** The codes used here, from the SDK's registry. An unknown code would look like a transport failure. */
type ErrorCode = "CONTEXT_NOT_FOUND" | "PYTHON_NOT_AVAILABLE" | "INTERNAL_ERROR";

export function sandboxError(code: ErrorCode, message: string, details: Record<string, unknown>): Error {
  return Object.assign(new Error(message), { code, details });
}
