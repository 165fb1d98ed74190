import { RpcTarget } from "capnweb";
import { Domain, type Services } from "./domain.ts";
import { sandboxError } from "./errors.ts";
import { type ListOptions } from "./file-listing.ts";
import { checkout, type CheckoutOptions } from "./git.ts";
import { watchPort, type WatchPortRequest } from "./ports.ts";
import { ProcessesAPI, CommandsAPI } from "./process-api.ts";
import { SESSIONLESS, sessionOrDefault, type SessionOptions } from "./sessions.ts";
import { eventStream } from "./sse.ts";
import { now } from "./text.ts";

/** The version of the SDK whose container this runtime stands in for; the SDK warns about any other. */
const SANDBOX_VERSION = "0.12.10";

/** The control API on `/rpc`: one target per domain, as the SDK's client addresses them. */
export class SandboxAPI extends RpcTarget {
  readonly #domains: ReturnType<typeof domainsOf>;

  constructor(services: Services) {
    super();
    this.#domains = domainsOf(services);
  }

  get commands() {
    return this.#domains.commands;
  }
  get files() {
    return this.#domains.files;
  }
  get processes() {
    return this.#domains.processes;
  }
  get ports() {
    return this.#domains.ports;
  }
  get git() {
    return this.#domains.git;
  }
  get interpreter() {
    return this.#domains.interpreter;
  }
  get utils() {
    return this.#domains.utils;
  }
  get backup() {
    return this.#domains.backup;
  }
  get watch() {
    return this.#domains.watch;
  }
  get tunnels() {
    return this.#domains.tunnels;
  }
}

function domainsOf(services: Services) {
  const { interpreter, backup, watch } = services;
  return {
    commands: new CommandsAPI(services),
    files: new FilesAPI(services),
    processes: new ProcessesAPI(services),
    ports: new PortsAPI(services),
    git: new GitAPI(services),
    utils: new UtilsAPI(services),
    tunnels: new TunnelsAPI(),
    interpreter,
    backup,
    watch,
  };
}

class FilesAPI extends Domain {
  async readFile(path: string, sessionId?: string, options: { encoding?: string } = {}) {
    const session = sessionOrDefault(sessionId);
    const file =
      options.encoding === "none"
        ? await this.services.files.readBytes(path, session)
        : await this.services.files.read(path, session, options.encoding);
    return { success: true, path, ...file, timestamp: now() };
  }

  readFileStream(path: string, sessionId?: string): ReadableStream<Uint8Array> {
    return eventStream(this.services.files.readEvents(path, sessionOrDefault(sessionId)));
  }

  async writeFile(path: string, content: string, sessionId?: string, options: { encoding?: string } = {}) {
    await this.services.files.write(path, content, sessionOrDefault(sessionId), options.encoding);
    // The size of what was sent, even when that was base64: so the container counts.
    return { success: true, path, bytesWritten: Buffer.byteLength(content), timestamp: now() };
  }

  async writeFileStream(path: string, content: ReadableStream<Uint8Array>, sessionId?: string) {
    const bytesWritten = await this.services.files.writeStream(path, content, sessionOrDefault(sessionId));
    return { success: true, path, bytesWritten, timestamp: now() };
  }

  async deleteFile(path: string, sessionId?: string) {
    await this.services.files.delete(path, sessionOrDefault(sessionId));
    return { success: true, path, timestamp: now() };
  }

  async renameFile(oldPath: string, newPath: string, sessionId?: string) {
    await this.services.files.move(oldPath, newPath, sessionOrDefault(sessionId), "file.rename");
    return { success: true, path: oldPath, oldPath, newPath, timestamp: now() };
  }

  async moveFile(sourcePath: string, destinationPath: string, sessionId?: string) {
    await this.services.files.move(sourcePath, destinationPath, sessionOrDefault(sessionId), "file.move");
    return { success: true, path: sourcePath, newPath: destinationPath, timestamp: now() };
  }

  async mkdir(path: string, sessionId?: string, { recursive = false }: { recursive?: boolean } = {}) {
    await this.services.files.makeDirectory(path, sessionOrDefault(sessionId), recursive);
    return { success: true, path, recursive, timestamp: now() };
  }

  async listFiles(path: string, sessionId?: string, options: ListOptions = {}) {
    const files = await this.services.files.list(path, sessionOrDefault(sessionId), options);
    return { success: true, files, count: files.length, path, timestamp: now() };
  }

  exists(path: string, sessionId?: string) {
    const exists = this.services.files.exists(path, sessionOrDefault(sessionId));
    return { success: true, exists, path, timestamp: now() };
  }
}

class PortsAPI extends Domain {
  watchPort(request: WatchPortRequest): ReadableStream<Uint8Array> {
    const stop = new AbortController();
    return eventStream(watchPort(request, this.services.processes, stop.signal), {
      onCancel: () => stop.abort(),
    });
  }
}

class GitAPI extends Domain {
  /** Runs in the session, which is busy meanwhile. Errors: see `checkout`. */
  async checkout(repoUrl: string, sessionId?: string, options: CheckoutOptions = {}) {
    const session = sessionOrDefault(sessionId);
    const { targetDir, branch } = await checkout(
      repoUrl,
      options,
      (command) =>
        session === SESSIONLESS
          ? this.services.processes.runAlone(command)
          : this.services.sessions.execute(command, session),
      this.services.sessions.workspace,
    );
    return { success: true, repoUrl, branch, targetDir, timestamp: now() };
  }
}

class UtilsAPI extends Domain {
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
    await this.services.sessions.create(options);
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
    await this.services.sessions.delete(sessionId);
    await this.services.processes.killSession(sessionId);
    return { success: true, sessionId, timestamp: now() };
  }

  listSessions() {
    return { sessions: this.services.sessions.list() };
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
