/** The way to sandboxd: one WebSocket on `/` for calls and events; any other request is answered that it is there. */
import { type Server, createServer } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import { callSchema, headerBytes, writeHeader } from "./protocol.ts";
import type { Listener } from "./run.ts";
import type { Runs } from "./runs.ts";

/** Bytes of a call at most: a command, its input and its variables. */
const MAX_CALL_BYTES = 16 * 1024 * 1024;

export function createSandboxdServer(runs: Runs): Server {
  const server = createServer((_request, response) => response.writeHead(200).end("sandboxd\n"));
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_CALL_BYTES,
    perMessageDeflate: false,
  });
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => socket.destroy());
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
