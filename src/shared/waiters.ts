import { countdown, waitAtMost } from "./timers.ts";

/** Calls that wait for an event, any number of times. A promise for the next event would keep something of each wait. */
export class Waiters {
  readonly #wakers = new Set<() => void>();

  get size(): number {
    return this.#wakers.size;
  }

  /** Resolves at the next event, or after `ms` milliseconds. */
  async wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wakers.add(resolve);
    await waitAtMost(ms, promise).finally(() => this.#wakers.delete(resolve));
  }

  /** Waits until an event after which the condition holds, but at most `ms` milliseconds. */
  async until(condition: () => boolean, ms: number): Promise<void> {
    const leftMs = countdown(ms);
    while (!condition() && leftMs() > 0) await this.wait(leftMs());
  }

  wakeAll(): void {
    for (const wake of this.#wakers) wake();
    this.#wakers.clear();
  }
}
