/**
 * Limits how much log data waits for R2 in a sandbox's actor, because SQLite's file never shrinks. At the limit, runs that print wait until
 * R2 has stored some data.
 */
import { SerialQueue } from "../shared/queue.ts";
import { elapsedMs, waitAtMost } from "../shared/timers.ts";

/** The limit for all logs together, in bytes. One read from the sandbox may exceed the limit. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long output waits for R2. During REFUSED_MS after a failure, it does not wait. */
const UPLOAD_WAIT_MS = 3000;
const REFUSED_MS = 10_000;

export interface WaitingLog {
  readonly waitingBytes: number;
  /** Moves some of these bytes to R2. Settles when the attempt has ended. */
  moveLog(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<WaitingLog>;
  readonly #queue = new SerialQueue();
  #refusedAt = -Infinity;

  constructor(logs: () => Iterable<WaitingLog>) {
    this.#logs = logs;
  }

  /** Calls `output` when there is room, or when R2 has failed to make room. */
  take(output: () => void): Promise<void> {
    return this.#queue.run(async () => {
      while (this.#isFull) await this.#moveLargest();
      output();
    });
  }

  get #isFull(): boolean {
    return this.#bytes >= WAITING_BYTES && elapsedMs(this.#refusedAt) >= REFUSED_MS;
  }

  get #bytes(): number {
    return Iterator.from(this.#logs()).reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
  }

  /** Moves part of the log with the most waiting bytes, because it makes the largest objects. */
  async #moveLargest(): Promise<void> {
    const before = this.#bytes;
    const [largest] = [...this.#logs()].toSorted((a, b) => b.waitingBytes - a.waitingBytes);
    const shipped = largest?.moveLog().catch(() => undefined);
    await waitAtMost(UPLOAD_WAIT_MS, shipped ?? Promise.resolve());
    if (this.#bytes >= before) this.#refusedAt = Date.now();
  }
}
