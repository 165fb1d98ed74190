/** The errors of the client library. All of them have a `code` for programs and a `hint` for people. */

/** The code where something else than an MCP endpoint of this server answers. */
export const WRONG_ADDRESS = "wrong_address";

/** What every error of this library is. */
export class SandboxError extends Error {
  override readonly name: string = "SandboxError";
  /** The kind of the error: a code of the server's tools (`not_found`, `quota_exceeded`, ...), or one of the subclasses'. */
  readonly code: string;
  /** What to do next, as a sentence; empty where nothing helps. */
  readonly hint: string;

  constructor(code: string, message: string, hint = "", options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
  }
}

/** No server answered, or the connection broke. Whether the call was carried out is not known. */
export class ConnectionError extends SandboxError {
  override readonly name = "ConnectionError";

  constructor(url: string, cause: unknown) {
    const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
    const words = reason instanceof Error ? reason.message : String(reason);
    super("unreachable", `No server answers at ${url} (${words}).`, "Check the address, then try again.", {
      cause,
    });
  }
}

/** The server does not accept the token (401), or the token does not allow the call (403). */
export class AccessError extends SandboxError {
  override readonly name = "AccessError";

  constructor(status: number, message: string) {
    if (status === 401) super("unauthorized", message, "Use another token.");
    else super("forbidden", message, "Use a token with the scope that the message names.");
  }
}

/** The server refused the call, or could not do it: `code` and `hint` are the server's. */
export class CallError extends SandboxError {
  override readonly name: string = "CallError";
}

/** The arguments do not fit the schema of the tool. Nothing was done. */
export class InputError extends CallError {
  override readonly name = "InputError";

  constructor(message: string) {
    super("invalid_argument", message);
  }
}
