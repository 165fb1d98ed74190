/** sandboxd's server: a WebSocket for runs, and requests for files, saves and previews. Other requests get sandboxd's status. */
import { attempt } from "./file-error.ts";
import { type Server, createServer } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import { BEAT_HEADER, beat } from "./beat.ts";
import type { FileHandlers } from "./file-handlers.ts";
import type { Listener } from "./followed-run.ts";
import { isListening } from "./listening.ts";
import { countOpenPreviews, passRequest, passUpgrade, previewPort } from "./preview-proxy.ts";
import { callSchema, IS_ENDING, IS_LISTENING, OPEN_PREVIEWS, headerBytes, writeHeader } from "./protocol.ts";
import { isAuthorized } from "./actor-token.ts";
import type { RunTable } from "./run-table.ts";
import type { Snapshots } from "./snapshots/snapshots.ts";

/** The largest call, in bytes: a command with its input and variables. */
const MAX_CALL_BYTES = 16 * 1024 * 1024;
/** The largest request header, in bytes. In a query, each of a path's 4,096 characters takes up to nine bytes. */
const MAX_HEAD_BYTES = 64 * 1024;

export function createSandboxdServer(runs: RunTable, files: FileHandlers, snapshots: Snapshots): Server {
  const server = createServer({ maxHeaderSize: MAX_HEAD_BYTES }, (request, response) => {
    const port = previewPort(request);
    // Only previews get a Date header. The first one is slow, because Node looks up the time zone.
    response.sendDate = port !== undefined;
    if (!isAuthorized(request)) return void response.writeHead(401, { connection: "close" }).end();
    const served =
      port === undefined
        ? (files.respond(request, response) ?? snapshots.respond(request, response))
        : passRequest(port, request, response);
    if (served) return void served.catch(() => response.destroy());
    response.setHeader(BEAT_HEADER, beat).setHeader(OPEN_PREVIEWS, countOpenPreviews());
    const asked = Number(request.headers[IS_LISTENING]);
    if (asked > 0) response.setHeader(IS_LISTENING, String(isListening(asked)));
    response.setHeader(IS_ENDING, String(runs.isEnding)).end("sandboxd\n");
  });
  // No time limit, because previews may stream forever and large files take long.
  server.requestTimeout = 0;
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_CALL_BYTES,
    perMessageDeflate: false,
  });
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => socket.destroy());
    if (!isAuthorized(request))
      return void socket.end("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n");
    const port = previewPort(request);
    if (port !== undefined)
      return void passUpgrade(port, request, socket, head).catch(() => socket.destroy());
    sockets.handleUpgrade(request, socket, head, (webSocket) => serve(webSocket, runs));
  });
  return server;
}

function serve(webSocket: WebSocket, runs: RunTable): void {
  const listener: Listener = {
    onEvent: (event) => webSocket.send(JSON.stringify(event)),
    onPiece: (id, stream, offset, bytes) => {
      const start = headerBytes(id);
      const message = Buffer.allocUnsafe(start + bytes.length);
      writeHeader(message, id, stream, offset);
      bytes.copy(message, start);
      webSocket.send(message);
    },
  };
  webSocket.on("message", (data) => {
    const call = callSchema.safeParse(attempt(() => JSON.parse(String(data)), undefined));
    if (!call.success) return webSocket.close(1008, "invalid message");
    void runs.call(call.data, listener).catch(() => webSocket.terminate());
  });
  webSocket.on("error", () => webSocket.terminate());
  webSocket.on("close", () => runs.unfollow(listener));
}
