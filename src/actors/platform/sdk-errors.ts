/** Translates the SDK's errors, which differ by code and message, to this server's errors. */
import type { OperationInterruptedError } from "@cloudflare/sandbox";
import { containerGone } from "../../container/texts.ts";
import { InterpreterError } from "../../container/kernels/interpreter.ts";
import { type KernelProgram, LANGUAGES, TRAITS } from "../../shared/languages.ts";
import { ToolError, exhausted, saysExhausted } from "../../shared/errors.ts";
import { cannotStart, noContainerReady } from "../texts.ts";

/** The codes of the SDK's errors. If a version of the SDK lacks a code that this file uses, the file does not compile. */
type SDKCode = OperationInterruptedError["code"];

/** Codes for a container that disappeared during a call, and for one that is not ready. */
const CONTAINER_GONE_CODES = new Set<SDKCode>([
  "RPC_TRANSPORT_ERROR",
  "OPERATION_INTERRUPTED",
  "SESSION_DESTROYED",
]);
const UNAVAILABLE = new Set<SDKCode>(["CONTAINER_UNAVAILABLE", "INTERPRETER_NOT_READY"]);

/** The codes for a missing program. If the SDK has no code for a program, this file does not compile. */
const NO_INTERPRETER: readonly SDKCode[] = LANGUAGES.map(
  (language) =>
    `${TRAITS[language].program.toUpperCase() as Uppercase<KernelProgram>}_NOT_AVAILABLE` as const,
);

/** Messages of Cloudflare and of the local platform, for failures that a retry does not fix. */
const CANNOT_START =
  /no such image|no application that matches|no container application|cannot make a sandbox/i;

/** An interpreter's message for an unknown context. The code did not run then. */
const NO_CONTEXT = /not found|terminated/i;

function sdkCode(error: unknown): SDKCode | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? (code as SDKCode) : undefined;
}

/** Whether the container failed to start, so that the call had no effect. */
function didNotStart(error: unknown): boolean {
  return sdkCode(error) === "INTERNAL_ERROR" && String(error).includes("Container failed to start");
}

/** Whether the call failed because the container ended. That container may be the previous one. */
export function hasEndedWhileStarting(error: unknown): boolean {
  return didNotStart(error) && /container is not listening/.test(String(error));
}

/** Translates an error of any SDK call. Unexpected errors are returned unchanged. */
export function translateError(error: unknown): unknown {
  const code = sdkCode(error);
  if (error instanceof ToolError || code === undefined) return error;
  if (CONTAINER_GONE_CODES.has(code)) return containerGone();
  if (saysExhausted(String(error))) return exhausted();
  if (didNotStart(error) && CANNOT_START.test(String(error))) return cannotStart();
  if (UNAVAILABLE.has(code) || didNotStart(error)) return noContainerReady();
  return error;
}

export function translateRunError(error: unknown): unknown {
  const code = sdkCode(error);
  const mayLackContext = code === "CONTEXT_NOT_FOUND" || code === "INTERNAL_ERROR";
  return mayLackContext && NO_CONTEXT.test(String(error)) && !didNotStart(error)
    ? new InterpreterError("context_gone", String(error))
    : translateError(error);
}

export function translateCreationError(error: unknown): unknown {
  const code = sdkCode(error);
  if (NO_INTERPRETER.some((known) => known === code)) return new InterpreterError("no_language", "");
  const [, words = ""] = /Failed to create code context:?(.*)/is.exec(String(error)) ?? [];
  return code === "INTERNAL_ERROR" && words !== "" && !saysExhausted(words)
    ? new InterpreterError("not_created", words)
    : translateError(error);
}
