import { RpcTarget } from "capnweb";
import { validationError } from "./errors.ts";
import type { Files } from "./files.ts";
import type { InterpreterAPI } from "./interpreter.ts";
import type { SessionOptions, Sessions } from "./sessions.ts";
import { now } from "./text.ts";

/** The version of the SDK whose container this runtime stands in for; the SDK warns about any other. */
const SANDBOX_VERSION = "0.12.10";

/** What the control API is made of. */
export interface Services {
  sessions: Sessions;
  files: Files;
  interpreter: InterpreterAPI;
}

/**
 * The control API on `/rpc`: one target per domain, as the SDK's client addresses them. Domains and methods of the
 * container's that nothing here calls are left out.
 */
export class SandboxAPI extends RpcTarget {
  readonly #commands: CommandsAPI;
  readonly #files: FilesAPI;
  readonly #utils: UtilsAPI;
  readonly #interpreter: InterpreterAPI;

  constructor({ sessions, files, interpreter }: Services) {
    super();
    this.#commands = new CommandsAPI(sessions);
    this.#files = new FilesAPI(files);
    this.#utils = new UtilsAPI(sessions);
    this.#interpreter = interpreter;
  }

  get commands() {
    return this.#commands;
  }
  get files() {
    return this.#files;
  }
  get utils() {
    return this.#utils;
  }
  get interpreter() {
    return this.#interpreter;
  }
}

class CommandsAPI extends RpcTarget {
  readonly #sessions: Sessions;

  constructor(sessions: Sessions) {
    super();
    this.#sessions = sessions;
  }

  /** Runs a command in the session's shell to its end. Errors: SESSION_TERMINATED, COMMAND_EXECUTION_ERROR. */
  async execute(command: string, sessionId: string, options?: object) {
    refuseOptions("execute", options);
    const { exitCode, stdout, stderr } = await this.#sessions.execute(command, sessionId);
    return { success: exitCode === 0, exitCode, stdout, stderr, command, timestamp: now() };
  }
}

class FilesAPI extends RpcTarget {
  readonly #files: Files;

  constructor(files: Files) {
    super();
    this.#files = files;
  }

  async readFile(path: string, sessionId: string, options?: object) {
    refuseOptions("readFile", options);
    const file = await this.#files.read(path, sessionId);
    return { success: true, path, ...file, timestamp: now() };
  }

  async writeFile(path: string, content: string, sessionId: string, options: { encoding?: string } = {}) {
    await this.#files.write(path, content, sessionId, options.encoding);
    // The size of what was sent, even when that was base64: so the container counts.
    return { success: true, path, bytesWritten: Buffer.byteLength(content), timestamp: now() };
  }

  async deleteFile(path: string, sessionId: string) {
    await this.#files.delete(path, sessionId);
    return { success: true, path, timestamp: now() };
  }

  exists(path: string, sessionId: string) {
    const exists = this.#files.exists(path, sessionId);
    return { success: true, exists, path, timestamp: now() };
  }
}

class UtilsAPI extends RpcTarget {
  readonly #sessions: Sessions;

  constructor(sessions: Sessions) {
    super();
    this.#sessions = sessions;
  }

  ping(): string {
    return "healthy";
  }

  getVersion(): string {
    return process.env.SANDBOX_VERSION || SANDBOX_VERSION;
  }

  /** Errors: SESSION_ALREADY_EXISTS, INTERNAL_ERROR. */
  async createSession(options: SessionOptions) {
    await this.#sessions.create(options);
    return {
      success: true,
      id: options.id,
      message: `Session ${options.id} created`,
      timestamp: now(),
      containerPlacementId: null,
    };
  }
}

/** Refuses what only the container's method does, rather than do something else. Error: VALIDATION_FAILED. */
function refuseOptions(method: string, options: object = {}): void {
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined)
      throw validationError(name, `The local runtime's ${method} has no option '${name}'`, "Unknown option");
  }
}
