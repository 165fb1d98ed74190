/**
 * Ends a run for its caller when the sandbox does not. User code can keep the end of a run from being seen, or lie about
 * it; the Worker's clock is out of its reach.
 */
import type { End } from "./run.ts";

/** How long after its deadline a run may take to be stopped and read to its end, milliseconds. */
const GRACE_MS = 15_000;

/** The same after it was cancelled: less than cancel_run waits. */
const CANCEL_MS = 8_000;

const UNCONFIRMED =
  "the sandbox did not confirm that: processes of it may still run there, and its last output may be missing. destroy_sandbox ends them.";

const ENDS = {
  timed_out: `It took too long and was told to stop, but ${UNCONFIRMED}`,
  cancelled: `It was told to stop, but ${UNCONFIRMED}`,
} as const;

export class Limit {
  readonly #reached = Promise.withResolvers<End>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #at = Number.POSITIVE_INFINITY;
  /** Whether the run was ended here: what its execution still does is of no use. */
  isReached = false;

  /** How the run ends: as `done` says, or in time without it. */
  async hold(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#at = 0;
      clearTimeout(this.#timer);
    }
  }

  /** The run has begun. @param at when it is to have ended, milliseconds since the epoch */
  deadline(at: number): void {
    this.#arm("timed_out", at + GRACE_MS);
  }

  /** The run is told to end. */
  cancelled(): void {
    this.#arm("cancelled", Date.now() + CANCEL_MS);
  }

  #arm(state: keyof typeof ENDS, at: number): void {
    if (at >= this.#at) return;
    this.#at = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isReached = true;
      this.#reached.resolve({ state, note: ENDS[state], unconfirmed: true });
    }, at - Date.now());
  }
}
