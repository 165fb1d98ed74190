import { createServer, type Server, type ServerResponse } from "node:http";
import { type Duplex } from "node:stream";
import { newWebSocketRpcSession, RpcTarget } from "capnweb";
import { type WebSocket as ServerSocket, WebSocketServer } from "ws";
import { messageOf } from "../../src/shared/text.ts";
import worker from "../../src/package.json" with { type: "json" };
import type { InterpreterAPI } from "./interpreter.ts";
import { log } from "./stderr-log.ts";

/** This runtime imitates the container of this SDK version. The SDK warns about any other version. */
const SANDBOX_VERSION = worker.dependencies["@cloudflare/sandbox"];
/** The largest message, in bytes. Code of a million characters is smaller, even if it is escaped twice. */
const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;

/**
 * The runtime's HTTP server:
 * - `/`: responds as soon as the server is ready
 * - `/rpc`: a WebSocket with the control API
 * - `POST /kernel`: prepares a kernel
 */
export function createControlServer(interpreter: InterpreterAPI): Server {
  const api = new SandboxAPI(interpreter);
  const webSockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  });
  const server = createServer((request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "/";
    if (request.method === "POST" && path === "/kernel") {
      interpreter.startFirst();
      respond(response, 202, {});
    } else if (path === "/") {
      response
        .writeHead(200, { "content-type": "text/plain; charset=utf-8" })
        .end("sandbox-mcp local runtime\n");
    } else respond(response, 404, { error: "Not found" });
  });
  // No limit, because long calls and quiet streams are normal here.
  server.requestTimeout = 0;
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => socket.destroy());
    const protocol = request.headers.upgrade?.toLowerCase();
    const path = request.url?.split("?", 1)[0] ?? "";
    if (protocol === "websocket" && path === "/rpc") {
      webSockets.handleUpgrade(request, socket, head, (webSocket) => serveRPC(webSocket, api));
    } else {
      refuse(socket, "404 Not Found", `${path} does not accept an upgrade to ${protocol}`);
    }
  });
  return server;
}

/** The control API. It has only the methods that the actor uses, and those that the SDK uses when it starts. */
export class SandboxAPI extends RpcTarget {
  readonly #utils = new UtilsAPI();
  readonly #interpreter: InterpreterAPI;

  constructor(interpreter: InterpreterAPI) {
    super();
    this.#interpreter = interpreter;
  }

  get utils() {
    return this.#utils;
  }
  get interpreter() {
    return this.#interpreter;
  }
}

class UtilsAPI extends RpcTarget {
  ping(): string {
    return "healthy";
  }

  getVersion(): string {
    return SANDBOX_VERSION;
  }
}

function serveRPC(socket: ServerSocket, api: RpcTarget): void {
  const session = newWebSocketRpcSession(socket as unknown as WebSocket, api);
  session.onRpcBroken((error: unknown) => {
    if (!messageOf(error).startsWith("Peer closed")) log(`connection: ${messageOf(error)}`);
    // capnweb cannot close the connection if the reason has more than 123 bytes.
    socket.terminate();
  });
}

function respond(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function refuse(socket: Duplex, status: string, reason: string): void {
  const body = `${reason}\n`;
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
