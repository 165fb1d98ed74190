/** The size of a terminal in a sandbox, which whoever shows it sets by commands beside it. */
import { spaced } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

/** A command to be run in a terminal of this size. Its title is the command's own first line. */
export const sized = (own: string, size: Size) => `# a terminal: ${own.split("\n")[0]}
stty ${words(size)}
${own}`;

/**
 * Gives the terminal of a run another size: whatever of the run has a terminal as its input tells which one that is.
 * @param own the run's id within its sandbox
 */
const resized = (own: string, size: Size) => `# the size of a terminal
for sbx_own in $(grep -lzxF SANDBOX_MCP_RUN=${own} /proc/[0-9]*/environ 2>/dev/null); do
  sbx_tty=$(readlink "\${sbx_own%environ}fd/0")
  case $sbx_tty in /dev/pts/*) stty -F "$sbx_tty" ${words(size)}; break ;; esac
done`;

/** Passes the size of what shows a terminal on to it: one change at a time, and the last one at the end. */
export class Resizing {
  readonly #id: string;
  readonly #size: () => Size;
  readonly #run: (args: Record<string, unknown>) => Promise<unknown>;
  #isUnderWay = false;
  #isStale = false;

  /** @param run calls `run_command` with these arguments */
  constructor(id: string, size: () => Size, run: (args: Record<string, unknown>) => Promise<unknown>) {
    this.#id = id;
    this.#size = size;
    this.#run = run;
  }

  start(): void {
    this.#isStale = true;
    if (!this.#isUnderWay) void this.#pass();
  }

  async #pass(): Promise<void> {
    const [sandbox, own = ""] = this.#id.split(".");
    this.#isUnderWay = true;
    while (this.#isStale) {
      this.#isStale = false;
      const command = resized(own, this.#size());
      const call = { command, sandbox, session: "shell-size", timeout_seconds: 10 };
      // Where it fails, the terminal goes on in the size before.
      await spaced(() => this.#run(call)).catch(() => undefined);
    }
    this.#isUnderWay = false;
  }
}

/** As stty takes it. */
const words = ({ rows, columns }: Size) => `rows ${rows} cols ${columns}`;
