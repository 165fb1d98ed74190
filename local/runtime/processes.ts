import { spawn, type ChildProcess } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { makeDirectories } from "./directories.ts";
import { messageOf, sandboxError, type SandboxError } from "./errors.ts";
import { ProcessLog } from "./process-log.ts";
import { killAtOnce, protectRuntime, terminateTree } from "./process-tree.ts";
import { SESSIONLESS, type ExecuteOptions, type Sessions } from "./sessions.ts";
import { type RunResult } from "./shell.ts";
import { shellQuote, variables } from "./text.ts";

export type ProcessStatus = "running" | "completed" | "failed" | "killed" | "error";

/** Finished processes kept for `getProcess` and the logs, and the memory of their logs; the container keeps all. */
const FINISHED_KEPT = 500;
const FINISHED_LOG_BYTES = 64 * 1024 * 1024;

/** A process whose children still hold its output open is over this long after it exited. */
const DRAIN_MS = 1000;

/** What a process without a session reports after its timeout. */
const TIMEOUT_EXIT_CODE = 124;

export interface StartOptions extends ExecuteOptions {
  processID?: string;
}

/** One background process, running or finished. */
export class ProcessRecord {
  readonly id: string;
  readonly command: string;
  readonly sessionID: string;
  readonly startTime = new Date();
  readonly pid: number;
  readonly log: ProcessLog;
  /** Settles when the process has ended and its output is complete. */
  readonly finished: Promise<void>;
  status: ProcessStatus = "running";
  exitCode: number | undefined;
  /** The exit code that stands for the way it was killed, once it was. */
  killedWith: number | undefined;
  readonly #child: ChildProcess;

  constructor(id: string, command: string, sessionID: string, child: ChildProcess) {
    this.id = id;
    this.command = command;
    this.sessionID = sessionID;
    this.pid = child.pid ?? 0;
    this.#child = child;
    this.log = new ProcessLog({
      lines: sessionID !== SESSIONLESS,
      // Once it has exited, what is left fits into the pipes and must not wait.
      onPause: () => this.exited || this.#eachStream((stream) => stream.pause()),
      onResume: () => this.#eachStream((stream) => stream.resume()),
    });
    child.stdout?.on("data", (chunk: Buffer) => this.log.write("stdout", chunk));
    child.stderr?.on("data", (chunk: Buffer) => this.log.write("stderr", chunk));
    this.finished = this.#watch();
  }

  get running(): boolean {
    return this.status === "running";
  }

  /** Whether the process itself is over, even if its output is not complete yet. */
  get exited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async #watch(): Promise<void> {
    const child = this.#child;
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
    await new Promise<void>((resolve) => child.once("exit", () => resolve()));
    this.#eachStream((stream) => stream.resume());
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([closed, new Promise<void>((resolve) => (timer = setTimeout(resolve, DRAIN_MS)))]);
    clearTimeout(timer);
    const code = child.exitCode ?? 128 + (child.signalCode ? constants.signals[child.signalCode] : 0);
    this.exitCode = this.killedWith ?? code;
    this.status =
      this.exitCode === 0 ? "completed" : [137, 143].includes(this.exitCode) ? "killed" : "failed";
    this.log.end();
  }

  #eachStream(act: (stream: NodeJS.ReadableStream) => void): void {
    if (this.#child.stdout) act(this.#child.stdout);
    if (this.#child.stderr) act(this.#child.stderr);
  }
}

/**
 * Background processes. Each is a bash of its own, leader of its own process group, that first takes over the
 * session's variables, functions, options and directory; so it neither blocks the session nor depends on its shell.
 */
export class Processes {
  readonly #sessions: Sessions;
  readonly #scratch: string;
  readonly #records = new Map<string, ProcessRecord>();
  #counter = 0;

  constructor(sessions: Sessions, scratch: string) {
    this.#sessions = sessions;
    this.#scratch = scratch;
  }

  /**
   * Starts a command in the background. `timeoutMs` only counts without a session, as in the container. Errors:
   * INVALID_COMMAND, SESSION_TERMINATED, STREAM_START_ERROR when it cannot be started.
   */
  async start(command: string, sessionID: string, options: StartOptions = {}): Promise<ProcessRecord> {
    if (command.trim() === "") {
      throw sandboxError("INVALID_COMMAND", "Invalid command: empty command provided");
    }
    const id = options.processID ?? `proc_${Date.now()}_${Math.random().toString(36).slice(2, 8)}`;
    if (this.#records.get(id)?.running) {
      throw sandboxError("PROCESS_ERROR", `Process ${id} is already running`, { processId: id });
    }
    let record: ProcessRecord;
    try {
      const child = await this.#spawn(command, sessionID, options);
      record = new ProcessRecord(id, command, sessionID, child);
    } catch (error) {
      throw startError(error, command, sessionID);
    }
    this.#records.set(id, record);
    void record.finished.then(() => this.#forgetOldest());
    if (sessionID === SESSIONLESS && options.timeoutMs !== undefined) this.#limit(record, options.timeoutMs);
    return record;
  }

  /** Runs a command in a process of its own to its end; a timeout ends its tree and is exit code 124. */
  async runAlone(command: string, options: ExecuteOptions = {}): Promise<RunResult> {
    let record: ProcessRecord;
    try {
      record = new ProcessRecord("", command, SESSIONLESS, await this.#spawn(command, SESSIONLESS, options));
    } catch (error) {
      throw sandboxError(
        "COMMAND_EXECUTION_ERROR",
        `Failed to execute command '${command}' in sessionless execution: ${messageOf(error)}`,
        { command, stderr: messageOf(error) },
      );
    }
    if (options.timeoutMs !== undefined) this.#limit(record, options.timeoutMs);
    await record.finished;
    return {
      exitCode: record.exitCode ?? 1,
      stdout: record.log.text("stdout"),
      stderr: record.log.text("stderr"),
    };
  }

  list(): ProcessRecord[] {
    return [...this.#records.values()];
  }

  /** Waits for the output of a process that has just exited. Error: PROCESS_NOT_FOUND. */
  async get(id: string): Promise<ProcessRecord> {
    const record = this.#records.get(id);
    if (!record) throw sandboxError("PROCESS_NOT_FOUND", `Process ${id} not found`, { processId: id });
    if (record.exited) await record.finished;
    return record;
  }

  /**
   * Ends a process with its group and all it started: SIGTERM, then after five seconds SIGKILL. Errors:
   * PROCESS_NOT_FOUND, COMMAND_NOT_FOUND when it has ended already.
   */
  async kill(id: string): Promise<void> {
    const record = await this.get(id);
    if (!record.running) {
      throw sandboxError(
        "COMMAND_NOT_FOUND",
        `Command '${id}' not found or already completed in session '${record.sessionID}'`,
        { command: id },
      );
    }
    await this.#terminate(record);
  }

  /** Ends all running processes and says how many there were. */
  async killAll(): Promise<number> {
    const running = this.list().filter((record) => record.running);
    await Promise.all(running.map((record) => this.#terminate(record)));
    return running.length;
  }

  /** Ends at once what was started from a session, as the container does when it deletes the session. */
  async killSession(sessionID: string): Promise<void> {
    const running = this.list().filter((record) => record.running && record.sessionID === sessionID);
    for (const record of running) record.killedWith = 137;
    await Promise.all(running.map((record) => killAtOnce(record.pid)));
  }

  async #terminate(record: ProcessRecord): Promise<void> {
    record.killedWith ??= 143;
    record.killedWith = await terminateTree(record.pid);
    await record.finished;
  }

  #limit(record: ProcessRecord, milliseconds: number): void {
    const timer = setTimeout(() => {
      record.killedWith = TIMEOUT_EXIT_CODE;
      record.log.write("stderr", Buffer.from(`Command timed out after ${milliseconds}ms\n`));
      void terminateTree(record.pid);
    }, milliseconds);
    void record.finished.then(() => clearTimeout(timer));
  }

  async #spawn(command: string, sessionID: string, { cwd, env }: ExecuteOptions): Promise<ChildProcess> {
    const scoped = variables(env);
    if (sessionID === SESSIONLESS) {
      return spawned(["-c", command], {
        cwd: cwd ?? this.#sessions.workspace,
        env: { ...process.env, ...Object.fromEntries(scoped) },
      });
    }
    const state = await this.#sessions.snapshot(sessionID, cwd);
    const exports = scoped.map(([name, value]) => `builtin export ${name}=${shellQuote(value)}`);
    const enter =
      cwd === undefined
        ? ""
        : `builtin cd -- ${shellQuote(cwd)} 2>/dev/null || ` +
          `{ builtin echo ${shellQuote(`Failed to change directory to ${shellQuote(cwd)}`)} >&2; builtin exit 1; };`;

    const path = `${this.#scratch}/process-${++this.#counter}`;
    makeDirectories(this.#scratch, 0o700);
    writeFileSync(`${path}.state`, [state, ...exports].join("\n"), { mode: 0o600 });
    writeFileSync(`${path}.command`, enter + command, { mode: 0o600 });
    const remove = (): void => {
      for (const file of [`${path}.state`, `${path}.command`]) rmSync(file, { force: true });
    };
    // The command runs by `eval` of its text, so that messages of the shell name "bash" and not a file of ours.
    const start = `builtin . "$1.state" >/dev/null 2>&1; builtin eval "builtin set --;$(<"$1.command")"`;
    try {
      const child = await spawned(["--norc", "--noprofile", "-c", start, "bash", path], {
        cwd: "/",
        env: {},
      });
      child.once("exit", remove);
      return child;
    } catch (error) {
      remove();
      throw error;
    }
  }

  #forgetOldest(): void {
    const finished = this.list().filter((record) => !record.running);
    let bytes = finished.reduce((sum, record) => sum + record.log.bytes, 0);
    for (const [index, record] of finished.entries()) {
      if (finished.length - index <= FINISHED_KEPT && bytes <= FINISHED_LOG_BYTES) break;
      bytes -= record.log.bytes;
      this.#records.delete(record.id);
    }
  }
}

async function spawned(
  args: string[],
  options: { cwd: string; env: Record<string, string | undefined> },
): Promise<ChildProcess> {
  const child = spawn("/bin/bash", args, {
    ...options,
    argv0: "bash",
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", reject);
  });
  child.on("error", () => {});
  protectRuntime(child.pid);
  return child;
}

function startError(error: unknown, command: string, sessionID: string): SandboxError | Error {
  if (error instanceof Error && "details" in error) return error;
  return sandboxError(
    "STREAM_START_ERROR",
    `Failed to execute streaming command '${command}' in session '${sessionID}': ${messageOf(error)}`,
    { command, stderr: messageOf(error) },
  );
}
