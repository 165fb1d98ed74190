/** Shell sessions for callers that know none: what they run at the same time does not wait for each other. */
import type { CommandOptions, Sandbox } from "../sandbox.ts";
import type { CommandRun } from "../runs.ts";
import { MAX_RUN_SECONDS } from "../tool-types.ts";

/** coreutils' timeout(1) ends with this status. */
const TIMED_OUT = 124;

export class Sessions {
  readonly #sandbox: Sandbox;
  readonly #prefix: string;
  readonly #busy = new Set<number>();

  /** @param prefix of the names of the sessions. A random part follows, as other programs may use the sandbox too. */
  constructor(sandbox: Sandbox, prefix: string) {
    this.#sandbox = sandbox;
    this.#prefix = `${prefix}-${crypto.randomUUID().slice(0, 8)}`;
  }

  /** Runs a command in /workspace unless it says otherwise, in a session that runs nothing else. */
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

/** One word for a shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
