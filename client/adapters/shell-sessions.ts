/** Shell sessions for callers that do not name one. No command waits for another, or changes another's shell. */
import type { CommandOptions, Sandbox } from "../sandbox.ts";
import type { CommandRun } from "../follow.ts";
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

  /**
   * Runs a command, in /workspace by default, in a session that no running command uses. Sessions are reused, because a used
   * session has a shell ready. The command runs in a subshell, so that its variables, functions and umask end with it.
   */
  async run(command: string, options: CommandOptions = {}): Promise<CommandRun & { exitCode: number }> {
    let number = 1;
    while (this.#busy.has(number)) number++;
    this.#busy.add(number);
    try {
      const run = await this.#sandbox.runCommand(`(eval ${quote(command)})`, {
        timeoutSeconds: MAX_RUN_SECONDS,
        ...options,
        cwd: options.cwd ?? "/workspace",
        session: `${this.#prefix}-${number}`,
      });
      return { ...run, exitCode: run.state === "timed_out" ? TIMED_OUT : (run.exitCode ?? 1) };
    } finally {
      this.#busy.delete(number);
    }
  }
}

/** A name that no other sandbox has. */
export function newName(prefix: string): string {
  return `${prefix}-${crypto.randomUUID()}`;
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
