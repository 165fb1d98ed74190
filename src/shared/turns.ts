import { waitAtMost } from "./timers.ts";

/** Limits how many tasks run at once. The others wait in the order in which they asked. */
export class Turns {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Waits for a turn, for at most `ms` milliseconds. Returns the function that ends the turn; undefined if there was none. */
  async take(ms: number): Promise<(() => void) | undefined> {
    if (this.#free > 0) this.#free -= 1;
    else {
      const { promise, resolve } = Promise.withResolvers<true>();
      const getTurn = () => resolve(true);
      this.#waiting.add(getTurn);
      const hasTurn = await waitAtMost(ms, promise);
      // The turn may arrive just when the time is over. It is used then.
      if (!hasTurn && this.#waiting.delete(getTurn)) return undefined;
    }
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#end();
    };
  }

  #end(): void {
    const [next] = this.#waiting;
    if (!next) return void (this.#free += 1);
    this.#waiting.delete(next);
    next();
  }
}
