/** Shell sessions for callers without sessions of their own: concurrent commands do not wait for each other. */
import type { CommandOptions, Sandbox } from "../sandbox.ts";
import type { CommandRun } from "../runs.ts";
import { MAX_RUN_SECONDS } from "../tool-types.ts";

/** The exit status of coreutils' timeout(1). */
const TIMED_OUT = 124;

export class Sessions {
  readonly #sandbox: Sandbox;
  readonly #prefix: string;
  readonly #busy = new Set<number>();

  /** @param prefix of the session names, followed by a random part, because other programs may use the sandbox */
  constructor(sandbox: Sandbox, prefix: string) {
    this.#sandbox = sandbox;
    this.#prefix = `${prefix}-${crypto.randomUUID().slice(0, 8)}`;
  }

  /** Runs a command in a session of its own, in /workspace by default. */
  async run(command: string, options: CommandOptions = {}): Promise<CommandRun & { exitCode: number }> {
    let number = 1;
    while (this.#busy.has(number)) number++;
    this.#busy.add(number);
    try {
      const run = await this.#sandbox.runCommand(command, {
        cwd: "/workspace",
        timeoutSeconds: MAX_RUN_SECONDS,
        ...options,
        session: `${this.#prefix}-${number}`,
      });
      return { ...run, exitCode: run.exitCode ?? (run.state === "timed_out" ? TIMED_OUT : 1) };
    } finally {
      this.#busy.delete(number);
    }
  }
}

/** A name that no other sandbox has. */
export function newName(prefix: string): string {
  return `${prefix}-${crypto.randomUUID()}`;
}

export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
