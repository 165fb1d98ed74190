/**
 * Bounds how much log data waits for R2 in a sandbox's actor, and how fast a sandbox prints that prints without end. SQLite
 * reuses free pages, but its file never shrinks, so the peak stays on disk. Above the bound, printing runs take turns, each
 * after R2 has taken some data.
 */
import { Pace } from "../shared/pace.ts";
import { SerialQueue } from "../shared/queue.ts";
import { pause, within } from "../shared/within.ts";

/** The bound for all logs together, in bytes. One read from the sandbox may exceed it. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long output waits for R2, and how long it does not wait again after a failure. In milliseconds. */
const UPLOAD_WAIT_MS = 3000;
const REFUSED_MS = 10_000;

/**
 * Output that the runs of a sandbox store, in bytes and bytes a second. To store it takes time of a thread that all sandboxes may
 * share. A whole log is taken as fast as it comes. After that programs wait in their writes, as at a slow terminal.
 */
const OUTPUT_PACE = { burst: 128 * 1024 * 1024, perSecond: 4 * 1024 * 1024 };

export interface WaitingLog {
  /** Its bytes that wait for R2. */
  readonly waitingBytes: number;
  /** Moves them to R2. Settles when the attempt has ended. */
  moveLog(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<WaitingLog>;
  readonly #turns = new SerialQueue();
  readonly #pace = new Pace(OUTPUT_PACE);
  #refusedAt = -Infinity;

  /** @param logs the logs of running runs */
  constructor(logs: () => Iterable<WaitingLog>) {
    this.#logs = logs;
  }

  /**
   * Calls `output` as soon as there is room, or R2 has failed to make any.
   * @param bytes of the output. Each run waits for its own, so that one which prints little does not wait for another's.
   */
  async take(bytes: number, output: () => void): Promise<void> {
    const ms = this.#pace.take(bytes);
    if (ms > 0) await pause(ms);
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

  /** Moves the log with the most waiting bytes, which makes the largest objects. */
  async #ship(): Promise<void> {
    const before = this.#bytes;
    const [most] = [...this.#logs()].toSorted((a, b) => b.waitingBytes - a.waitingBytes);
    const shipped = most?.moveLog().catch(() => undefined);
    await within(UPLOAD_WAIT_MS, shipped ?? Promise.resolve());
    if (this.#bytes >= before) this.#refusedAt = Date.now();
  }
}
