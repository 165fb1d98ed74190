/** How reads of resources reach the principal's sandboxes, and how their errors are reported. */
import { ProtocolError, ProtocolErrorCode, ResourceNotFoundError } from "@modelcontextprotocol/server";
import type { Input, OperationName, Result } from "../../container/sandboxd/operations.ts";
import { type SandboxCall, callSandbox, operate } from "../actors/sandbox-client.ts";
import type { Owner } from "../actors/account-calls.ts";
import { countAnswer } from "../shared/request-memory.ts";
import { ToolError, toolErrorOf } from "../shared/errors.ts";
import { logError } from "../shared/log.ts";
import type { CallerContext } from "../shared/request-context.ts";

/** Calls a repeatable method of a sandbox. Starts no container, and leaves notices for the next answer of a tool. */
export async function readSandbox<T>(
  caller: CallerContext,
  sandbox: string,
  call: SandboxCall<T>,
): Promise<T> {
  return callSandbox(caller.env, ownerOf(caller, sandbox), call, { isRepeatable: true });
}

/** Does a file operation, and leaves notices like `readSandbox`. @param mayStart whether a container may be started */
export async function operateWithoutNotice<Name extends OperationName>(
  caller: CallerContext,
  sandbox: string,
  name: Name,
  input: Input<Name>,
  { mayStart = false } = {},
): Promise<Result<Name>> {
  return operate(caller.env, { ...ownerOf(caller, sandbox), mayStart }, name, input);
}

function ownerOf({ principal: { id, region, scopes } }: CallerContext, sandbox: string): Owner {
  return { principalID: id, sandbox, region, scopes, mayStart: false };
}

/**
 * Does the work, and counts its result as an unread answer. Turns every error into a JSON-RPC error. An
 * unexpected error's text refers to its log line.
 */
export async function convertErrors<T extends object>(
  caller: CallerContext,
  method: string,
  work: () => Promise<T>,
) {
  try {
    const result = await work();
    countAnswer(caller.memory, result, true);
    return result;
  } catch (error) {
    if (error instanceof ProtocolError) throw error;
    if (!(error instanceof ToolError)) logError(caller, method, error);
    throw protocolError(toolErrorOf(error, caller.requestID));
  }
}

export function protocolError(error: ToolError, uri?: string): ProtocolError {
  if (error.code === "not_found" && uri !== undefined) return new ResourceNotFoundError(uri, error.text);
  const isCallerError = CALLER_ERRORS.has(error.code);
  return new ProtocolError(
    isCallerError ? ProtocolErrorCode.InvalidParams : ProtocolErrorCode.InternalError,
    error.text,
    uri === undefined ? undefined : { uri, reason: error.code },
  );
}

const CALLER_ERRORS: ReadonlySet<ToolError["code"]> = new Set([
  "invalid_argument",
  "not_found",
  "not_directory",
  "is_directory",
  "permission_denied",
  "too_large",
]);
