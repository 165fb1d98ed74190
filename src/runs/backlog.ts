/** Bounds the log data that waits for R2, because SQLite's file never shrinks, and how fast a sandbox prints after a burst. */
import { Pace } from "../../container/sandboxd/pace.ts";
import { SerialQueue } from "../shared/queue.ts";
import { pause, waitAtMost } from "../shared/timers.ts";

/** The limit of all logs together. One read from the sandbox may exceed it. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long output waits for R2; not at all during REFUSED_MS after a failure. */
const UPLOAD_WAIT_MS = 3000;
const REFUSED_MS = 10_000;

/** All sandboxes may share the thread that stores output. The burst exceeds a default log; after it, programs' writes block. */
const OUTPUT_PACE = { burst: 128 * 1024 * 1024, perSecond: 4 * 1024 * 1024 };

export interface WaitingLog {
  readonly waitingBytes: number;
  moveLog(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<WaitingLog>;
  readonly #turns = new SerialQueue();
  readonly #pace = new Pace(OUTPUT_PACE);
  #refusedAt = -Infinity;

  constructor(logs: () => Iterable<WaitingLog>) {
    this.#logs = logs;
  }

  /** Waits for room, unless R2 fails to make room. @param bytes for the rate limit */
  async take(bytes: number, output: () => void): Promise<void> {
    const ms = this.#pace.take(bytes);
    if (ms > 0) await pause(ms);
    return this.#turns.run(async () => {
      while (this.#isFull) await this.#moveLargest();
      output();
    });
  }

  get #isFull(): boolean {
    return this.#bytes >= WAITING_BYTES && Date.now() - this.#refusedAt >= REFUSED_MS;
  }

  get #bytes(): number {
    return Iterator.from(this.#logs()).reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
  }

  /** The log with the most waiting bytes makes the largest objects. */
  async #moveLargest(): Promise<void> {
    const before = this.#bytes;
    const [largest] = [...this.#logs()].toSorted((a, b) => b.waitingBytes - a.waitingBytes);
    const shipped = largest?.moveLog().catch(() => undefined);
    await waitAtMost(UPLOAD_WAIT_MS, shipped ?? Promise.resolve());
    if (this.#bytes >= before) this.#refusedAt = Date.now();
  }
}
