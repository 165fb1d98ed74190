/**
 * How much of the logs of one sandbox waits in its actor before it goes to R2. SQLite uses the pages again that are free,
 * but its file on the local disk never shrinks: what waits at once is what the file takes for good. So runs that print
 * take turns once that is much, each after some of it has left.
 */
import { within } from "../shared/within.ts";

/** Bytes that may wait, of all logs together, give or take what one call into the sandbox reads. */
const WAITING_BYTES = 4 * 1024 * 1024;

/** How long R2 is waited for, milliseconds; and how long it is not waited for again when that did not help. */
const SHIP_MS = 3000;
const REFUSED_MS = 10_000;

/** A log under way. */
export interface Waiting {
  /** Bytes of it that are to go to R2. */
  readonly waitingBytes: number;
  /** Moves them there; settles when that was tried. */
  ship(): Promise<void>;
}

export class Backlog {
  readonly #logs: () => Iterable<Waiting>;
  #turn = Promise.resolve();
  #refusedAt = -Infinity;

  /** @param logs those under way */
  constructor(logs: () => Iterable<Waiting>) {
    this.#logs = logs;
  }

  /** Has output taken over as soon as there is room for it, or R2 does not make any. */
  take(output: () => void): Promise<void> {
    const turn = this.#take(this.#turn, output);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #take(before: Promise<void>, output: () => void): Promise<void> {
    await before;
    while (this.#isFull) await this.#ship();
    output();
  }

  get #isFull(): boolean {
    return this.#bytes >= WAITING_BYTES && Date.now() - this.#refusedAt >= REFUSED_MS;
  }

  get #bytes(): number {
    return Iterator.from(this.#logs()).reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
  }

  /** Ships the log of which most waits: the others' objects would be small. */
  async #ship(): Promise<void> {
    const before = this.#bytes;
    const [most] = [...this.#logs()].toSorted((a, b) => b.waitingBytes - a.waitingBytes);
    const shipped = most?.ship().catch(() => undefined);
    await within(SHIP_MS, shipped ?? Promise.resolve());
    if (this.#bytes >= before) this.#refusedAt = Date.now();
  }
}
