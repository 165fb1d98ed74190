import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { newWebSocketRpcSession, type RpcStub } from "capnweb";
import { WebSocket } from "ws";
import { type SandboxAPI } from "../../local/runtime/control-server.ts";
import { until } from "../setup/until.ts";

const MAIN = fileURLToPath(new URL("../../local/runtime/main.ts", import.meta.url));
const KERNELS = fileURLToPath(new URL("../../local/runtime/kernels", import.meta.url));

/** If set, the tests use this running server, for example the image's: `ws://127.0.0.1:<port>/rpc`. */
export const REMOTE_URL = process.env.SANDBOX_RUNTIME_URL;

export interface Runtime {
  api: RpcStub<SandboxAPI>;
  stop: () => Promise<void>;
}

/** Connects to a control server by its WebSocket URL, or by `ws+unix:<path>:/rpc` for a Unix socket. */
async function connectTo(url: string): Promise<{ api: RpcStub<SandboxAPI>; close: () => void }> {
  const socket = new WebSocket(url);
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  const api = newWebSocketRpcSession<SandboxAPI>(socket as never);
  return { api, close: () => socket.close() };
}

/**
 * Starts a control server as a process, or connects to the running one if `SANDBOX_RUNTIME_URL` is set.
 * @param under a program that starts the control server, with its arguments
 */
export async function startRuntime(under: readonly string[]): Promise<Runtime> {
  if (REMOTE_URL !== undefined) {
    const { api, close } = await connectTo(REMOTE_URL);
    return { api, stop: async () => close() };
  }
  const directory = mkdtempSync(join(tmpdir(), "runtime-test-"));
  const socket = join(directory, "control.sock");
  const workspace = mkdtempSync(join(directory, "workspace-"));
  const places = ["--socket", socket, "--kernels", KERNELS, "--workspace", workspace];
  const own = [process.execPath, MAIN, ...places];
  const [program = "", ...rest] = [...under, ...own];
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

/** The status of the control server's response to `GET /`. */
function statusOf(socketPath: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path: "/", agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    call.once("error", reject);
    call.end();
  });
}

async function waitUntilReady(socket: string, child: ChildProcess): Promise<void> {
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`the runtime ended with ${child.exitCode}`);
    return (await statusOf(socket).catch(() => undefined)) === 200;
  });
}
