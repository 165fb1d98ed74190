/** The size of a terminal in a sandbox, which follows the terminal that shows it. */
import { pause } from "../timers.ts";
import { spaceCalls } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

export const startSize = ({ rows, columns }: Size) => ({ LINES: String(rows), COLUMNS: String(columns) });

/** How many calls try to pass a size on, and the pause after a failed call, in milliseconds. */
const MAX_ATTEMPTS = 4;
const RETRY_MS = 500;

/** Passes size changes on to a terminal, one at a time. In the end, the terminal has the latest size. */
export class Resizing {
  readonly #size: () => Size;
  readonly #pass: (size: Size) => Promise<unknown>;
  #isUnderWay = false;
  #attemptsLeft = 0;
  #isStopped = false;

  constructor(size: () => Size, pass: (size: Size) => Promise<unknown>) {
    this.#size = size;
    this.#pass = pass;
  }

  start(): void {
    this.#attemptsLeft = MAX_ATTEMPTS;
    if (!this.#isUnderWay) void this.#passAll();
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #passAll(): Promise<void> {
    this.#isUnderWay = true;
    while (this.#attemptsLeft > 0 && !this.#isStopped) {
      const remaining = this.#attemptsLeft - 1;
      this.#attemptsLeft = 0;
      try {
        await spaceCalls(() => this.#pass(this.#size()));
      } catch {
        // If the size has changed meanwhile, the new size gets all attempts.
        this.#attemptsLeft = Math.max(this.#attemptsLeft, remaining);
        await pause(RETRY_MS);
      }
    }
    this.#isUnderWay = false;
  }
}
