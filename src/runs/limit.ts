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
  /** Whether the limit ended the run; later reports of its execution are ignored. */
  isReached = false;

  /** Resolves with the end of `done`, or with `timed_out` or `cancelled` if the limit is reached first. */
  async enforce(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#at = 0;
      clearTimeout(this.#timer);
    }
  }

  /**
   * Sets the limit to the deadline plus the grace time.
   * @param at the run's deadline, in milliseconds since the epoch
   * @param timeoutMs the run's time limit; undefined if unknown
   */
  setDeadline(at: number, timeoutMs: number | undefined): void {
    this.#setLimit({ state: "timed_out", note: timeoutUnconfirmed(timeoutMs, GRACE_MS) }, at + GRACE_MS);
  }

  setCancelDeadline(): void {
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
