/**
 * Ends a run for its caller when the sandbox does not. User code can hide the end of a run or lie about it, but cannot
 * reach the Worker's clock.
 */
import type { End } from "./run.ts";

/** How long after its deadline the sandbox may take to stop a run and send its last output, milliseconds. */
const GRACE_MS = 15_000;

/** The same after a cancel, milliseconds: less than cancel_run waits. */
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
  /** Whether the run was ended here, so that what its execution still reports is ignored. */
  isReached = false;

  /** The end of the run: that of `done`, or one of ours when `done` takes too long. */
  async hold(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#at = 0;
      clearTimeout(this.#timer);
    }
  }

  /** The run has begun. @param at its deadline, milliseconds since the epoch */
  deadline(at: number): void {
    this.#arm("timed_out", at + GRACE_MS);
  }

  /** The run was cancelled. */
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
