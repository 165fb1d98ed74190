/** The way out of one sandbox: an HTTP proxy on a unix socket that only this sandbox has. */
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Duplex } from "node:stream";
import { matchesHost, type Intercepts } from "../platform/protocol.ts";
import { endToEndHeaders, type OutboundQueue, passOn } from "./outbound.ts";
import { Turns } from "./turns.ts";
import { connectUpstream, Refusal, Unreachable, type UpstreamOptions } from "./upstream.ts";

/**
 * Connections a sandbox may hold open to the proxy. Each takes up to two file descriptors of the engine's, which all
 * sandboxes share, and each may wait with a head and the beginning of a body.
 */
const maxConnections = 128;
const maxHeadBytes = 32_768;

export interface Egress {
  intercepts: Intercepts;
  /** False: only intercepts are answered. The reason is part of the refusal. */
  internet: { allowed: true } | { allowed: false; reason: string };
  queue: OutboundQueue;
  upstream: UpstreamOptions;
}

/**
 * Speaks three dialects: proxy requests (absolute form), tunnels (CONNECT), and requests in origin form that
 * came to the sandbox's own port 80 for a host that `/etc/hosts` sends there.
 */
export function createEgress(egress: Egress): Server {
  const server = createServer({
    requestTimeout: 0,
    headersTimeout: 30_000,
    keepAliveTimeout: 60_000,
    maxHeaderSize: maxHeadBytes,
  });
  server.maxConnections = maxConnections;
  const turns = new Turns(server);
  server.on("request", (request, response) => {
    if (turns.takes(request, response)) void answer(egress, turns, request, response);
  });
  server.on("connect", async (request, socket, head) => {
    socket.on("error", () => undefined);
    if (await turns.wait(socket, "direct")) await tunnel(egress, server, request, socket, head);
  });
  server.on("upgrade", async (request, socket, head) => {
    socket.on("error", () => undefined);
    if (await turns.wait(socket, "direct")) await upgrade(egress, request, socket, head);
  });
  server.on("clientError", (_error, socket) => socket.destroy());
  return server;
}

async function answer(
  egress: Egress,
  turns: Turns,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = target(request);
  if (url === undefined) return refuse(response, 400, "this request names no host");
  const host = hostOf(url);
  const pattern = interceptFor(egress.intercepts, host);
  if (!(await turns.wait(request.socket, pattern === undefined ? "direct" : "intercepted"))) return;
  if (pattern !== undefined) return egress.queue.hand(request, response, url, pattern);
  await sendByTheRules(egress, request, response, url, endToEndHeaders(request.rawHeaders));
}

/** Sends a request to the internet, or answers why not. */
export async function sendByTheRules(
  egress: Egress,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  headers: [string, string][],
): Promise<void> {
  if (!egress.internet.allowed)
    return refuse(response, 403, `${url.host} is not reachable: ${egress.internet.reason}`);
  try {
    await sendUpstream(egress.upstream, request, response, url, headers);
  } catch (error) {
    refuse(response, ...failure(error));
  }
}

/** Sends a plain HTTP request to its host, if that is allowed, and streams the answer. @throws Refusal, Unreachable */
async function sendUpstream(
  options: UpstreamOptions,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  headers: [string, string][],
): Promise<void> {
  const socket = await connectUpstream(hostOf(url), portOf(url), options);
  const others = headers.filter(([name]) => name.toLowerCase() !== "host");
  await new Promise<void>((resolve, reject) => {
    const upstream = httpRequest({
      createConnection: () => socket,
      method: request.method,
      path: url.pathname + url.search,
      // The Host header is set from the URL, because the URL's host is what was checked.
      headers: ["Host", url.host, ...others.flat(), "Connection", "close"],
    });
    // A socket on which a tunnel was negotiated is paused.
    upstream.on("socket", (connected) => connected.resume());
    upstream.on("response", (incoming) => {
      if (passOn(incoming, response)) return resolve();
      upstream.destroy();
      reject(new Unreachable(`${url.host} gave an answer that is no HTTP`));
    });
    upstream.on("error", (error) => {
      if (response.headersSent) response.destroy();
      reject(new Unreachable(`${url.host} broke off the connection (${error.message})`));
    });
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  });
}

async function tunnel(
  egress: Egress,
  server: Server,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const authority = request.url ?? "";
  const url = URL.canParse(`http://${authority}`) ? new URL(`http://${authority}`) : undefined;
  if (url === undefined) return refuseTunnel(socket, 400, "this tunnel names no host");
  const host = hostOf(url);
  // Some clients tunnel plain HTTP as well. What is inside such a tunnel is a request in origin form.
  if (portOf(url) !== 443 && interceptFor(egress.intercepts, host) !== undefined) {
    socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
    if (head.length > 0) socket.unshift(head);
    server.emit("connection", socket);
    return;
  }
  if (egress.intercepts.https.some((pattern) => matchesHost(pattern, host))) {
    return refuseTunnel(
      socket,
      403,
      `${host} is intercepted by the server, which the local platform does for http only`,
    );
  }
  if (!egress.internet.allowed) {
    return refuseTunnel(socket, 403, `${url.host} is not reachable: ${egress.internet.reason}`);
  }
  try {
    const upstream = await connectUpstream(host, portOf(url), egress.upstream);
    socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
    if (head.length > 0) upstream.write(head);
    join(socket, upstream);
  } catch (error) {
    refuseTunnel(socket, ...failure(error));
  }
}

/** A WebSocket over plain HTTP. */
async function upgrade(
  egress: Egress,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const url = target(request);
  if (url === undefined) return refuseTunnel(socket, 400, "this request names no host");
  const intercepted = interceptFor(egress.intercepts, hostOf(url)) !== undefined;
  if (intercepted)
    return refuseTunnel(socket, 501, `${url.host} is answered by the server, which takes no upgrades`);
  if (!egress.internet.allowed) {
    return refuseTunnel(socket, 403, `${url.host} is not reachable: ${egress.internet.reason}`);
  }
  try {
    const upstream = await connectUpstream(hostOf(url), portOf(url), egress.upstream);
    const headers = endToEndHeaders(request.rawHeaders, new Set(["connection", "upgrade"]));
    const lines = headers
      .filter(([name]) => name.toLowerCase() !== "host")
      .map(([name, value]) => `${name}: ${value}`);
    upstream.write(`${request.method} ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\n`);
    upstream.write(`${lines.join("\r\n")}\r\n\r\n`);
    upstream.write(head);
    join(socket, upstream);
  } catch (error) {
    refuseTunnel(socket, ...failure(error));
  }
}

/** The absolute URL of a request in either form. A URL parser writes 0x7f.1, 2130706433 and 127.0.0.1. alike. */
function target(request: IncomingMessage): URL | undefined {
  const path = request.url ?? "/";
  const absolute = path.startsWith("/") ? `http://${request.headers.host ?? ""}${path}` : path;
  if (!URL.canParse(absolute)) return undefined;
  const url = new URL(absolute);
  return url.protocol === "http:" || url.protocol === "ws:" ? url : undefined;
}

/** Lower case, without brackets and without the dot that ends an absolute name. */
export function hostOf(url: URL): string {
  return url.hostname
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
}

export function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "https:" || url.protocol === "wss:" ? 443 : 80;
}

/** The pattern that matches a host, null for the catch-all, undefined when the request is not intercepted. */
function interceptFor(intercepts: Intercepts, host: string): string | null | undefined {
  const exact = intercepts.http.find((pattern) => pattern === host);
  return (
    exact ??
    intercepts.http.find((pattern) => matchesHost(pattern, host)) ??
    (intercepts.all ? null : undefined)
  );
}

function failure(error: unknown): [status: number, reason: string] {
  if (error instanceof Refusal) return [403, `${error.message}, which a sandbox may not reach`];
  return [502, error instanceof Error ? error.message : String(error)];
}

function refuse(response: ServerResponse, status: number, reason: string): void {
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" });
  response.end(`sandbox-mcp: ${reason}.\n`);
}

/** The reason goes into the status line too: most clients show that and drop the body. */
function refuseTunnel(socket: Duplex, status: number, reason: string): void {
  const plain = `sandbox-mcp: ${reason}`.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
  const body = `sandbox-mcp: ${reason}.\n`;
  socket.end(
    `HTTP/1.1 ${status} ${plain}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

/** Pipes two connections into each other until both ends are done. */
export function join(a: Duplex, b: Duplex): void {
  a.pipe(b);
  b.pipe(a);
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
  }
}
