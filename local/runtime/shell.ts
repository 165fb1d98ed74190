import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readlinkSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { makeDirectories } from "./directories.ts";
import { errnoOf } from "./errors.ts";
import { OutputFile } from "./output-file.ts";
import { protectRuntime } from "./process-tree.ts";
import { commandText, shellQuote } from "./text.ts";

/**
 * bash reads its script byte by byte from a pipe, about half a microsecond each: a longer command goes in by a file,
 * which bash reads whole.
 */
const INLINE_COMMAND_BYTES = 256;

/** The pause between two looks at the size of a command's output, milliseconds. */
const TRIM_INTERVAL_MS = 100;

export interface ShellOptions {
  /** Directory for this shell's files; made here, and again whenever a command has removed it. */
  directory: string;
  cwd: string;
  env: Record<string, string | undefined>;
}

export interface RunResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** The shell has ended, and with it the command that was waited for. */
export class ShellExited extends Error {
  readonly exitCode: number | null;

  constructor(exitCode: number | null) {
    super(`The shell exited (exit code: ${exitCode ?? "unknown"})`);
    this.exitCode = exitCode;
  }
}

/**
 * One bash process that keeps its state (directory, variables, functions) from command to command.
 *
 * The protocol: commands go in on bash's stdin, each with its own redirections, and after each the shell writes one
 * line with its status to its stdout, which no command ever sees because all of them are redirected. Nothing is
 * polled. The status line is a line of its own in the script, so that it also runs after an error that makes bash
 * drop the rest of a line. It starts with a random token, so that a DEBUG trap that prints cannot forge it.
 *
 * The caller waits for the end of a command before it runs the next one.
 */
export class Shell {
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #token = randomBytes(6).toString("hex");
  #settle: ((outcome: number | ShellExited) => void) | undefined;
  #counter = 0;
  #gone: ShellExited | undefined;

  private constructor(child: ChildProcess, directory: string) {
    this.#child = child;
    this.#directory = directory;
    this.#readStatus();
    child.once("exit", (code, signal) => {
      const gone = new ShellExited(code ?? (signal ? 128 + constants.signals[signal] : null));
      this.#gone = gone;
      // A status written just before the exit may still be in the pipe; a forked child can keep the pipe open.
      const settle = (): void => this.#settle?.(gone);
      if (child.stdout?.closed) settle();
      child.stdout?.once("close", settle);
      setTimeout(settle, 50);
    });
  }

  /** Starts bash; rejects with the system's error when there is no process, memory or file left for it. */
  static async start(options: ShellOptions): Promise<Shell> {
    makeDirectories(options.directory, 0o700);
    const child = spawn("/bin/bash", ["--norc"], {
      argv0: "bash",
      cwd: options.cwd,
      env: { ...options.env, LANG: "C.UTF-8", LC_ALL: "C.UTF-8" },
      // Its own process group: `kill 0` in a command must not reach the runtime.
      detached: true,
      stdio: ["pipe", "pipe", "ignore"],
    });
    child.stdin?.on("error", () => {});
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    child.on("error", () => {});
    // The container's shells trap these signals: they end by SIGKILL, and what a shell waits for is interrupted.
    child.stdin?.write("trap : HUP INT TERM\n");
    protectRuntime(child.pid);
    return new Shell(child, options.directory);
  }

  /** Why the shell is gone, or undefined while it lives. */
  get gone(): ShellExited | undefined {
    return this.#gone;
  }

  /** The directory the shell is in at this moment, without asking the shell. */
  get cwd(): string | undefined {
    try {
      return readlinkSync(`/proc/${this.#child.pid}/cwd`);
    } catch {
      return undefined;
    }
  }

  /**
   * Runs one command in the shell and returns its output. Throws ShellExited when the shell does not survive it, or
   * the system's error when the command's files cannot be made.
   */
  async run(command: string): Promise<RunResult> {
    if (this.#gone) throw this.#gone;
    const stdout = this.#open("out");
    let stderr: OutputFile | undefined;
    let trimmer: NodeJS.Timeout | undefined;
    try {
      stderr = this.#open("err");
      const script = this.#script(command, stdout.path, stderr.path);
      const outcome = await new Promise<number | ShellExited>((resolve) => {
        this.#settle = resolve;
        this.#child.stdin?.write(script);
        trimmer = setInterval(() => {
          stdout.trim();
          stderr?.trim();
        }, TRIM_INTERVAL_MS);
      });
      if (outcome instanceof ShellExited) throw outcome;
      return {
        exitCode: outcome,
        stdout: commandText(await stdout.read()),
        stderr: commandText(await stderr.read()),
      };
    } finally {
      this.#settle = undefined;
      clearInterval(trimmer);
      stdout.close();
      stderr?.close();
    }
  }

  /** Removes the files of a shell that is gone; what it left in the background goes on, as in the container. */
  dispose(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #open(name: string): OutputFile {
    const path = `${this.#directory}/${name}${++this.#counter}`;
    try {
      return new OutputFile(path);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      makeDirectories(this.#directory, 0o700);
      return new OutputFile(path);
    }
  }

  #script(command: string, stdout: string, stderr: string): string {
    const streams = `</dev/null >|${shellQuote(stdout)} 2>|${shellQuote(stderr)}`;
    return `builtin eval ${this.#argument(command)} ${streams}\nbuiltin echo ${this.#token} $?\n`;
  }

  #argument(command: string): string {
    if (command.length > INLINE_COMMAND_BYTES) {
      const path = `${this.#directory}/command`;
      try {
        writeFileSync(path, command, { mode: 0o600 });
        return `"$(<${shellQuote(path)})"`;
      } catch {
        // A full disk must not keep the command from running that would free it.
      }
    }
    return shellQuote(command);
  }

  #readStatus(): void {
    let rest = "";
    this.#child.stdout?.setEncoding("latin1").on("data", (chunk: string) => {
      const lines = (rest + chunk).split("\n");
      rest = (lines.pop() ?? "").slice(-1024);
      for (const line of lines) {
        const at = line.indexOf(`${this.#token} `);
        if (at >= 0) this.#settle?.(Number.parseInt(line.slice(at + this.#token.length + 1), 10));
      }
    });
  }
}
