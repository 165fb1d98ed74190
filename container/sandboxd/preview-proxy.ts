/** Previews: forwards requests to servers in the sandbox. Most of them listen only on loopback. */
import { type IncomingMessage, type ServerResponse, request as httpRequest } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTLS } from "node:tls";
import { codeOf } from "./file-error.ts";
import { connectToPort, splice } from "./splice.ts";
import {
  PREVIEW_ERROR,
  PREVIEW_PORT,
  PREVIEW_RESPONSE_MS,
  type PreviewError,
  TOKEN_HEADER,
} from "./protocol.ts";

/**
 * Headers that are not forwarded: headers about one connection (RFC 9110, 7.6.1), and headers of this server. A request's headers
 * that frame its body are forwarded with it.
 */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  PREVIEW_PORT,
  TOKEN_HEADER,
]);

/** The platform adds this header to a Worker's requests. It contains the Worker's domain. */
const PLATFORM_HEADERS = ["cf-worker"];
const open = new Set<Socket>();

export function countOpenPreviews(): number {
  return open.size;
}

export function previewPort({ headers }: IncomingMessage): number | undefined {
  const port = Number(headers[PREVIEW_PORT] ?? "none");
  return Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
}

/** Forwards a request. Responds with 502 and `PREVIEW_ERROR` if no HTTP server responds. */
export async function passRequest(
  port: number,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const socket = await dial(port);
  if (!socket) return void response.writeHead(502, { [PREVIEW_ERROR]: "refused" }).end();
  if (response.destroyed) return void socket.destroy();
  const passed = httpRequest({
    createConnection: () => socket,
    method: request.method,
    path: request.url,
    headers: [...forwardedHeaders(request.rawHeaders, PLATFORM_HEADERS), "connection", "close"],
  });
  const timer = setTimeout(
    () => passed.destroy(new Error("the program does not respond")),
    PREVIEW_RESPONSE_MS,
  );
  const restart = () => void timer.refresh();
  const stop = () => {
    clearTimeout(timer);
    request.off("data", restart);
  };
  request.on("data", restart);
  passed.once("response", stop).once("close", stop);
  passed.on("error", async (error) => {
    if (response.headersSent || response.destroyed) return void response.destroy();
    response.writeHead(502, { [PREVIEW_ERROR]: await problemOf(port, error) }).end();
  });
  const refuse = () => {
    passed.destroy();
    // Node keeps the program's status message even if Node refuses to write it, so it is reset.
    response.statusMessage = "";
    response.writeHead(502, { [PREVIEW_ERROR]: "foreign" }).end();
  };
  passed.on("upgrade", (_incoming, switched) => {
    switched.destroy();
    refuse();
  });
  passed.on("response", (incoming) => {
    // Node decodes only the coding chunked. Any other coding would be lost, because a transfer coding applies to one connection.
    if (!/^(?:chunked|identity)$/i.test(incoming.headers["transfer-encoding"] ?? "chunked")) return refuse();
    const headers = forwardedHeaders(incoming.rawHeaders, [PREVIEW_ERROR, "transfer-encoding"]);
    try {
      response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, headers);
    } catch {
      return refuse();
    }
    response.flushHeaders();
    incoming.on("error", () => response.destroy());
    incoming.pipe(response);
  });
  response.on("close", () => {
    passed.destroy();
    // The rest of a request that the program did not read would block the connection's next request.
    request.unpipe(passed);
    request.resume();
  });
  request.pipe(passed);
}

export async function passUpgrade(
  port: number,
  request: IncomingMessage,
  client: Duplex,
  head: Buffer,
): Promise<void> {
  const socket = await dial(port);
  if (!socket)
    return void client.end(
      `HTTP/1.1 502 Bad Gateway\r\n${PREVIEW_ERROR}: refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`,
    );
  if (client.destroyed) return void socket.destroy();
  const headers = [...forwardedHeaders(request.rawHeaders, PLATFORM_HEADERS), "connection", "Upgrade"];
  const lines = headers.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${headers[at + 1]}`] : []));
  socket.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`, "latin1");
  socket.write(head);
  const timer = setTimeout(() => socket.destroy(), PREVIEW_RESPONSE_MS);
  socket.once("data", () => clearTimeout(timer)).once("close", () => clearTimeout(timer));
  splice(client, socket);
}

const TLS_MS = 1000;

async function problemOf(port: number, error: Error): Promise<PreviewError> {
  if (await speaksTLS(port)) return "tls";
  return codeOf(error)?.startsWith("HPE_") ? "foreign" : "broken";
}

async function speaksTLS(port: number): Promise<boolean> {
  const socket = await dial(port);
  if (!socket) return false;
  const secure = connectTLS({ socket, rejectUnauthorized: false });
  const timer = setTimeout(() => secure.destroy(), TLS_MS);
  return await new Promise<boolean>((resolve) => {
    secure
      .on("secureConnect", () => resolve(true))
      // A TLS server that refuses the handshake sends a TLS alert.
      .on("error", (error) => resolve(codeOf(error)?.includes("_ALERT_") === true))
      .on("close", () => resolve(false));
  }).finally(() => {
    clearTimeout(timer);
    secure.destroy();
  });
}

async function dial(port: number): Promise<Socket | undefined> {
  const socket = await connectToPort(port);
  if (socket) open.add(socket);
  return socket?.once("close", () => open.delete(socket));
}

/** The headers to forward, as alternating names and values. @param also more names to drop, in lower case */
function forwardedHeaders(raw: readonly string[], also: readonly string[] = []): string[] {
  const isKept = (name = "") => !HOP_BY_HOP.has(name.toLowerCase()) && !also.includes(name.toLowerCase());
  return raw.filter((_, at) => isKept(raw[at - (at % 2)]));
}
