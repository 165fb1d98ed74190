import { ToolError } from "../shared/errors.ts";
import { actorReset, overloaded } from "./texts.ts";

/** Matches platform errors that no property identifies, such as broken connections. */
const RESET_MESSAGE =
  /^broken\.|Network connection lost|Durable Object (storage operation exceeded|reset because|has been reset)|isolate exceeded|Cannot resolve Durable Object/;

function isReset(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ToolError) return false;
  if (Reflect.get(error, "durableObjectReset") === true) return true;
  // Thrown by the actor's own code, even if the message looks like a reset.
  if (Reflect.get(error, "remote") === true) return false;
  return Reflect.get(error, "retryable") === true || RESET_MESSAGE.test(error.message);
}

/** An overloaded actor refuses a call before it begins. */
function isOverloaded(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, "overloaded") === true;
}

/** The call must be idempotent, because it is repeated if the actor was reset. */
export async function retryOnce<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isReset(error) || isOverloaded(error)) throw error;
    return call();
  }
}

/** Returns other errors unchanged. */
export function explainReset(error: unknown, sandbox: string): unknown {
  if (isOverloaded(error)) return overloaded(sandbox);
  if (!isReset(error)) return error;
  return actorReset(sandbox);
}
