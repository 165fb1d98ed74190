/** The size of a terminal in a sandbox, which whoever shows it sets by commands beside it. */
import { spaced } from "./typing.ts";

export interface Size {
  rows: number;
  columns: number;
}

/**
 * The command with a size for its terminal, and with a link to its device, by which the size is changed later. In a session of its own:
 * the next command of a session waits for its end.
 */
export const sized = (own: string, size: Size) =>
  `# a terminal: ${own.split("\n")[0]}
sbx_link=/tmp/.shell-\${SANDBOX_MCP_RUN##*.}; ln -sfn "$(tty)" "$sbx_link"; stty ${words(size)}
( ${own}
); sbx_shell=$?; rm -f "$sbx_link"; (exit "$sbx_shell")`;

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
      const command = `stty -F /tmp/.shell-${own} ${words(this.#size())}`;
      const call = { command, sandbox, session: "shell-size", timeout_seconds: 10 };
      // Where it fails, the terminal goes on in the size before.
      await spaced(() => this.#run(call)).catch(() => undefined);
    }
    this.#isUnderWay = false;
  }
}

/** As stty takes it. */
const words = ({ rows, columns }: Size) => `rows ${rows} cols ${columns}`;
