/**
 * Ends a run for its caller if the sandbox does not report the run's end in time. User code can suppress that report, but cannot
 * change the Worker's clock.
 */
import type { End } from "./run-types.ts";
import { cancelUnconfirmed, timeoutUnconfirmed } from "./texts.ts";

/** How long after the deadline the sandbox may take to stop a run and send its last output. */
const GRACE_MS = 15_000;

/** How long the sandbox may take after a cancel: less than cancel_run waits. */
const CANCEL_MS = 8_000;

export class Limit {
  readonly #reached = Promise.withResolvers<End>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #at = Number.POSITIVE_INFINITY;
  #cancelAt = Number.POSITIVE_INFINITY;
  #isOver = false;
  /** The end of the run, if only its output is missing. */
  #knownEnd: (() => End) | undefined;
  /** Whether the limit ended the run; later reports of its execution are ignored. */
  isReached = false;

  /** Resolves with the end of `done`, or with `timed_out` or `cancelled` if the limit is reached first. */
  async enforce(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#isOver = true;
      clearTimeout(this.#timer);
    }
  }

  /**
   * Sets the limit to the deadline plus the grace time.
   * @param at the run's deadline, in milliseconds since the epoch
   * @param timeoutMs the run's time limit
   */
  setDeadline(at: number, timeoutMs: number): void {
    const note = timeoutUnconfirmed(timeoutMs, GRACE_MS);
    this.#setLimit(() => ({ state: "timed_out", note, unconfirmed: true }), at + GRACE_MS);
  }

  setCancelDeadline(): void {
    this.#cancelAt = Math.min(this.#cancelAt, Date.now() + CANCEL_MS);
    const note = cancelUnconfirmed(CANCEL_MS);
    this.#setLimit(() => ({ state: "cancelled", note, unconfirmed: true }), this.#cancelAt);
  }

  /**
   * Replaces the limit when the end is known and only output is missing. A cancel still shortens the wait for the output.
   * @param end called when the limit is reached
   */
  setDeliveryDeadline(ms: number, end: () => End): void {
    this.#knownEnd = end;
    this.#at = Number.POSITIVE_INFINITY;
    this.#setLimit(end, Math.min(Date.now() + ms, this.#cancelAt));
  }

  /** The earlier of two limits counts. */
  #setLimit(end: () => End, at: number): void {
    if (this.#isOver || at >= this.#at) return;
    this.#at = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isReached = true;
      this.#reached.resolve((this.#knownEnd ?? end)());
    }, at - Date.now());
  }
}
