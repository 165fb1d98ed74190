/**
 * Ends a run for its caller when the sandbox does not. User code can hide the end of a run or lie about it, but cannot
 * reach the Worker's clock.
 */
import type { End } from "./run-types.ts";
import { cancelUnconfirmed, timeoutUnconfirmed } from "./texts.ts";

/** How long after its deadline the sandbox may take to stop a run and send its last output, milliseconds. */
const GRACE_MS = 15_000;

/** The same after a cancel, milliseconds: less than cancel_run waits. */
const CANCEL_MS = 8_000;

export class Limit {
  readonly #reached = Promise.withResolvers<End>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #at = Number.POSITIVE_INFINITY;
  /** Whether this has ended the run: from then on what its execution reports is ignored. */
  isReached = false;

  /** Resolves with the end that `done` resolves with, or with `timed_out` or `cancelled` when the limit is reached first. */
  async hold(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#at = 0;
      clearTimeout(this.#timer);
    }
  }

  /**
   * Sets the limit to the grace after the deadline.
   * @param at the run's deadline, milliseconds since the epoch
   * @param timeoutMs how long it may take; undefined where that is not known
   */
  deadline(at: number, timeoutMs: number | undefined): void {
    this.#setLimit({ state: "timed_out", note: timeoutUnconfirmed(timeoutMs, GRACE_MS) }, at + GRACE_MS);
  }

  /** Sets the limit to the grace after a cancel, which happens now. */
  cancelled(): void {
    this.#setLimit({ state: "cancelled", note: cancelUnconfirmed(CANCEL_MS) }, Date.now() + CANCEL_MS);
  }

  /** The earlier of two limits counts. */
  #setLimit(end: Pick<End, "state" | "note">, at: number): void {
    if (at >= this.#at) return;
    this.#at = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isReached = true;
      this.#reached.resolve({ ...end, unconfirmed: true });
    }, at - Date.now());
  }
}
