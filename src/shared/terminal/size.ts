/** The size of a terminal in a sandbox, which follows the terminal that shows it. */
import { pause } from "../within.ts";
import { spaceCalls } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

export const startSize = ({ rows, columns }: Size) => ({ LINES: String(rows), COLUMNS: String(columns) });

/** How often a size is passed on until it succeeds, and the pause in between, in milliseconds. */
const MAX_ATTEMPTS = 4;
const RETRY_MS = 500;

/** Passes size changes on to a terminal: one at a time, and the last one at the end. */
export class Resizing {
  readonly #size: () => Size;
  readonly #pass: (size: Size) => Promise<unknown>;
  #isUnderWay = false;
  #isStale = false;
  #isStopped = false;

  constructor(size: () => Size, pass: (size: Size) => Promise<unknown>) {
    this.#size = size;
    this.#pass = pass;
  }

  start(): void {
    this.#isStale = true;
    if (!this.#isUnderWay) void this.#passAll();
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #passAll(): Promise<void> {
    this.#isUnderWay = true;
    let failures = 0;
    while (this.#isStale && !this.#isStopped) {
      this.#isStale = false;
      const pass = spaceCalls(() => this.#pass(this.#size()));
      failures = await pass.then(
        () => 0,
        () => failures + 1,
      );
      // After the last attempt, the terminal keeps the previous size.
      if (failures === 0 || failures >= MAX_ATTEMPTS || this.#isStopped) continue;
      this.#isStale = true;
      await pause(RETRY_MS);
    }
    this.#isUnderWay = false;
  }
}
