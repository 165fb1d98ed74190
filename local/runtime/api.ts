import { RpcTarget } from "capnweb";
import { type BackupAPI } from "./backup.ts";
import { sandboxError } from "./errors.ts";
import { type Files } from "./files.ts";
import { type ListOptions } from "./file-listing.ts";
import { checkout, type CheckoutOptions } from "./git.ts";
import { type InterpreterAPI } from "./interpreter.ts";
import { watchPort, type WatchPortRequest } from "./ports.ts";
import { ProcessesAPI, CommandsAPI } from "./process-api.ts";
import { type Processes } from "./processes.ts";
import { SESSIONLESS, sessionOrDefault, type SessionOptions, type Sessions } from "./sessions.ts";
import { eventStream } from "./sse.ts";
import { now } from "./text.ts";
import { type WatchAPI } from "./watch.ts";

/** The version of the SDK whose container this runtime stands in for; the SDK warns about any other. */
const SANDBOX_VERSION = "0.12.10";

export interface Services {
  sessions: Sessions;
  processes: Processes;
  files: Files;
  interpreter: InterpreterAPI;
  watch: WatchAPI;
  backup: BackupAPI;
}

/** The control API on `/rpc`: one target per domain, as the SDK's client addresses them. */
export class SandboxAPI extends RpcTarget {
  readonly #services: Services;
  readonly #commands: CommandsAPI;
  readonly #files: FilesAPI;
  readonly #processes: ProcessesAPI;
  readonly #ports: PortsAPI;
  readonly #git: GitAPI;
  readonly #utils: UtilsAPI;
  readonly #tunnels = new TunnelsAPI();

  constructor(services: Services) {
    super();
    this.#services = services;
    this.#commands = new CommandsAPI(services.sessions, services.processes);
    this.#files = new FilesAPI(services.files);
    this.#processes = new ProcessesAPI(services.processes);
    this.#ports = new PortsAPI(services.processes);
    this.#git = new GitAPI(services.sessions, services.processes);
    this.#utils = new UtilsAPI(services.sessions, services.processes);
  }

  get commands(): CommandsAPI {
    return this.#commands;
  }
  get files(): FilesAPI {
    return this.#files;
  }
  get processes(): ProcessesAPI {
    return this.#processes;
  }
  get ports(): PortsAPI {
    return this.#ports;
  }
  get git(): GitAPI {
    return this.#git;
  }
  get interpreter(): InterpreterAPI {
    return this.#services.interpreter;
  }
  get utils(): UtilsAPI {
    return this.#utils;
  }
  get backup(): BackupAPI {
    return this.#services.backup;
  }
  get watch(): WatchAPI {
    return this.#services.watch;
  }
  get tunnels(): TunnelsAPI {
    return this.#tunnels;
  }
}

class FilesAPI extends RpcTarget {
  readonly #files: Files;

  constructor(files: Files) {
    super();
    this.#files = files;
  }

  async readFile(path: string, sessionId?: string, options: { encoding?: string } = {}) {
    const session = sessionOrDefault(sessionId);
    const file =
      options.encoding === "none"
        ? await this.#files.readBytes(path, session)
        : await this.#files.read(path, session, options.encoding);
    return { success: true, path, ...file, timestamp: now() };
  }

  readFileStream(path: string, sessionId?: string): ReadableStream<Uint8Array> {
    return eventStream(this.#files.readEvents(path, sessionOrDefault(sessionId)));
  }

  async writeFile(path: string, content: string, sessionId?: string, options: { encoding?: string } = {}) {
    await this.#files.write(path, content, sessionOrDefault(sessionId), options.encoding);
    // The size of what was sent, even when that was base64: so the container counts.
    return { success: true, path, bytesWritten: Buffer.byteLength(content), timestamp: now() };
  }

  async writeFileStream(path: string, content: ReadableStream<Uint8Array>, sessionId?: string) {
    const bytesWritten = await this.#files.writeStream(path, content, sessionOrDefault(sessionId));
    return { success: true, path, bytesWritten, timestamp: now() };
  }

  async deleteFile(path: string, sessionId?: string) {
    await this.#files.delete(path, sessionOrDefault(sessionId));
    return { success: true, path, timestamp: now() };
  }

  async renameFile(oldPath: string, newPath: string, sessionId?: string) {
    await this.#files.move(oldPath, newPath, sessionOrDefault(sessionId), "file.rename");
    return { success: true, path: oldPath, oldPath, newPath, timestamp: now() };
  }

  async moveFile(sourcePath: string, destinationPath: string, sessionId?: string) {
    await this.#files.move(sourcePath, destinationPath, sessionOrDefault(sessionId), "file.move");
    return { success: true, path: sourcePath, newPath: destinationPath, timestamp: now() };
  }

  async mkdir(path: string, sessionId?: string, { recursive = false }: { recursive?: boolean } = {}) {
    await this.#files.makeDirectory(path, sessionOrDefault(sessionId), recursive);
    return { success: true, path, recursive, timestamp: now() };
  }

  async listFiles(path: string, sessionId?: string, options: ListOptions = {}) {
    const files = await this.#files.list(path, sessionOrDefault(sessionId), options);
    return { success: true, files, count: files.length, path, timestamp: now() };
  }

  exists(path: string, sessionId?: string) {
    const exists = this.#files.exists(path, sessionOrDefault(sessionId));
    return { success: true, exists, path, timestamp: now() };
  }
}

class PortsAPI extends RpcTarget {
  readonly #processes: Processes;

  constructor(processes: Processes) {
    super();
    this.#processes = processes;
  }

  watchPort(request: WatchPortRequest): ReadableStream<Uint8Array> {
    const stop = new AbortController();
    return eventStream(watchPort(request, this.#processes, stop.signal), { onCancel: () => stop.abort() });
  }
}

class GitAPI extends RpcTarget {
  readonly #sessions: Sessions;
  readonly #processes: Processes;

  constructor(sessions: Sessions, processes: Processes) {
    super();
    this.#sessions = sessions;
    this.#processes = processes;
  }

  /** Runs in the session, which is busy meanwhile. Errors: see `checkout`. */
  async checkout(repoUrl: string, sessionId?: string, options: CheckoutOptions = {}) {
    const session = sessionOrDefault(sessionId);
    const { targetDir, branch } = await checkout(
      repoUrl,
      options,
      (command) =>
        session === SESSIONLESS
          ? this.#processes.runAlone(command)
          : this.#sessions.execute(command, session),
      this.#sessions.workspace,
    );
    return { success: true, repoUrl, branch, targetDir, timestamp: now() };
  }
}

class UtilsAPI extends RpcTarget {
  readonly #sessions: Sessions;
  readonly #processes: Processes;

  constructor(sessions: Sessions, processes: Processes) {
    super();
    this.#sessions = sessions;
    this.#processes = processes;
  }

  ping(): string {
    return "healthy";
  }

  getVersion(): string {
    return process.env.SANDBOX_VERSION || SANDBOX_VERSION;
  }

  /** Empty, as in the container. */
  getCommands(): string[] {
    return [];
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

  /** Also ends the background processes started from the session. Error: INTERNAL_ERROR for an unknown one. */
  async deleteSession(sessionId: string) {
    await this.#sessions.delete(sessionId);
    await this.#processes.killSession(sessionId);
    return { success: true, sessionId, timestamp: now() };
  }

  listSessions() {
    return { sessions: this.#sessions.list() };
  }
}

/** cloudflared's tunnels, which lead to the public internet, are not part of the local platform. */
class TunnelsAPI extends RpcTarget {
  runQuickTunnel(): never {
    throw unavailable();
  }
  runNamedTunnel(): never {
    throw unavailable();
  }
  ensureTunnelRun(): never {
    throw unavailable();
  }
  destroyTunnel(id: string) {
    return { success: true, id };
  }
  stopTunnelRun() {
    return { stopped: false };
  }
  listTunnels() {
    return [];
  }
}

function unavailable(): Error {
  return sandboxError(
    "UNKNOWN_ERROR",
    "Tunnels are not available on the local platform: deploy to use them.",
  );
}
