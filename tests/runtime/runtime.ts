import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { RpcSession, type RpcStub } from "capnweb";
import { WebSocket } from "ws";
import { type SandboxAPI } from "../../local/runtime/api.ts";
import { WebSocketTransport } from "../../local/runtime/rpc.ts";
import { until } from "../setup/until.ts";

const MAIN = fileURLToPath(new URL("../../local/runtime/main.ts", import.meta.url));
const KERNELS = fileURLToPath(new URL("../../local/runtime/kernels", import.meta.url));

/** If set, the tests use this running server, for example the image's: `ws://127.0.0.1:<port>/rpc`. */
export const REMOTE_URL = process.env.SANDBOX_RUNTIME_URL;

/** A control server under test and a connection to it. */
export interface Runtime {
  api: RpcStub<SandboxAPI>;
  stop: () => Promise<void>;
}

interface RuntimeOptions {
  /** A program that starts the control server, with its arguments. */
  under?: string[];
}

/** Connects to a control server by its WebSocket URL, or by `ws+unix:<path>:/rpc` for a Unix socket. */
async function connectTo(url: string): Promise<{ api: RpcStub<SandboxAPI>; close: () => void }> {
  const socket = new WebSocket(url);
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  const session = new RpcSession<SandboxAPI>(new WebSocketTransport(socket));
  return { api: session.getRemoteMain(), close: () => socket.close() };
}

/** Starts a control server as a process, or connects to the running one if `SANDBOX_RUNTIME_URL` is set. */
export async function startRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  if (REMOTE_URL !== undefined) {
    const { api, close } = await connectTo(REMOTE_URL);
    return { api, stop: async () => close() };
  }
  const directory = mkdtempSync(join(tmpdir(), "runtime-test-"));
  const socket = join(directory, "control.sock");
  const workspace = mkdtempSync(join(directory, "workspace-"));
  const places = ["--socket", socket, "--kernels", KERNELS, "--workspace", workspace];
  const own = [process.execPath, MAIN, ...places];
  const [program = "", ...rest] = [...(options.under ?? []), ...own];
  const child = spawn(program, rest, { stdio: ["ignore", "ignore", "inherit"] });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await waitUntilReady(socket, child);
  const { api, close } = await connectTo(`ws+unix:${socket}:/rpc`);
  return {
    api,
    stop: async () => {
      close();
      child.kill("SIGTERM");
      await gone;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Sends one HTTP request over the control server's socket. */
function get(socketPath: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.once("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
    call.once("error", reject);
    call.end();
  });
}

async function waitUntilReady(socket: string, child: ChildProcess): Promise<void> {
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`the runtime ended with ${child.exitCode}`);
    const answer = await get(socket, "/").catch(() => undefined);
    return answer?.status === 200;
  });
}
