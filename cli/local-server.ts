/**
 * The local server for a bridge (`sandbox-mcp stdio`). The bridge uses a server that runs already, or starts a server that ends
 * together with the bridge.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { setTimeout as pause } from "node:timers/promises";
import { moduleExtension } from "../local/engine/own-files.ts";
import { freePort } from "./lock.ts";
import { WITH_PARENT } from "./parents.ts";
import { DEFAULT_PORT } from "./options.ts";
import { findRunning } from "./running.ts";
import { type ServerAddress, serverAddress, type ServerOptions, stateDirectory } from "./server-address.ts";
import { DIRECTORY_IN_USE, localServerFailed, startingLocalServer } from "./texts.ts";

/**
 * How long a start may take, in milliseconds. The very first start builds the Worker and looks for Python: about 10 s on a slow
 * machine.
 */
const START_MS = 90_000;

/**
 * The pause before another attempt, in milliseconds. While the server of another bridge starts or stops, it uses the state
 * directory, and our start fails.
 */
const START_RETRY_MS = 2000;

const START = fileURLToPath(new URL(`start${moduleExtension}`, import.meta.url));

export class LocalServer {
  readonly #options: ServerOptions;
  readonly #log: (line: string) => void;
  #child: ChildProcess | undefined;
  #output = "";
  #starting: Promise<ServerAddress> | undefined;

  constructor(options: ServerOptions, log: (line: string) => void) {
    this.#options = options;
    this.#log = log;
  }

  /** A responding server; starts one if there is none. @throws {CommandError} with the reason if it does not start */
  async locate(): Promise<ServerAddress> {
    if (await this.#isReachable()) return serverAddress(this.#options);
    this.#starting ??= this.#start().finally(() => (this.#starting = undefined));
    return this.#starting;
  }

  /** Whether the server at this address still runs. */
  isCurrent({ url }: ServerAddress): boolean {
    const running = findRunning(stateDirectory(this.#options));
    return running !== undefined && new URL(running.url).origin === new URL(url).origin;
  }

  async #start(): Promise<ServerAddress> {
    const deadline = Date.now() + START_MS;
    let triedAt = 0;
    while (Date.now() < deadline) {
      if (await this.#isReachable()) return serverAddress(this.#options);
      const isRunning =
        this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
      if (!isRunning && triedAt > 0 && !this.#output.includes(DIRECTORY_IN_USE)) break;
      if (!isRunning && Date.now() - triedAt > START_RETRY_MS) {
        triedAt = Date.now();
        await this.#spawn();
      }
      await pause(100);
    }
    throw localServerFailed(this.#output.trim().slice(-2000));
  }

  async #spawn(): Promise<void> {
    const port = await freePort(DEFAULT_PORT).catch(() => 0);
    const words = ["--port", String(port), "--state-dir", stateDirectory(this.#options)];
    this.#log(startingLocalServer(words));
    this.#output = "";
    const child = spawn(process.execPath, [START, ...words], {
      // In a separate process group, so that a signal to the bridge's group does not kill it before workspaces are saved.
      detached: true,
      env: { ...process.env, [WITH_PARENT]: "1" },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#output = `${this.#output}${text}`.slice(-4000);
      this.#log(text.trimEnd());
    });
    await new Promise((resolve) => child.once("spawn", resolve).once("error", resolve));
  }

  async #isReachable(): Promise<boolean> {
    const running = findRunning(stateDirectory(this.#options));
    if (!running) return false;
    return fetch(new URL("/health", running.url), { signal: AbortSignal.timeout(5000) }).then(
      (response) => response.ok,
      () => false,
    );
  }
}
