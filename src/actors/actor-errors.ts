/** Platform errors about an actor: it was reset during a call, or is overloaded. */
import { ToolError } from "../shared/errors.ts";
import { actorReset, overloaded, serverDiskFull } from "./texts.ts";

/** Messages of platform errors that have no property to identify them, such as broken connections. */
const RESET_MESSAGE =
  /^broken\.|Network connection lost|Durable Object (storage operation exceeded|reset because|has been reset)|isolate exceeded|Cannot resolve Durable Object/;

/** Whether a stub's error means that the actor was reset, or its connection lost, during the call. */
function isReset(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ToolError) return false;
  if (Reflect.get(error, "durableObjectReset") === true) return true;
  // The actor's own code threw this error, so the actor was not reset, even if the message looks like it.
  if (Reflect.get(error, "remote") === true) return false;
  return Reflect.get(error, "retryable") === true || RESET_MESSAGE.test(error.message);
}

/** An overloaded actor refuses a call before it begins. */
function isOverloaded(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, "overloaded") === true;
}

/** Makes an idempotent call to an actor. Retries once if the actor was reset. */
export async function retryOnce<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isReset(error) || isOverloaded(error)) throw error;
    return call();
  }
}

/** Converts a reset or overload of a sandbox's actor to a `ToolError`. Returns other errors unchanged. */
export function explainReset(error: unknown, sandbox: string): unknown {
  if (isOverloaded(error)) return overloaded(sandbox);
  if (!isReset(error)) return error;
  return String(error).includes("SQLITE_FULL") ? serverDiskFull(sandbox) : actorReset(sandbox);
}
