/** Commands that may outlast their call: later calls read their output and type into them. */
import { SandboxError } from "../errors.ts";
import { NO_INPUT } from "../texts.ts";
import type { CommandOptions, Sandbox } from "../sandbox.ts";
import type { Sessions } from "./shell-sessions.ts";

/** The most characters of each stream that are kept for the next call. */
const MAX_UNREAD = 1024 ** 2;

/** The longest time that a timer accepts, in milliseconds. */
const MAX_YIELD_MS = 2 ** 31 - 1;

/** The exit status after Ctrl-C, as in shells. */
const INTERRUPTED = 130;

export class Process {
  readonly #sandbox: Sandbox;
  readonly #isTerminal: boolean;
  readonly #killed = new AbortController();
  readonly #run = Promise.withResolvers<string>();
  readonly #ended: Promise<number>;
  #unread = { all: "", stdout: "", stderr: "" };
  #dropped = 0;

  constructor(sandbox: Sandbox, sessions: Sessions, command: string, options: CommandOptions) {
    this.#sandbox = sandbox;
    this.#isTerminal = options.interactive ?? false;
    this.#ended = this.#follow(sessions, command, options);
    // `wait` reports the error. This prevents an unhandled rejection.
    this.#ended.catch(() => undefined);
  }

  async #follow(sessions: Sessions, command: string, options: CommandOptions): Promise<number> {
    try {
      const { exitCode } = await sessions.run(command, {
        ...options,
        signal: this.#killed.signal,
        maxOutput: 0,
        onStart: this.#run.resolve,
        onOutput: ({ stream, text }) => {
          this.#dropped += Math.max(0, this.#unread.all.length + text.length - MAX_UNREAD);
          for (const kept of ["all", stream] as const)
            this.#unread[kept] = (this.#unread[kept] + text).slice(-MAX_UNREAD);
        },
      });
      return exitCode;
    } catch (error) {
      if (this.#killed.signal.aborted) return INTERRUPTED;
      throw error;
    }
  }

  /** Waits for the process to end. @returns its exit status, or undefined if it still runs */
  async wait(milliseconds: number): Promise<number | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timedOut = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), Math.min(milliseconds, MAX_YIELD_MS));
    });
    return Promise.race([this.#ended, timedOut]).finally(() => clearTimeout(timer));
  }

  /** Output since the last call. */
  take(): { all: string; stdout: string; stderr: string } {
    const { all, ...streams } = this.#unread;
    // The SDK recognizes these words when it shortens output.
    const notice = this.#dropped && `[...${this.#dropped} characters truncated from process output...]\n`;
    this.#unread = { all: "", stdout: "", stderr: "" };
    this.#dropped = 0;
    return { all: `${notice || ""}${all}`, ...streams };
  }

  /** Types into the process's terminal, unless the process has ended. Without a terminal, only Ctrl-C is accepted. */
  async type(text: string): Promise<void> {
    if (this.#isTerminal) {
      const id = await Promise.race([this.#ended, this.#run.promise]);
      if (typeof id === "string") await this.#sandbox.type(id, text);
    } else if (text === "\u0003") await this.kill();
    else throw new SandboxError("invalid_argument", ...NO_INPUT);
  }

  async kill(): Promise<void> {
    this.#killed.abort();
    await this.#ended.catch(() => undefined);
  }
}
