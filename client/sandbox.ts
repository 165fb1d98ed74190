/** One sandbox: code, commands, files, ports, checkpoints. */
import { type Camel, toCamelCase, toSnakeCase } from "./camel.ts";
import type { Connection } from "./connection.ts";
import { SandboxError } from "./errors.ts";
import { NO_PORT_URL } from "./texts.ts";
import { Files } from "./sandbox-files.ts";
import {
  type CodeRun,
  type CommandRun,
  FIRST_WAIT_SECONDS,
  type FollowOptions,
  type TaskRun,
  codeRun,
  commandRun,
  follow,
  taskRun,
} from "./follow.ts";
import type { ToolInputs, ToolName, ToolOutputs } from "./tool-types.ts";

/** A tool's input without the fields that the library sets. */
type Options<Name extends ToolName, Given extends string> = Omit<
  Camel<ToolInputs[Name]>,
  Given | "sandbox" | "waitSeconds"
>;

export type CommandOptions = Options<"run_command", "command"> & FollowOptions;
export type CodeOptions = Options<"run_code", "code"> & FollowOptions;
export type TaskOptions = Options<"execute_task", "task"> & FollowOptions;

export class Sandbox {
  readonly name: string;
  readonly files: Files;
  readonly #connection: Connection;

  /** @param name of the sandbox, created by the server on first use */
  constructor(connection: Connection, name: string) {
    this.#connection = connection;
    this.name = name;
    this.files = new Files(connection, name);
  }

  /**
   * Runs code in a live kernel and waits for its end. Variables stay for later calls with the same language and context. An
   * exception is a result with `error`.
   */
  async runCode(code: string, options: CodeOptions = {}): Promise<CodeRun> {
    return codeRun(await this.#run("run_code", { code }, options));
  }

  /** Runs a command with bash and waits for its end. A failing program is a result with its `exitCode`. */
  async runCommand(command: string, options: CommandOptions = {}): Promise<CommandRun> {
    return commandRun(await this.#run("run_command", { command }, options));
  }

  /**
   * Types into an `interactive` command.
   * @param id the id of the command's run, from `onStart`
   */
  async type(id: string, text: string): Promise<void> {
    await this.#call("send_input", { id, text });
  }

  /** Commands that share a directory, exported variables and functions. Sessions run concurrently. */
  session(name: string): { runCommand(command: string, options?: CommandOptions): Promise<CommandRun> } {
    return { runCommand: (command, options) => this.runCommand(command, { ...options, session: name }) };
  }

  /** Gives a task to a coding agent that works on this sandbox's files. Waits until the task ends. */
  async task(task: string, options: TaskOptions = {}): Promise<TaskRun> {
    return taskRun(await this.#run("execute_task", { task }, options));
  }

  /** Gives a web server in the sandbox a URL. */
  async expose(
    port: number,
    { expiresSeconds }: { expiresSeconds?: number } = {},
  ): Promise<Camel<ToolOutputs["expose_port"]> & { url: string }> {
    const input = { port, expires_seconds: expiresSeconds, sandbox: this.name };
    const { url, ...rest } = await this.#call("expose_port", input);
    if (url === undefined) throw new SandboxError("not_configured", NO_PORT_URL);
    return { ...rest, url };
  }

  /** Makes a port's URL invalid. */
  async unexpose(port: number): Promise<void> {
    await this.#call("expose_port", { port, expose: false, sandbox: this.name });
  }

  /** Saves the state of the files. */
  checkpoint(label?: string): Promise<Camel<ToolOutputs["checkpoint_sandbox"]>> {
    return this.#call("checkpoint_sandbox", { sandbox: this.name, label });
  }

  /** Restores the files of a checkpoint. Only a new sandbox accepts another sandbox's checkpoint. */
  restore(checkpoint: string): Promise<Camel<ToolOutputs["restore_sandbox"]>> {
    return this.#call("restore_sandbox", { sandbox: this.name, checkpoint });
  }

  /** Changes the given settings, and returns all of them. */
  configure(
    options: Options<"configure_sandbox", never> = {},
  ): Promise<Camel<ToolOutputs["configure_sandbox"]>> {
    return this.#call(
      "configure_sandbox",
      toSnakeCase<ToolInputs["configure_sandbox"]>({ ...options, sandbox: this.name }),
    );
  }

  /** The latest runs, newest first. */
  async runs(limit?: number): Promise<Camel<ToolOutputs["list_runs"]>["runs"]> {
    return (await this.#call("list_runs", { sandbox: this.name, limit })).runs;
  }

  /** Ends the sandbox and deletes its files; with `checkpoints`, its checkpoints too. */
  async destroy({ checkpoints }: { checkpoints?: boolean } = {}): Promise<void> {
    await this.#call("destroy_sandbox", { sandbox: this.name, checkpoints });
  }

  /** Deletes one checkpoint of this sandbox. */
  async deleteCheckpoint(checkpoint: string): Promise<void> {
    await this.#call("destroy_sandbox", { sandbox: this.name, checkpoint });
  }

  async #call<Name extends ToolName>(name: Name, input: ToolInputs[Name]): Promise<Camel<ToolOutputs[Name]>> {
    return toCamelCase((await this.#connection.call(name, input)).data);
  }

  #run<Name extends "run_code" | "run_command" | "execute_task">(name: Name, input: object, options: object) {
    return startRun(this.#connection, name, { ...input, sandbox: this.name }, options);
  }
}

export async function startRun(
  connection: Connection,
  name: "run_code" | "run_command" | "execute_task",
  input: object,
  { onStart, onOutput, signal, maxOutput, ...options }: FollowOptions,
) {
  signal?.throwIfAborted();
  // The signal does not end this short call, because without the run's id the run could not be cancelled.
  const first = await connection.call(name, {
    ...toSnakeCase<ToolInputs[typeof name]>(options as never),
    ...input,
    wait_seconds: FIRST_WAIT_SECONDS,
  } as ToolInputs[typeof name]);
  return follow(connection, first, { onStart, onOutput, signal, maxOutput });
}
