/** What the platform does to an actor in the middle of a call: it throws the actor away, or takes no call for it. */
import { ToolError } from "../shared/errors.ts";

/** Words of errors that carry no mark of the platform's, as of a connection that broke. */
const WORDS =
  /^broken\.|Network connection lost|Durable Object (storage operation exceeded|reset because|has been reset)|isolate exceeded|Cannot resolve Durable Object/;

/** Whether an error of a stub says that its actor was reset, or the way to it lost, while a call was on its way. */
export function isReset(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ToolError) return false;
  // An error that the actor's own code threw is marked `remote`: it is no word about the actor, whatever it says.
  if (Reflect.get(error, "durableObjectReset") === true) return true;
  if (Reflect.get(error, "remote") === true) return false;
  return Reflect.get(error, "retryable") === true || WORDS.test(error.message);
}

/** Whether an error of a stub says that its actor has more calls than it can take: this one was not begun. */
export function isOverloaded(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, "overloaded") === true;
}

/** Calls an actor for what can be asked twice: once more when it is reset over the first. */
export async function twice<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isReset(error) || isOverloaded(error)) throw error;
    return call();
  }
}

/** An error of a sandbox's stub in words for a model; any other as it is. */
export function explainedReset(error: unknown, sandbox: string): unknown {
  if (isOverloaded(error))
    return new ToolError(
      "sandbox_unavailable",
      `Sandbox ${sandbox} has more calls at once than it can take; this one was not begun.`,
      "Make the same call again in about 10 seconds.",
      true,
    );
  if (!isReset(error)) return error;
  return new ToolError(
    "connection_lost",
    `The server restarted the controller of sandbox ${sandbox} in the middle of this call: what it started may have run, or may still run.`,
    `list_runs with sandbox ${sandbox} shows a run that had gone on for a second; look for what a shorter one did before repeating it. A file can be read, or written without append, again; before an append is repeated, list_files tells the file's size.`,
  );
}
