/** Errors of the platform's about an actor: it was reset in the middle of a call, or takes no more calls. */
import { ToolError } from "../shared/errors.ts";

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

/** The error for a call that takes longer than its client waits. @param hasBegun whether anything of it was done */
export function actorUnreachable(sandbox: string, ms: number, hasBegun: boolean): ToolError {
  const [what, next] = hasBegun
    ? [
        "has not answered this call; what it does goes on",
        "Look at what was done (list_files, read_file), then repeat what was not. When it does not answer these either, destroy_sandbox and start afresh.",
      ]
    : [
        "was not ready for this call, which was not begun: it is being started or set up, or is too busy",
        "Wait 10 seconds, then make the same call again.",
      ];
  return new ToolError(
    "no_answer",
    `After ${Math.round(ms / 1000)} s sandbox ${sandbox} ${what}.`,
    next,
    true,
  );
}

/** The error for a caller who may start no container. @param isKnown whether the sandbox was used before */
export function notRunning(sandbox: string, isKnown: boolean): ToolError {
  return isKnown
    ? new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running, and what may only read does not start it. What was saved of its /workspace is kept.`,
        "A call that may run or write starts it with that: run_command, say.",
      )
    : new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running and was never used, so it holds no files; what only reads or removes them makes none.`,
        "list_sandboxes shows those that there are.",
      );
}
