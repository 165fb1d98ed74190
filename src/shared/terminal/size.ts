/** The size of a terminal in a sandbox, which follows the terminal that shows it. */
import { spaceCalls } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

export const startSize = ({ rows, columns }: Size) => ({ LINES: String(rows), COLUMNS: String(columns) });

/** Passes size changes on to a terminal: one at a time, and the last one at the end. */
export class Resizing {
  readonly #size: () => Size;
  readonly #pass: (size: Size) => Promise<unknown>;
  #isUnderWay = false;
  #isStale = false;

  constructor(size: () => Size, pass: (size: Size) => Promise<unknown>) {
    this.#size = size;
    this.#pass = pass;
  }

  start(): void {
    this.#isStale = true;
    if (!this.#isUnderWay) void this.#passAll();
  }

  async #passAll(): Promise<void> {
    this.#isUnderWay = true;
    while (this.#isStale) {
      this.#isStale = false;
      // If this fails, the terminal keeps the previous size.
      await spaceCalls(() => this.#pass(this.#size())).catch(() => undefined);
    }
    this.#isUnderWay = false;
  }
}
