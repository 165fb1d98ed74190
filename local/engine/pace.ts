/** A token bucket: so much at once, and so much a second after that. It can be overdrawn, which later comers wait for. */
export class Pace {
  readonly #perSecond: number;
  readonly #most: number;
  #left: number;
  #at = performance.now();

  constructor(options: { burst: number; perSecond: number }) {
    this.#perSecond = options.perSecond;
    this.#most = options.burst;
    this.#left = options.burst;
  }

  /** Takes an amount. Answers for how many milliseconds its taker is to wait, 0 for not at all. */
  take(amount = 1): number {
    this.#fill();
    this.#left -= amount;
    return Math.max(0, (-this.#left / this.#perSecond) * 1000);
  }

  /** Takes an amount if it is there. */
  tryTake(amount: number): boolean {
    this.#fill();
    if (this.#left < amount) return false;
    this.#left -= amount;
    return true;
  }

  /** Gives back what was taken and not used. */
  giveBack(amount = 1): void {
    this.#left += amount;
  }

  #fill(): void {
    const now = performance.now();
    this.#left = Math.min(this.#most, this.#left + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
  }
}
