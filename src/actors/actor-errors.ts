/** Errors of the platform's about an actor: it was reset in the middle of a call, or takes no more calls. */
import { ToolError } from "../shared/errors.ts";
import { actorReset, overloaded } from "./texts.ts";

/** Messages of platform errors that carry no property to tell them by, such as those of a broken connection. */
const WORDS =
  /^broken\.|Network connection lost|Durable Object (storage operation exceeded|reset because|has been reset)|isolate exceeded|Cannot resolve Durable Object/;

/** Whether an error of a stub says that its actor was reset, or the connection to it lost, during a call. */
function isReset(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ToolError) return false;
  // The actor's own code threw an error marked `remote`, so its message says nothing about the actor.
  if (Reflect.get(error, "durableObjectReset") === true) return true;
  if (Reflect.get(error, "remote") === true) return false;
  return Reflect.get(error, "retryable") === true || WORDS.test(error.message);
}

/** Whether an error of a stub says that its actor has too many calls, so that this one did not begin. */
function isOverloaded(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, "overloaded") === true;
}

/** Makes an idempotent call to an actor, and repeats it once when the actor was reset during the first. */
export async function retryOnce<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isReset(error) || isOverloaded(error)) throw error;
    return call();
  }
}

/** A reset or overload of a sandbox's actor as a `ToolError`; any other error unchanged. */
export function explainedReset(error: unknown, sandbox: string): unknown {
  if (isOverloaded(error)) return overloaded(sandbox);
  if (!isReset(error)) return error;
  return actorReset(sandbox);
}
