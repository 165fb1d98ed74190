/**
 * The way to sandboxd: one WebSocket for calls and events; requests for a port, which are passed on; and for any other
 * request an answer that it is there, with how many of those for ports are under way.
 */
import { type Server, createServer } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import type { Listener } from "./followed.ts";
import { openPreviews, passRequest, passUpgrade, previewPort } from "./previews.ts";
import { callSchema, OPEN_PREVIEWS, headerBytes, writeHeader } from "./protocol.ts";
import type { Runs } from "./runs.ts";

/** Bytes of a call at most: a command, its input and its variables. */
const MAX_CALL_BYTES = 16 * 1024 * 1024;

export function createSandboxdServer(runs: Runs): Server {
  const server = createServer((request, response) => {
    const port = previewPort(request);
    if (port === undefined) return void response.setHeader(OPEN_PREVIEWS, openPreviews()).end("sandboxd\n");
    return void passRequest(port, request, response).catch(() => response.destroy());
  });
  // A preview may upload or stream for as long as it likes.
  server.requestTimeout = 0;
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_CALL_BYTES,
    perMessageDeflate: false,
  });
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => socket.destroy());
    const port = previewPort(request);
    if (port !== undefined)
      return void passUpgrade(port, request, socket, head).catch(() => socket.destroy());
    sockets.handleUpgrade(request, socket, head, (webSocket) => serve(webSocket, runs));
  });
  return server;
}

function serve(webSocket: WebSocket, runs: Runs): void {
  const listener: Listener = {
    event: (event) => webSocket.send(JSON.stringify(event)),
    piece: (id, stream, offset, bytes) => {
      const start = headerBytes(id);
      const message = Buffer.allocUnsafe(start + bytes.length);
      writeHeader(message, id, stream, offset);
      bytes.copy(message, start);
      webSocket.send(message);
    },
  };
  webSocket.on("message", (data) => {
    const call = callSchema.safeParse(parsed(String(data)));
    if (!call.success) return webSocket.close(1008, "no such call");
    void runs.call(call.data, listener).catch(() => webSocket.terminate());
  });
  webSocket.on("error", () => webSocket.terminate());
  webSocket.on("close", () => runs.unfollow(listener));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
