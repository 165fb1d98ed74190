/**
 * Bounds how much of a sandbox's logs waits in its actor on the way to R2. SQLite reuses free pages, but its file on the
 * local disk never shrinks, so the most that ever waited at once is what the file takes for good. Beyond the bound, runs
 * that print take turns, each after R2 has taken some.
 */
import { SerialQueue } from "../shared/queue.ts";
import { within } from "../shared/within.ts";

/** Bytes of all logs together that may wait; what one call into the sandbox reads can exceed it. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long output waits for R2, milliseconds; and for how long it does not wait again after that was in vain. */
const SHIP_MS = 3000;
const REFUSED_MS = 10_000;

/** A log under way. */
export interface WaitingLog {
  /** Its bytes that wait for R2. */
  readonly waitingBytes: number;
  /** Moves them to R2; settles when the attempt has ended. */
  moveLog(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<WaitingLog>;
  readonly #turns = new SerialQueue();
  #refusedAt = -Infinity;

  /** @param logs the logs of runs under way */
  constructor(logs: () => Iterable<WaitingLog>) {
    this.#logs = logs;
  }

  /** Calls `output` as soon as there is room for it, or R2 has failed to make any. */
  take(output: () => void): Promise<void> {
    return this.#turns.run(async () => {
      while (this.#isFull) await this.#ship();
      output();
    });
  }

  get #isFull(): boolean {
    return this.#bytes >= WAITING_BYTES && Date.now() - this.#refusedAt >= REFUSED_MS;
  }

  get #bytes(): number {
    return Iterator.from(this.#logs()).reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
  }

  /** Ships the log of which most waits, because the objects of the others would be smaller. */
  async #ship(): Promise<void> {
    const before = this.#bytes;
    const [most] = [...this.#logs()].toSorted((a, b) => b.waitingBytes - a.waitingBytes);
    const shipped = most?.moveLog().catch(() => undefined);
    await within(SHIP_MS, shipped ?? Promise.resolve());
    if (this.#bytes >= before) this.#refusedAt = Date.now();
  }
}
