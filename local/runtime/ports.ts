import { request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { isSandboxError, messageOf, sandboxError } from "./errors.ts";
import { type Processes } from "./processes.ts";
import { type StreamEvent } from "./sse.ts";

const CHECK_TIMEOUT_MS = 5000;
const MIN_INTERVAL_MS = 100;
const MAX_INTERVAL_MS = 10_000;
const DEFAULT_INTERVAL_MS = 500;

export interface WatchPortRequest {
  port: number;
  mode: "http" | "tcp";
  path?: string;
  statusMin?: number;
  statusMax?: number;
  /** Ends the watch when this process ends. */
  processId?: string;
  /** Milliseconds between two looks. */
  interval?: number;
}

/** Connects to a server inside the sandbox, on IPv4 or, failing that, IPv6 loopback. */
export async function connectToPort(port: number): Promise<Socket> {
  try {
    return await dial("127.0.0.1", port);
  } catch (error) {
    return dial("::1", port).catch(() => {
      throw error;
    });
  }
}

function dial(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/** The events of `watchPort`: `watching`, then `ready`, `process_exited` or `error`. */
export async function* watchPort(
  request: WatchPortRequest,
  processes: Processes,
  signal: AbortSignal,
): AsyncGenerator<StreamEvent> {
  const { port, processId } = request;
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw sandboxError("INVALID_PORT", `Port must be between 1 and 65535: ${port}`, {
      port,
      reason: "out of range",
    });
  }
  const interval = Math.min(
    Math.max(request.interval ?? DEFAULT_INTERVAL_MS, MIN_INTERVAL_MS),
    MAX_INTERVAL_MS,
  );
  yield { type: "watching", port };
  try {
    while (!signal.aborted) {
      if (processId !== undefined) {
        const record = await processes.get(processId);
        if (!record.running) {
          yield { type: "process_exited", port, exitCode: record.exitCode };
          return;
        }
      }
      const answer = await (request.mode === "tcp" ? answersTCP(port) : answersHTTP(request));
      if (answer.ready) {
        yield { type: "ready", port, statusCode: answer.statusCode };
        return;
      }
      await pause(interval, signal);
    }
  } catch (error) {
    const missing = isSandboxError(error) && error.code === "PROCESS_NOT_FOUND";
    yield { type: "error", port, error: missing ? "Process not found" : messageOf(error) };
  }
}

async function answersTCP(port: number): Promise<{ ready: boolean; statusCode?: number }> {
  try {
    const socket = await connectToPort(port);
    socket.on("error", () => {});
    socket.destroy();
    return { ready: true };
  } catch {
    return { ready: false };
  }
}

async function answersHTTP(request: WatchPortRequest): Promise<{ ready: boolean; statusCode?: number }> {
  const { port, path = "/", statusMin = 200, statusMax = 399 } = request;
  try {
    const socket = await connectToPort(port);
    const statusCode = await statusOf(socket, port, path.startsWith("/") ? path : `/${path}`);
    return { ready: statusCode >= statusMin && statusCode <= statusMax, statusCode };
  } catch {
    return { ready: false };
  }
}

/** Over a connection of our own: `fetch` might be told by the sandbox's environment to use the proxy. */
function statusOf(socket: Socket, port: number, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const call = httpRequest({
      createConnection: () => socket,
      headers: { host: `localhost:${port}`, connection: "close" },
      path,
      signal: AbortSignal.timeout(CHECK_TIMEOUT_MS),
    });
    call.once("error", (error) => {
      socket.destroy();
      reject(error);
    });
    call.once("response", (response) => {
      resolve(response.statusCode ?? 0);
      response.on("error", () => {});
      socket.destroy();
    });
    call.end();
  });
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
