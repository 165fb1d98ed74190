/** The size of a terminal in a sandbox, which is that of whatever shows it. */
import { spaced } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

/** Variables of a command in a terminal that give it this size from its start on. */
export const startSize = ({ rows, columns }: Size) => ({ LINES: String(rows), COLUMNS: String(columns) });

/** Passes the size of what shows a terminal on to it: one change at a time, and the last one at the end. */
export class Resizing {
  readonly #size: () => Size;
  readonly #pass: (size: Size) => Promise<unknown>;
  #isUnderWay = false;
  #isStale = false;

  /** @param pass gives the terminal a size */
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
      // Where it fails, the terminal goes on in the size before.
      await spaced(() => this.#pass(this.#size())).catch(() => undefined);
    }
    this.#isUnderWay = false;
  }
}
