/**
 * The client library, `sandbox-mcp/client`, for programs that use sandboxes without a model in between. It runs in Node,
 * Workers, Bun and browsers.
 *
 *     const sandbox = connect({ url, token }).sandbox("plots");
 *     const { images } = await sandbox.runCode("import matplotlib.pyplot as plt; plt.plot([1, 4, 9])");
 */
import { type Camel, toCamelCase } from "./camel.ts";
import { type ConnectOptions, Connection } from "./connection.ts";
import {
  type CodeRun,
  type CommandRun,
  type FollowOptions,
  type TaskRun,
  codeRun,
  commandRun,
  follow,
  taskRun,
} from "./follow.ts";
import { Sandbox, type TaskOptions, startRun } from "./sandbox.ts";
import type { ToolOutputs } from "./tool-types.ts";

export type { ConnectOptions } from "./connection.ts";
export {
  AccessError,
  CallError,
  ConnectionError,
  InputError,
  SandboxError,
  UnavailableError,
} from "./errors.ts";
export type { Edit, FileContent, FileEntry, Files, Written } from "./sandbox-files.ts";
export type { CodeRun, CommandRun, FollowOptions, Image, Run, RunState, TaskRun } from "./follow.ts";
export type { CodeOptions, CommandOptions, Sandbox, TaskOptions } from "./sandbox.ts";

/** A server, accessed with one token. */
export class SandboxServer {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** A sandbox by name. The server creates it on first use. */
  sandbox(name = "default"): Sandbox {
    return new Sandbox(this.#connection, name);
  }

  /** The sandboxes and checkpoints that belong to the token, with quotas and use. */
  async list(): Promise<Camel<ToolOutputs["list_sandboxes"]>> {
    return toCamelCase((await this.#connection.call("list_sandboxes", {})).data);
  }

  /** Gives a task to a coding agent in a new sandbox, which ends with the task. Waits until the task ends. */
  async task(task: string, options: TaskOptions = {}): Promise<TaskRun> {
    return taskRun(await startRun(this.#connection, "execute_task", { task }, options));
  }

  /** Waits for an earlier run, which another program may have started, and returns its result. */
  async result(id: string, options: FollowOptions = {}): Promise<CodeRun | CommandRun | TaskRun> {
    const first = await this.#connection.call("get_result", { id, wait_seconds: 0 });
    const ended = await follow(this.#connection, first, options);
    return "directory" in ended.data ? taskRun(ended) : { ...commandRun(ended), ...codeRun(ended) };
  }

  /** Stops a run with every process that it started. */
  async cancel(id: string): Promise<void> {
    await this.#connection.call("cancel_run", { id });
  }

  /** Ends the connection. Runs continue. */
  close(): Promise<void> {
    return this.#connection.close();
  }
}

/** Creates a client of a server. It sends nothing before the first call. */
export function connect(options: ConnectOptions): SandboxServer {
  return new SandboxServer(new Connection(options));
}
