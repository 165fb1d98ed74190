/**
 * Limits how much log data waits for R2 in a sandbox's actor, and the rate at which a sandbox can print after a burst. The amount
 * is limited because SQLite's file never shrinks. At the limit, runs that print take turns: each waits until R2 has stored some
 * data.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { pacesOf, takeOf } from "../shared/per-principal.ts";
import { SerialQueue } from "../shared/queue.ts";
import { elapsedMs, pause, waitAtMost } from "../shared/timers.ts";

/** The limit for all logs together, in bytes. One read from the sandbox may exceed the limit. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long output waits for R2. During REFUSED_MS after a failure, it does not wait. */
const UPLOAD_WAIT_MS = 3000;
const REFUSED_MS = 10_000;

/**
 * The limit for the output of a sandbox's runs, in bytes and bytes per second: all sandboxes may share the thread that stores
 * output. The burst is larger than a log of the default size. After the burst, the writes of programs block, as at a slow
 * terminal.
 */
const OUTPUT_PACE = { burst: 128 * 1024 * 1024, perSecond: 4 * 1024 * 1024 };
/** The limit for all sandboxes of a principal together. */
const OUTPUT_TOGETHER = { burst: OUTPUT_PACE.burst, perSecond: 2 * OUTPUT_PACE.perSecond };
const pacesTogether = pacesOf(OUTPUT_TOGETHER);
/**
 * What a sandbox prints without a wait for the others, besides the limit above: ten sandboxes print an eighth of that limit. Without it,
 * `echo` took 0.6 s and 2 MB of output 20 s while 21 runs of other sandboxes printed without pause. If it counted in the limit, ten
 * sandboxes could use the whole limit by it: the wait of other output grew to 27 s within 20 minutes, longer than a cancelled run may take
 * to end.
 */
const OUTPUT_SHARE = { burst: 4 * 1024 * 1024, perSecond: OUTPUT_TOGETHER.perSecond / 80 };

/**
 * What cancelled runs of a sandbox print without a wait, besides the limits above: at first, more than sandboxd sends ahead for 20 runs.
 * Without it, a program in sandboxd's place wrote 770 MB in the 8 seconds in which 24 cancelled runs ended, and other runs may follow.
 */
const LAST_OUTPUT = { burst: 32 * 1024 * 1024, perSecond: 512 * 1024 };

export interface WaitingLog {
  readonly waitingBytes: number;
  /** Moves some of these bytes to R2. Settles when the attempt has ended. */
  moveLog(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<WaitingLog>;
  readonly #turns = new SerialQueue();
  readonly #pace = new Pace(OUTPUT_PACE);
  readonly #share = new Pace(OUTPUT_SHARE);
  readonly #last = new Pace(LAST_OUTPUT);
  readonly #principalID: () => string | undefined;
  #refusedAt = -Infinity;

  /** @param principalID whose sandboxes share a limit */
  constructor(logs: () => Iterable<WaitingLog>, principalID: () => string | undefined) {
    this.#logs = logs;
    this.#principalID = principalID;
  }

  /**
   * Calls `output` when there is room, or when R2 has failed to make room.
   * @param bytes the size of this output, for the rate limit
   * @param isLast whether its run was cancelled, and must end within seconds
   */
  async take(bytes: number, output: () => void, isLast = false): Promise<void> {
    const ms = isLast && this.#last.tryTake(bytes) ? 0 : this.#waitMs(bytes);
    if (ms > 0) await pause(ms);
    return this.#turns.run(async () => {
      while (this.#isFull) await this.#moveLargest();
      output();
    });
  }

  #waitMs(bytes: number): number {
    const ownMs = this.#pace.take(bytes);
    const togetherMs = this.#share.tryTake(bytes) ? 0 : takeOf(pacesTogether, this.#principalID(), bytes);
    return Math.max(ownMs, togetherMs);
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
