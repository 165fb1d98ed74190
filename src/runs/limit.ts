/** Ends a run for its caller: user code can suppress the sandbox's report, but cannot change the Worker's clock. */
import type { End } from "./run-types.ts";
import { cancelUnconfirmed, timeoutUnconfirmed } from "./texts.ts";

/** The sandbox's time to stop a run and send its last output after the deadline. */
const GRACE_MS = 15_000;

/** The sandbox's time after a cancel; less than cancel_run waits. */
const CANCEL_MS = 8_000;

export class Limit {
  readonly #reached = Promise.withResolvers<End>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #at = Number.POSITIVE_INFINITY;
  /** Then later reports of the execution are ignored. */
  isReached = false;

  /** Ends with `timed_out` or `cancelled` if the limit is reached first. */
  async enforce(done: Promise<End>): Promise<End> {
    try {
      return await Promise.race([done, this.#reached.promise]);
    } finally {
      this.#at = 0;
      clearTimeout(this.#timer);
    }
  }

  /** @param at milliseconds since the epoch, without the grace time @param timeoutMs undefined if unknown */
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
