import { PerPrincipal } from "./per-principal.ts";
import { waitAtMost } from "./timers.ts";

/**
 * Limits how much work is done at once: each piece of work needs a turn. The others wait in the order in which they asked.
 *
 * The end of one request's turn wakes another request. workerd continues each request in its own context, also if the first one has
 * ended: this is the compatibility flag `handle_cross_request_promise_resolution`, the default since 2024-10-14. Without it, almost all
 * requests that wait hang ("Promise will never complete").
 */
export class Turns {
  readonly #count: number;
  #taken = 0;
  readonly #waiting = new Set<() => void>();
  /** When each turn in progress began, by the function that ends it. */
  readonly #begun = new Map<() => void, number>();

  constructor(count: number) {
    this.#count = count;
  }

  get isUnused(): boolean {
    return this.#taken === 0;
  }

  get isFull(): boolean {
    return this.#taken === this.#count;
  }

  /** How many pieces of work wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a turn, for at most `ms` milliseconds. Returns the function that ends the turn; undefined if there was none.
   * @param client if it aborts, the turn or the wait for the turn ends
   */
  async take(ms: number, client?: AbortSignal): Promise<(() => void) | undefined> {
    if (client?.aborted) return undefined;
    const { promise, resolve } = Promise.withResolvers<true>();
    // The turn is listed before the waiting request continues, because that request may have ended without a sign.
    const getTurn = () => {
      this.#begun.set(end, Date.now());
      resolve(true);
    };
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      this.#begun.delete(end);
      client?.removeEventListener("abort", end);
      if (this.#waiting.delete(getTurn)) resolve(true);
      else this.#end();
    };
    client?.addEventListener("abort", end);
    if (this.#taken < this.#count) {
      this.#taken += 1;
      getTurn();
    } else {
      this.#waiting.add(getTurn);
      await waitAtMost(ms, promise);
      // A turn that arrived just when the time was over is used.
      if (this.#waiting.has(getTurn)) end();
    }
    return isOver ? undefined : end;
  }

  /** Ends the turns that have lasted for at least this time. */
  endOlderThan(ms: number): void {
    const latest = Date.now() - ms;
    // Collected first: the end of a turn begins another.
    const old = [...this.#begun].filter(([, begunAt]) => begunAt <= latest);
    for (const [end] of old) end();
  }

  #end(): void {
    const [next] = this.#waiting;
    if (!next) return void (this.#taken -= 1);
    this.#waiting.delete(next);
    next();
  }
}

export type TakesTurns = Pick<Turns, "take">;

/** Separate turns for each id, such as a principal's. */
export class TurnsByID<Each extends Turns> extends PerPrincipal<Each> {
  readonly #longestMs: number;

  /** @param longestMs how long a turn may last while others wait for it in vain */
  constructor(create: () => Each, longestMs = 0) {
    super(create, (turns) => turns.isUnused);
    this.#longestMs = longestMs;
  }

  /** Waits for a turn of this id, as `Turns.take` does. */
  async take(id: string, ms: number, client?: AbortSignal): Promise<(() => void) | undefined> {
    const turns = this.of(id);
    const end = await turns.take(ms, client);
    // On Cloudflare, a request can end at a limit of the platform. Then it does not end its turn.
    if (!end && !client?.aborted) turns.endOlderThan(this.#longestMs);
    return end;
  }
}

/** Waits for several turns, one after the other. Returns the function that ends all; undefined if one was not available in time. */
export async function takeAll(
  takes: readonly TakesTurns["take"][],
  ms: number,
): Promise<(() => void) | undefined> {
  const until = Date.now() + ms;
  const ends: (() => void)[] = [];
  const endAll = () => ends.forEach((end) => end());
  for (const take of takes) {
    const end = await take(until - Date.now());
    if (!end) return void endAll();
    ends.push(end);
  }
  return endAll;
}
