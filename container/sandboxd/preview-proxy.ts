/**
 * Previews: passes requests on to servers in the sandbox. Most development servers listen on loopback alone, which can be
 * reached only from inside.
 */
import { type IncomingMessage, type ServerResponse, request as httpRequest } from "node:http";
import { type Socket, connect } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTLS } from "node:tls";
import { PREVIEW_ERROR, PREVIEW_PORT, type PreviewError, TOKEN_HEADER } from "./protocol.ts";

/** Where servers listen: on all addresses, or on one of loopback. */
const HOSTS = ["127.0.0.1", "::1"];

/** Headers that concern one connection only (RFC 9110, 7.6.1). Those that frame the body are passed on with the body. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  PREVIEW_PORT,
  TOKEN_HEADER,
]);

/** What the platform adds to a Worker's request, which says whose Worker it is. */
const OF_THE_PLATFORM = ["cf-worker"];

const open = new Set<Socket>();

/** The number of preview requests and WebSockets under way. */
export function openPreviews(): number {
  return open.size;
}

/** The port a request is for; undefined for one to sandboxd itself. */
export function previewPort({ headers }: IncomingMessage): number | undefined {
  const port = Number(headers[PREVIEW_PORT] ?? "none");
  return Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
}

/** Passes a request to the server on the port and its response back; 502 with `PREVIEW_ERROR` where no server answers in HTTP. */
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
    headers: [...endToEnd(request.rawHeaders, OF_THE_PLATFORM), "connection", "close"],
  });
  passed.on("error", async (error) => {
    if (response.headersSent || response.destroyed) return void response.destroy();
    response.writeHead(502, { [PREVIEW_ERROR]: await problemOf(port, error) }).end();
  });
  passed.on("response", (incoming) => {
    const headers = endToEnd(incoming.rawHeaders, [PREVIEW_ERROR, "transfer-encoding"]);
    try {
      response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, headers);
    } catch {
      return void passed.destroy();
    }
    response.flushHeaders();
    incoming.on("error", () => response.destroy());
    incoming.pipe(response);
  });
  response.on("close", () => passed.destroy());
  request.pipe(passed);
}

/** Joins a WebSocket, byte for byte, to the server on the port. */
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
  const headers = [...endToEnd(request.rawHeaders, OF_THE_PLATFORM), "connection", "Upgrade"];
  const lines = headers.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${headers[at + 1]}`] : []));
  socket.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`, "latin1");
  socket.write(head);
  for (const [one, other] of [
    [client, socket],
    [socket, client],
  ] as const) {
    one.pipe(other);
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
  }
}

/** How long a program may take to answer a first message of TLS, milliseconds. */
const TLS_MS = 1000;

/** What is wrong with a program from which no answer came: it may speak TLS, or no HTTP. */
async function problemOf(port: number, error: Error): Promise<PreviewError> {
  const isForeign = "code" in error && String(error.code).startsWith("HPE_");
  if (await speaksTLS(port)) return "tls";
  return isForeign ? "foreign" : "broken";
}

async function speaksTLS(port: number): Promise<boolean> {
  const socket = await dial(port);
  if (!socket) return false;
  const secure = connectTLS({ socket, rejectUnauthorized: false });
  const timer = setTimeout(() => secure.destroy(), TLS_MS);
  return await new Promise<boolean>((resolve) => {
    secure
      .on("secureConnect", () => resolve(true))
      // A server that refuses the offer says so in an alert of TLS.
      .on("error", (error) => resolve("code" in error && /_ALERT_/.test(String(error.code))))
      .on("close", () => resolve(false));
  }).finally(() => {
    clearTimeout(timer);
    secure.destroy();
  });
}

/** A connection to the program that listens on this port of loopback; undefined where none does. */
async function dial(port: number): Promise<Socket | undefined> {
  for (const host of HOSTS) {
    const socket = connect({ host, port, noDelay: true, allowHalfOpen: true });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    });
    if (!isOpen) continue;
    open.add(socket);
    socket.once("close", () => open.delete(socket)).on("error", () => undefined);
    return socket;
  }
  return undefined;
}

/** The headers to pass on, as alternating names and values. @param also names to leave out, in lower case */
function endToEnd(raw: readonly string[], also: readonly string[] = []): string[] {
  const isKept = (name = "") => !HOP_BY_HOP.has(name.toLowerCase()) && !also.includes(name.toLowerCase());
  return raw.filter((_, at) => isKept(raw[at - (at % 2)]));
}
