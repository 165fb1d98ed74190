/** Engines and sandboxes for tests without a Worker: sandboxes over the engine's HTTP interface, commands over the control API. */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { RpcSession } from "capnweb";
import { WebSocket } from "ws";
import { startEngine, type Engine, type EngineOptions } from "../../local/engine/engine.ts";
import { repository } from "../../local/engine/own-files.ts";
import { SECRET_HEADER, type ExitReport, type StartRequest } from "../../local/platform/protocol.ts";
import type { SandboxAPI } from "../../local/runtime/api.ts";
import { WebSocketTransport } from "../../local/runtime/rpc.ts";

export interface EngineAddress {
  url: string;
  secret: string;
}

export interface TestEngine extends EngineAddress {
  engine: Engine;
  runDir: string;
  close(): Promise<void>;
}

/** An engine in this process, in a run directory of its own. */
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
    ...(hasAuthority ? { authority: join(runDir, "authority") } : {}),
    ...options,
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

/**
 * An engine as a program of its own.
 * @param user an id of the machine to run it as; needs root
 */
export async function spawnTestEngine(
  runDir: string,
  user?: number,
): Promise<EngineAddress & { child: ChildProcess }> {
  const secret = randomBytes(24).toString("hex");
  const program = [process.execPath, join(repository, "local/engine/main.ts")];
  const ids = ["--reuid", String(user), "--regid", String(user), "--clear-groups", "--"];
  const [file = "", ...args] = user === undefined ? program : ["setpriv", ...ids, ...program];
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.write(`${JSON.stringify({ secret, network: "none", isolation: "bubblewrap", runDir })}\n`);
  const line = await new Promise<string>((resolve) =>
    createInterface({ input: child.stdout }).once("line", resolve),
  );
  const { url, error } = JSON.parse(line);
  if (error !== undefined) throw new Error(error);
  return { child, secret, url };
}

export interface Result {
  stdout: string;
  stderr: string;
  exitCode: number;
}

export class TestSandbox {
  readonly id: string;
  readonly #engine: EngineAddress;
  #api: ReturnType<RpcSession<SandboxAPI>["getRemoteMain"]> | undefined;

  private constructor(engine: EngineAddress, id: string) {
    this.#engine = engine;
    this.id = id;
  }

  static async start(engine: EngineAddress, request: Partial<StartRequest> = {}): Promise<TestSandbox> {
    const sandbox = new TestSandbox(engine, randomBytes(8).toString("hex"));
    const intercepts = { http: [], https: [], all: false };
    const body = { actor: sandbox.id, env: {}, enableInternet: true, intercepts, ...request };
    const response = await sandbox.call("PUT", "", body);
    if (!response.ok) throw new Error(await response.text());
    return sandbox;
  }

  /** @param path What follows `/sandboxes/<id>`. */
  async call(method: string, path: string, body?: unknown): Promise<Response> {
    return await fetch(`${this.#engine.url}/sandboxes/${this.id}${path}`, {
      method,
      headers: { [SECRET_HEADER]: this.#engine.secret },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** Runs a bash command in a session of its own. */
  async run(command: string): Promise<Result> {
    this.#api ??= await this.#connect();
    const { stdout, stderr, exitCode } = await this.#api.commands.execute(
      command,
      randomBytes(6).toString("hex"),
    );
    return { stdout, stderr, exitCode };
  }

  /** Waits for the end. */
  async ended(): Promise<ExitReport> {
    const response = await this.call("GET", "/exit");
    const report: ExitReport = JSON.parse(await response.text());
    return report;
  }

  async destroy(): Promise<void> {
    await this.call("DELETE", "");
  }

  async #connect(): Promise<ReturnType<RpcSession<SandboxAPI>["getRemoteMain"]>> {
    const url = `${this.#engine.url.replace("http", "ws")}/sandboxes/${this.id}/ports/3000/rpc`;
    const socket = new WebSocket(url, { headers: { [SECRET_HEADER]: this.#engine.secret } });
    await new Promise<void>((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
    });
    return new RpcSession<SandboxAPI>(new WebSocketTransport(socket)).getRemoteMain();
  }
}
