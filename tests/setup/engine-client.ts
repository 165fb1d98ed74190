/**
 * Engines and sandboxes for tests without a Worker. Sandboxes are started over the engine's HTTP interface, and
 * commands run over sandboxd.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type RawData, WebSocket } from "ws";
import {
  type Call,
  type Event,
  SANDBOXD_PORT,
  TOKEN_HEADER,
  readPiece,
} from "../../container/sandboxd/protocol.ts";
import { startEngine, type Engine, type EngineOptions } from "../../local/engine/engine.ts";
import { repository } from "../../local/engine/own-files.ts";
import {
  type ExitReport,
  OUTBOUND_HEADER,
  type OutboundRequest,
  SECRET_HEADER,
  type StartRequest,
} from "../../local/platform/engine-protocol.ts";
import { python } from "./server.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import { sleep } from "./until.ts";

export interface EngineAddress {
  url: string;
  secret: string;
}

export interface TestEngine extends EngineAddress {
  engine: Engine;
  runDir: string;
  close(): Promise<void>;
}

/** The mount of the package `ws`, for servers that tests start in sandboxes. */
export const wsPackage = {
  from: join(repository, "node_modules/ws"),
  to: "/opt/sandbox-runtime/node_modules/ws",
};

/**
 * Starts an engine in this process, in a new run directory. By default it prepares no sandbox, because few tests use its Python kernel.
 */
export async function startTestEngine({
  hasAuthority = false,
  ...options
}: Partial<EngineOptions> & { hasAuthority?: boolean } = {}): Promise<TestEngine> {
  const runDir = options.runDir ?? (await mkdtemp(join(tmpdir(), "sandbox-mcp-test-")));
  const secret = randomBytes(24).toString("base64url");
  const engine = await startEngine({
    secret,
    network: "internet",
    isolation: "bubblewrap",
    runDir,
    prepareSandbox: false,
    ...(python === undefined ? {} : { python }),
    ...(hasAuthority ? { authority: join(runDir, "authority") } : {}),
    ...options,
    readOnly: [wsPackage, ...(options.readOnly ?? [])],
  });
  return {
    engine,
    url: engine.url,
    secret,
    runDir,
    close: async () => {
      await engine.close();
      await rm(runDir, { recursive: true, force: true });
    },
  };
}

/** Starts an engine as a program. @param user the id of the user that runs it; needs root */
export async function spawnTestEngine(
  runDir: string,
  user?: number,
): Promise<EngineAddress & { child: ChildProcess; log: () => string }> {
  const secret = randomBytes(24).toString("hex");
  const program = [process.execPath, join(repository, "local/engine/main.ts")];
  const ids = ["--reuid", String(user), "--regid", String(user), "--clear-groups", "--"];
  const [file = "", ...args] = user === undefined ? program : ["setpriv", ...ids, ...program];
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    process.stderr.write(chunk);
    log += chunk.toString();
  });
  const settings = { secret, network: "none", isolation: "bubblewrap", runDir, prepareSandbox: false };
  child.stdin.write(`${JSON.stringify(settings)}\n`);
  const line = await new Promise<string>((resolve) =>
    createInterface({ input: child.stdout }).once("line", resolve),
  );
  const { url, error } = JSON.parse(line);
  if (error !== undefined) throw new Error(error);
  return { child, secret, url, log: () => log };
}

/** The time limits for a command and for the start of sandboxd, milliseconds. */
const COMMAND_MS = 600_000;
const CONNECT_MS = 30_000;
/** How long a closed connection waits for the report that its sandbox has ended, milliseconds. */
const END_MS = 1000;

interface Result {
  stdout: string;
  stderr: string;
  exitCode: number;
}

export class TestSandbox {
  readonly id: string;
  readonly #token = randomBytes(16).toString("hex");
  readonly #engine: EngineAddress;

  private constructor(engine: EngineAddress, id: string) {
    this.#engine = engine;
    this.id = id;
  }

  static async start(engine: EngineAddress, request: Partial<StartRequest> = {}): Promise<TestSandbox> {
    const sandbox = new TestSandbox(engine, randomBytes(8).toString("hex"));
    const intercepts = { http: [], https: [] };
    const defaults = { actor: sandbox.id, env: {}, enableInternet: true, intercepts, token: sandbox.#token };
    const body = { ...defaults, ...request };
    const response = await sandbox.call("PUT", "", body);
    if (!response.ok) throw new Error(await response.text());
    return sandbox;
  }

  /** @param path the part of the path after `/sandboxes/<id>` */
  async call(method: string, path: string, body?: unknown): Promise<Response> {
    return await fetch(`${this.#engine.url}/sandboxes/${this.id}${path}`, {
      method,
      headers: { [SECRET_HEADER]: this.#engine.secret },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** Opens a WebSocket. @param path the part of the path after `/sandboxes/<id>` */
  openSocket(
    path: string,
    headers: Record<string, string | undefined> = { [SECRET_HEADER]: this.#engine.secret },
  ): WebSocket {
    const url = `${this.#engine.url.replace("http", "ws")}/sandboxes/${this.id}${path}`;
    return new WebSocket(url, { headers }).on("error", () => undefined);
  }

  /** Runs a bash command, by default in a new session. Removes the last newline of its output. */
  async run(command: string, session?: string): Promise<Result> {
    const socket = await this.#connect();
    const id = randomBytes(6).toString("hex");
    const send = (call: Call) => socket.send(JSON.stringify(call));
    const output: Record<"stdout" | "stderr", Uint8Array[]> = { stdout: [], stderr: [] };
    const stored = { stdout: 0, stderr: 0 };
    try {
      return await new Promise<Result>((resolve, reject) => {
        socket.on("close", async (code) => {
          const end = await waitAtMost(END_MS, this.waitForEnd()).catch(String);
          reject(new Error(`the connection to sandboxd closed: ${code}, ${JSON.stringify(end)}`));
        });
        socket.on("message", (data: RawData, isBinary) => {
          if (isBinary) {
            const { stream, bytes } = readPiece(Uint8Array.from(data as Buffer).buffer);
            output[stream].push(bytes);
            stored[stream] += bytes.length;
            return send({ type: "stored", id, ...stored });
          }
          const event: Event = JSON.parse(String(data));
          if (event.type === "ended")
            resolve({
              stdout: textOf(output.stdout),
              stderr: textOf(output.stderr),
              exitCode: event.status,
            });
          if (event.type === "refused") reject(new Error(`${event.reason}: ${event.message}`));
        });
        send({ type: "start", id, session: session ?? id, command, timeoutMs: COMMAND_MS });
      });
    } finally {
      if (socket.readyState === WebSocket.OPEN) send({ type: "forget", ids: [id] });
      socket.close();
    }
  }

  /** Runs a Python program, or its lines, in a new session. */
  python(program: string | readonly string[]): Promise<Result> {
    return this.run(`python3 - <<'PYTHON'\n${[program].flat().join("\n")}\nPYTHON`);
  }

  /** Takes a request of the sandbox that the Worker serves. `poll` has its body. */
  async takeOutbound(): Promise<OutboundRequest & { poll: Response }> {
    const poll = await this.call("GET", "/outbound");
    const request = Buffer.from(poll.headers.get(OUTBOUND_HEADER) ?? "", "base64");
    return { ...JSON.parse(request.toString()), poll };
  }

  /** Responds to such a request as the Worker does. @param body in frames */
  async respond(
    number: number,
    status: number,
    body: Buffer<ArrayBuffer> | ReadableStream<Uint8Array>,
    headers: [string, string][] = [],
  ): Promise<Response> {
    const init = {
      method: "POST",
      headers: { [SECRET_HEADER]: this.#engine.secret, [OUTBOUND_HEADER]: outboundHead(status, headers) },
      body,
      // Necessary for a stream, but missing in the types of the DOM.
      duplex: "half",
    };
    return await fetch(`${this.#engine.url}/sandboxes/${this.id}/outbound/${number}`, init);
  }

  async waitForEnd(): Promise<ExitReport> {
    const response = await this.call("GET", "/exit");
    const report: ExitReport = JSON.parse(await response.text());
    return report;
  }

  async destroy(): Promise<void> {
    await this.call("DELETE", "");
  }

  /** Sends a request to sandboxd. Returns the response's body. */
  async ask(method: string, path: string, body?: string): Promise<string> {
    const response = await fetch(`${this.#engine.url}/sandboxes/${this.id}/ports/${SANDBOXD_PORT}${path}`, {
      method,
      headers: { [SECRET_HEADER]: this.#engine.secret, [TOKEN_HEADER]: this.#token },
      ...(body === undefined ? {} : { body }),
    });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    return await response.text();
  }

  /** Connects to sandboxd, which begins to listen a moment after the sandbox has started. */
  async #connect(): Promise<WebSocket> {
    for (const deadline = Date.now() + CONNECT_MS; ; await sleep(20)) {
      const headers = { [SECRET_HEADER]: this.#engine.secret, [TOKEN_HEADER]: this.#token };
      const socket = this.openSocket(`/ports/${SANDBOXD_PORT}/`, headers);
      const failed = await new Promise<Error | undefined>((resolve) => {
        socket.once("open", () => resolve(undefined));
        socket.on("error", resolve);
      });
      if (failed === undefined) return socket;
      if (!failed.message.includes("502") || Date.now() > deadline) throw failed;
    }
  }
}

/** The head of a response to a request that the Worker serves. */
function outboundHead(status: number, headers: [string, string][] = []): string {
  return Buffer.from(JSON.stringify({ status, headers })).toString("base64");
}

function textOf(pieces: Uint8Array[]): string {
  return Buffer.concat(pieces).toString().replace(/\n$/, "");
}
