/** Pieces of at least this many bytes do not count, because most of their cost is moving the bytes. */
const WHOLE_BYTES = 16_384;

/** How much a piece of data counts in a limit on the number of pieces: almost 1 if it is very short, 0 from WHOLE_BYTES on. */
export const pieceWeight = (bytes: number) => Math.max(0, 1 - bytes / WHOLE_BYTES);

/**
 * In a Worker, `performance.now()` is the time of day. The clock of a request stops while the request computes, so it may be behind
 * the clock of another request, by less than this. A clock that is further behind was set back.
 */
export const MAX_BEHIND_MS = 10_000;

/** A token bucket: a burst, then a rate per second. A caller may take more tokens than are left; later callers then wait longer. */
export class Pace {
  readonly #perSecond: number;
  readonly #burst: number;
  #left: number;
  #filledAt = performance.now();

  constructor(options: { burst: number; perSecond: number }) {
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#left = options.burst;
  }

  /** Takes an amount. Returns how many milliseconds to wait; 0 if no wait is needed. */
  take(amount = 1): number {
    this.#fill();
    this.#left -= amount;
    return Math.max(0, (-this.#left / this.#perSecond) * 1000);
  }

  tryTake(amount: number): boolean {
    this.#fill();
    if (this.#left < amount) return false;
    this.#left -= amount;
    return true;
  }

  giveBack(amount = 1): void {
    this.#left += amount;
  }

  #fill(): void {
    const now = performance.now();
    const passedMs = now - this.#filledAt;
    if (passedMs < 0 && passedMs > -MAX_BEHIND_MS) return;
    this.#left = Math.min(this.#burst, this.#left + (Math.max(0, passedMs) / 1000) * this.#perSecond);
    this.#filledAt = now;
  }
}
