import { accessSync } from "node:fs";
import { messageOf, sandboxError, type SandboxError } from "./errors.ts";
import { Shell, ShellExited, type RunResult } from "./shell.ts";

export interface SessionOptions {
  id: string;
  env?: Record<string, string | undefined>;
  cwd?: string;
}

/**
 * The sessions: one persistent bash each, made on first use. Calls of one session wait for each other, those of
 * different sessions do not.
 */
export class Sessions {
  readonly workspace: string;
  readonly #scratch: string;
  readonly #sessions = new Map<string, Shell>();
  readonly #locks = new Map<string, Promise<void>>();
  #counter = 0;

  constructor(workspace: string, scratch: string) {
    this.workspace = workspace;
    this.#scratch = scratch;
  }

  /**
   * Runs a command in the session's shell.
   *
   * Errors: SESSION_TERMINATED when the shell did not survive it (the next call gets a new one),
   * COMMAND_EXECUTION_ERROR for a command that could not be handed over.
   */
  async execute(command: string, sessionID: string): Promise<RunResult> {
    return this.#exclusive(sessionID, async () => {
      const shell = await this.#shell(sessionID);
      try {
        return await shell.run(command);
      } catch (error) {
        if (error instanceof ShellExited) throw this.#terminated(sessionID, error);
        throw sandboxError(
          "COMMAND_EXECUTION_ERROR",
          `Failed to execute command '${command}' in session '${sessionID}': ${messageOf(error)}`,
          { command, stderr: messageOf(error) },
        );
      }
    });
  }

  /** The session's current directory; for a session without a shell yet, the one it would start in. */
  directoryOf(sessionID: string): string {
    return this.#sessions.get(sessionID)?.cwd ?? this.workspace;
  }

  /** Errors: SESSION_ALREADY_EXISTS, INTERNAL_ERROR when bash cannot be started. */
  async create(options: SessionOptions): Promise<void> {
    await this.#exclusive(options.id, async () => {
      const existing = this.#sessions.get(options.id);
      if (existing && !existing.gone) {
        throw sandboxError("SESSION_ALREADY_EXISTS", `Session '${options.id}' already exists`, {
          sessionId: options.id,
          containerPlacementId: null,
        });
      }
      existing?.dispose();
      this.#sessions.set(options.id, await this.#start(options));
    });
  }

  /** The session's shell, even one that is gone: the next command on it says so, once. */
  async #shell(sessionID: string): Promise<Shell> {
    const existing = this.#sessions.get(sessionID);
    if (existing) return existing;
    const shell = await this.#start({ id: sessionID });
    this.#sessions.set(sessionID, shell);
    return shell;
  }

  async #start({ id, cwd, env }: SessionOptions): Promise<Shell> {
    try {
      return await Shell.start({
        directory: `${this.#scratch}/session-${++this.#counter}`,
        cwd: firstDirectory(cwd ?? this.workspace, process.env.HOME ?? "/root", "/"),
        env: { ...process.env, ...env },
      });
    } catch (error) {
      throw sandboxError("INTERNAL_ERROR", `Failed to create session '${id}': ${messageOf(error)}`, {
        sessionId: id,
        originalError: messageOf(error),
      });
    }
  }

  #terminated(sessionID: string, { exitCode }: ShellExited): SandboxError {
    this.#sessions.get(sessionID)?.dispose();
    this.#sessions.delete(sessionID);
    return sandboxError(
      "SESSION_TERMINATED",
      `Session '${sessionID}' shell exited (exit code: ${exitCode ?? "unknown"})`,
      { sessionId: sessionID, exitCode },
    );
  }

  async #exclusive<T>(sessionID: string, task: () => Promise<T>): Promise<T> {
    const before = this.#locks.get(sessionID);
    const { promise: lock, resolve: release } = Promise.withResolvers<void>();
    this.#locks.set(sessionID, lock);
    try {
      await before;
      return await task();
    } finally {
      release();
      if (this.#locks.get(sessionID) === lock) this.#locks.delete(sessionID);
    }
  }
}

function firstDirectory(...candidates: string[]): string {
  return candidates.find(isReachable) ?? "/";
}

function isReachable(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}
