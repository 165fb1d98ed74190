/** Makes changes of one file in the order of the calls. */
import type { GuardedPath } from "./confinement.ts";

declare const queued: unique symbol;

/**
 * The result of a change. Only `ChangeQueue` can create this type, so a handler that changes a file without the queue does not
 * compile.
 */
export type QueuedResult<T> = T & { readonly [queued]: true };

/** Makes one change of a file at a time, in the order of the calls. */
export class ChangeQueue {
  readonly #lastChanges = new Map<string, Promise<unknown>>();

  /** @param change gets the path to open */
  async run<T>(
    { path, target }: GuardedPath,
    change: (path: string) => Promise<T>,
  ): Promise<QueuedResult<T>> {
    const begin = () => change(path);
    const running = (this.#lastChanges.get(target) ?? Promise.resolve()).then(begin, begin);
    this.#lastChanges.set(target, running);
    try {
      return (await running) as QueuedResult<T>;
    } finally {
      if (this.#lastChanges.get(target) === running) this.#lastChanges.delete(target);
    }
  }
}
