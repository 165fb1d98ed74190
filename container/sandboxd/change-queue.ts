import { join } from "node:path";
import { WORKSPACE } from "./shapes.ts";
import { FileError } from "./file-error.ts";
import type { GuardedPath } from "./confinement.ts";

declare const queued: unique symbol;

/**
 * The result of a change. `Field` has the names of the operation's parameters that are paths of changed files, such as `path`. Only
 * `ChangeQueue` can create this type, so a handler that changes files without the queue, or that forgets one of its paths, does not
 * compile.
 */
export type QueuedResult<T, Field extends string> = T & { readonly [queued]: Readonly<Record<Field, true>> };

/** Makes the changes of each file one at a time, in the order of the calls. */
export class ChangeQueue {
  readonly #lastChanges = new Map<string, Promise<unknown>>();

  /**
   * @param files every file of the change, by the parameter of the operation that names it
   * @param change gets the paths to open
   * @throws FileError for /workspace and its parents, because saves and sessions need them
   */
  async run<Field extends string, T>(
    files: Readonly<Record<Field, GuardedPath>>,
    change: (paths: Readonly<Record<Field, string>>) => Promise<T>,
  ): Promise<QueuedResult<T, Field>> {
    const entries = Object.entries<GuardedPath>(files);
    const paths = Object.fromEntries(entries.map(([field, { path }]) => [field, path]));
    const targets = entries.map(([, { target }]) => target);
    if (targets.some((target) => `${WORKSPACE}/`.startsWith(join(target, "/"))))
      throw new FileError({ problem: "system", code: "EPERM" });
    const before = Promise.allSettled(targets.map((target) => this.#lastChanges.get(target)));
    const running = before.then(() => change(paths as Record<Field, string>));
    for (const target of targets) this.#lastChanges.set(target, running);
    try {
      return (await running) as QueuedResult<T, Field>;
    } finally {
      for (const target of targets)
        if (this.#lastChanges.get(target) === running) this.#lastChanges.delete(target);
    }
  }
}
