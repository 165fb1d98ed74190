/** The SDK's errors, which are told apart by codes and messages, as errors of this server. */
import { containerGone } from "../../container/gone.ts";
import { InterpreterError } from "../../container/kernels/interpreter.ts";
import { ToolError, exhausted, saysExhausted } from "../../shared/errors.ts";
import { cannotStart, noContainerReady } from "../texts.ts";

/** Codes for a container that went away during a call, and for one that is not ready yet. */
const CONTAINER_GONE_CODES = new Set(["RPC_TRANSPORT_ERROR", "OPERATION_INTERRUPTED", "SESSION_DESTROYED"]);
const UNAVAILABLE = new Set(["CONTAINER_UNAVAILABLE", "INTERPRETER_NOT_READY"]);

/** Messages of Cloudflare and of the local platform about failures that a repeated call does not cure. */
const CANNOT_START =
  /no such image|no application that matches|no container application|cannot make a sandbox/i;

/** What an interpreter says of a context that it does not have, so that the code did not run. */
const NO_CONTEXT = /not found|terminated/i;

/** The SDK's code of an error it threw, or undefined for an error of another kind. */
function sdkCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** Whether the container failed to start for the call, so that nothing of it was done. */
function didNotStart(error: unknown): boolean {
  return sdkCode(error) === "INTERNAL_ERROR" && String(error).includes("Container failed to start");
}

/** Whether the container for the call ended before it answered. It may be the container before the one that the call asked for. */
export function endedWhileStarting(error: unknown): boolean {
  return didNotStart(error) && /container is not listening/.test(String(error));
}

/** The error of this server for one that any call of the SDK may throw; an unexpected one stays as it is. */
export function translated(error: unknown): unknown {
  const code = sdkCode(error);
  if (error instanceof ToolError || code === undefined) return error;
  if (CONTAINER_GONE_CODES.has(code)) return containerGone();
  if (saysExhausted(String(error))) return exhausted();
  if (didNotStart(error) && CANNOT_START.test(String(error))) return cannotStart();
  if (UNAVAILABLE.has(code) || didNotStart(error)) return noContainerReady();
  return error;
}

/** As `translated`, for a call that runs code in a context. */
export function translatedRun(error: unknown): unknown {
  const code = sdkCode(error);
  const isMissed = code === "CONTEXT_NOT_FOUND" || code === "INTERNAL_ERROR";
  return isMissed && NO_CONTEXT.test(String(error)) && !didNotStart(error)
    ? new InterpreterError("context_gone", String(error))
    : translated(error);
}

/** As `translated`, for a call that makes a context. */
export function translatedCreation(error: unknown): unknown {
  const code = sdkCode(error);
  if (code?.endsWith("_NOT_AVAILABLE")) return new InterpreterError("no_language", "");
  const [, words = ""] = /Failed to create code context:?(.*)/is.exec(String(error)) ?? [];
  return code === "INTERNAL_ERROR" && words !== "" && !saysExhausted(words)
    ? new InterpreterError("not_created", words)
    : translated(error);
}
