/** A sandbox's HTTP proxy, which listens only inside the sandbox. All the sandbox's connections to the internet use it. */
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type { Connection, ConnectionLog } from "../../src/shared/connection-log.ts";
import {
  ALLOWED_PORTS,
  type NetworkPolicy,
  allowsHost,
  allowsPackages,
} from "../../src/shared/network-policy.ts";
import { splice } from "../../container/sandboxd/splice.ts";
import type { CertificateAuthority } from "./authority.ts";
import { passThrough } from "./buffered-socket.ts";
import { NO_HELLO, problemWithTLS } from "./client-hello.ts";
import { matchesHost, type Intercepts } from "../platform/engine-protocol.ts";
import {
  closeAtEnd,
  endRefused,
  endToEndHeaders,
  framingHeaders,
  onUnexpectedResponse,
  type OutboundQueue,
  refuseRequest,
  sendHead,
  streamResponse,
} from "./outbound-queue.ts";
import { drainAfter } from "./request-ends.ts";
import {
  closeSignal,
  connectUpstream,
  isRegistry,
  noteFailure,
  refusedUnresolved,
  startTLS,
  Unreachable,
  type UpstreamOptions,
} from "./upstream.ts";
import { passWebSocket } from "./web-socket.ts";
import { HOST_PROBLEMS, NO_INTERNET, NOT_ALLOWED, OTHER_PORT, REFUSALS } from "./texts.ts";

const maxHeadBytes = 32_768;
/** The most requests of a connection. Node would keep any number of those that a program sends before it reads responses. */
const maxRequests = 100;
/** TLS's fatal alert unrecognized_name (RFC 8446, 6.2), for a refused server name. */
const unrecognizedName = Buffer.from([21, 3, 3, 0, 2, 2, 112]);

export interface Egress {
  intercepts: Intercepts;
  /** If the internet is not allowed, only intercepted requests are served. The refusal contains the reason. */
  internet: { allowed: true } | { allowed: false; reason: string };
  policy: NetworkPolicy;
  connections: ConnectionLog;
  queue: OutboundQueue;
  upstream: UpstreamOptions;
  authority: CertificateAuthority | undefined;
}

/** Handles proxy requests (absolute form), tunnels (CONNECT), and requests to port 80 for hosts in `/etc/hosts` (origin form). */
export function createEgress(egress: Egress): Server {
  const server = createServer({
    requestTimeout: 0,
    headersTimeout: 30_000,
    keepAliveTimeout: 60_000,
    maxHeaderSize: maxHeadBytes,
    // `respond` gives a reason, which Node would not give.
    requireHostHeader: false,
  });
  server.maxRequestsPerSocket = maxRequests;
  server.on("request", (request, response) => {
    drainAfter(request, response);
    closeOnFailure(request.socket, respond(egress, request, response));
  });
  // The host decides about expectations (RFC 9110, 10.1.1).
  server.on("checkExpectation", (request, response) => server.emit("request", request, response));
  server.on("connect", (request, socket, head) => {
    socket.on("error", () => undefined);
    closeOnFailure(socket, tunnel(egress, server, request, socket, head));
  });
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => undefined);
    closeOnFailure(socket, upgrade(egress, request, socket, head));
  });
  server.on("clientError", (_error, socket) => socket.destroy());
  return server;
}

/** Closes a connection whose handling fails unexpectedly, for example because the engine has no free file descriptors. */
function closeOnFailure(socket: Duplex, handling: Promise<void>): void {
  handling.catch(() => socket.destroy());
}

async function respond(egress: Egress, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = target(request);
  const mismatch = url === undefined ? undefined : tunnelMismatch(request, url);
  const pattern = url === undefined ? undefined : interceptFor(egress.intercepts, url);
  if (url === undefined) return refuseRequest(response, 400, REFUSALS.noHost);
  // Node decodes only the coding chunked. Any other coding would be lost, because a transfer coding applies to one connection.
  if (!/^chunked$/i.test(request.headers["transfer-encoding"] ?? "chunked"))
    return refuseRequest(response, 501, REFUSALS.coding);
  const host = hostOf(url);
  if (mismatch !== undefined) {
    egress.connections.refuse(track(egress, request, response, url), "mismatch");
    return refuseRequest(response, 403, mismatch);
  }
  if (pattern !== undefined) {
    // If the Worker forwards this request to the internet, the request comes back to `sendWithinPolicy`, which logs it.
    const isForwarded = isIntercepted(egress.intercepts.https, host);
    const refused = isForwarded ? refusedByPolicy(egress, host, portOf(url)) : undefined;
    if (!isForwarded || refused !== undefined) track(egress, request, response, url, refused?.why);
    if (refused !== undefined) return refuseRequest(response, 403, refused.text);
    return egress.queue.forward(request, response, url, pattern);
  }
  await sendWithinPolicy(egress, request, response, url, endToEndHeaders(request.rawHeaders));
}

/** Sends a request to the internet, or explains the refusal. @param secret the names of the secrets in the request */
export async function sendWithinPolicy(
  egress: Egress,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  headers: [string, string][],
  secret?: string,
): Promise<void> {
  const refused = refusedByPolicy(egress, hostOf(url), portOf(url));
  const entry = track(egress, request, response, url, refused?.why);
  if (secret !== undefined) entry.secret = secret;
  if (refused !== undefined) return refuseRequest(response, 403, refused.text);
  if (!egress.internet.allowed)
    return refuseRequest(response, 403, REFUSALS.unreachable(url.host, egress.internet.reason));
  try {
    await sendUpstream(egress, request, response, url, headers, entry);
  } catch (error) {
    refuseRequest(response, ...noteFailure(egress.connections, entry, error));
  }
}

async function sendUpstream(
  egress: Egress,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  headers: [string, string][],
  entry: Connection,
): Promise<void> {
  const closed = closeSignal(response);
  const plain = await connectUpstream(hostOf(url), portOf(url), egress.upstream, closed);
  const socket =
    url.protocol === "https:" ? await startTLS(plain, hostOf(url), egress.upstream, closed) : plain;
  const others = headers.filter(([name]) => name.toLowerCase() !== "host");
  await new Promise<void>((resolve, reject) => {
    const upstream = httpRequest({
      createConnection: () => socket,
      method: request.method,
      path: url.pathname + url.search,
      // The Host header comes from the URL, because the URL's host was checked.
      headers: ["Host", url.host, ...others.flat(), ...framingHeaders(request).flat(), "Connection", "close"],
    });
    const refuseResponse = () => {
      upstream.destroy();
      reject(new Unreachable(HOST_PROBLEMS.notHTTP(url.host)));
    };
    // `readHead` has paused the socket of a tunnel.
    upstream.on("socket", (connected) => void connected.resume());
    let receivedHead: IncomingMessage | undefined;
    upstream.on("response", (incoming) => {
      // The host may send a second response together with a refused one.
      if (upstream.destroyed) return;
      receivedHead = incoming;
      // The length of a compressed response is not logged, because it could reveal a secret. A response that repeats the secret
      // and a program's guess is shorter for a correct guess.
      if (entry.secret !== undefined && incoming.headers["content-encoding"] !== undefined)
        response.once("close", () => (entry.bytes = 0));
      if (!streamResponse(incoming, response)) return refuseResponse();
      passBody(socket, incoming, response);
      resolve();
    });
    onUnexpectedResponse(upstream, refuseResponse);
    upstream.on("error", (error) => {
      // Data after a complete response is an error of the host. It does not concern the client.
      if (response.headersSent && receivedHead?.complete !== true) response.destroy();
      reject(new Unreachable(HOST_PROBLEMS.broke(url.host, error.message)));
    });
    closed.addEventListener("abort", () => void upstream.destroy());
    request.pipe(upstream);
  });
}

/** Forwards a body of known length to the requesting connection without Node's parser, which copies it. */
function passBody(from: Socket, incoming: IncomingMessage, response: ServerResponse): void {
  const { socket: to } = response;
  const { "content-length": length, "transfer-encoding": coding } = incoming.headers;
  if (to === null || length === undefined || coding !== undefined) return;
  let left = Number(length);
  incoming.on("data", (piece: Buffer) => (left -= piece.length));
  // A response without a body, such as one to HEAD, is complete after its headers, even if they announce a length.
  const isReady = () => !incoming.complete && incoming.readableLength === 0;
  passThrough(from, to, isReady, (bytes, written) => {
    // The headers may not have been sent yet, because they wait for the body.
    sendHead(response);
    const taken = bytes.subarray(0, left);
    left -= taken.length;
    to.write(taken, written);
    if (left > 0) return;
    incoming.unpipe(response);
    response.end();
    from.destroy();
  });
}

/** Why the sandbox's policy refuses a connection; undefined if the policy allows it. Resolves no names. */
function refusedByPolicy(
  { policy, upstream }: Egress,
  host: string,
  port: number,
): { why: "policy" | "address"; text: string } | undefined {
  const text = policyRefusalText(policy, upstream, host, port);
  if (text === undefined) return undefined;
  const reason = refusedUnresolved(host, port, upstream);
  return reason === undefined ? { why: "policy", text } : { why: "address", text: `${host} is ${reason}` };
}

function policyRefusalText(
  policy: NetworkPolicy,
  upstream: UpstreamOptions,
  host: string,
  port: number,
): string | undefined {
  if (policy.internet === "full") return undefined;
  if (policy.internet === "none") return REFUSALS.unreachable(host, NO_INTERNET);
  if (allowsPackages(policy) && isRegistry(host, port, upstream)) return undefined;
  if (!allowsHost(policy, host)) return REFUSALS.unreachable(host, NOT_ALLOWED);
  return ALLOWED_PORTS.has(port) ? undefined : REFUSALS.unreachable(`${host}:${port}`, OTHER_PORT);
}

/** The logged status if the client disconnected before the response, as in nginx. */
const clientClosed = 499;

function track(
  { connections }: Egress,
  { method = "-", socket }: IncomingMessage,
  response: ServerResponse,
  url: URL,
  refused?: Connection["refused"],
): Connection {
  const entry: Connection = { at: Date.now(), host: hostOf(url), port: portOf(url), method, bytes: 0 };
  const added = connections.add(refused === undefined ? entry : { ...entry, refused });
  const before = socket.bytesWritten;
  response.on("close", () => {
    added.status = response.headersSent ? response.statusCode : clientClosed;
    added.bytes = socket.bytesWritten - before;
  });
  return added;
}

/** The targets of inspected tunnels, as `host:port`. */
const tunnelTargets = new WeakMap<Duplex, string>();

function tunnelMismatch({ socket }: IncomingMessage, url: URL): string | undefined {
  const to = tunnelTargets.get(socket);
  const named = `${hostOf(url)}:${portOf(url)}`;
  return to === undefined || to === named ? undefined : REFUSALS.elsewhere(to, named);
}

async function tunnel(
  egress: Egress,
  server: Server,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const url = URL.parse(`http://${request.url ?? ""}`) ?? undefined;
  if (url === undefined) return refuseTunnel(socket, 400, REFUSALS.noTunnelHost);
  const host = hostOf(url);
  const port = portOf(url);
  const isIntercept = port !== 443 && interceptFor(egress.intercepts, url) !== undefined;
  // The policy does not apply to hosts that the Worker itself serves.
  const isForwarded = !isIntercept || isIntercepted(egress.intercepts.https, host);
  const forbidden = isForwarded ? refusedByPolicy(egress, host, port) : undefined;
  const nested = { why: "mismatch", text: REFUSALS.nested } as const;
  const refused = tunnelTargets.has(socket) ? nested : forbidden;
  const entry: Connection = { at: Date.now(), host, port, method: "CONNECT", bytes: 0 };
  // Some clients also send plain HTTP through a tunnel.
  if (refused === undefined && isIntercept) return serveRequests(server, socket, head, entry);
  if (refused === undefined && port === 443 && isIntercepted(egress.intercepts.https, host)) {
    await terminateTLS(egress, server, socket, head, entry);
    return;
  }
  const added = egress.connections.add(refused === undefined ? entry : { ...entry, refused: refused.why });
  if (refused !== undefined) return refuseTunnel(socket, 403, refused.text);
  const isUnrestricted = egress.policy.internet === "full";
  if (!isUnrestricted && port === 80 && egress.internet.allowed) {
    added.status = 200;
    return serveRequests(server, socket, head, entry);
  }
  const upstream = await connectFor(socket, egress, url, added);
  if (upstream === undefined) return;
  added.status = 200;
  socket.write(tunnelEstablished);
  const problem = isUnrestricted ? undefined : await problemWithTLS(host, socket, head);
  if (problem !== undefined) {
    upstream.destroy();
    return endWithoutTLS(egress, socket, added, problem);
  }
  // The host may have disconnected during the check. Then its stream emits no more events, and the client would wait without end.
  if (upstream.destroyed) return void socket.destroy();
  if (isUnrestricted && head.length > 0) upstream.write(head);
  splice(socket, upstream);
  passThrough(upstream, socket);
}

async function connectFor(
  socket: Duplex,
  egress: Egress,
  url: URL,
  entry: Connection,
): Promise<Socket | undefined> {
  const refuseWith = (status: number, reason: string) => {
    // A client that disconnected was not refused.
    entry.status = socket.destroyed ? clientClosed : status;
    refuseTunnel(socket, status, reason);
    return undefined;
  };
  const { internet } = egress;
  if (!internet.allowed) return refuseWith(403, REFUSALS.unreachable(url.host, internet.reason));
  try {
    const upstream = await connectUpstream(hostOf(url), portOf(url), egress.upstream, closeSignal(socket));
    upstream.on("error", () => undefined);
    for (const event of ["end", "close"]) upstream.once(event, () => (entry.bytes = upstream.bytesRead));
    return upstream;
  } catch (error) {
    return refuseWith(...noteFailure(egress.connections, entry, error));
  }
}

function serveRequests(server: Server, socket: Duplex, head: Buffer, { host, port }: Connection): void {
  tunnelTargets.set(socket, `${host}:${port}`);
  socket.write(tunnelEstablished);
  if (head.length > 0) socket.unshift(head);
  server.emit("connection", socket);
}

/** Terminates TLS in place of the tunnel's host, and sends the requests inside the tunnel to the Worker. */
async function terminateTLS(
  egress: Egress,
  server: Server,
  socket: Duplex,
  head: Buffer,
  entry: Connection,
): Promise<void> {
  const { connections, authority } = egress;
  const { host, port } = entry;
  if (authority === undefined) return refuseTunnel(socket, 403, REFUSALS.noCertificate(host));
  socket.write(tunnelEstablished);
  const problem = await problemWithTLS(host, socket, head);
  if (problem !== undefined) return endWithoutTLS(egress, socket, connections.add(entry), problem);
  const secureContext = await authority.contextFor(host);
  if (socket.destroyed) return;
  // The type asks for a Socket, but any stream works.
  const secure = new TLSSocket(socket as Socket, {
    isServer: true,
    secureContext,
    ALPNProtocols: ["http/1.1", "http/1.0"],
  });
  tunnelTargets.set(secure, `${host}:${port}`);
  server.emit("connection", secure);
}

/** Ends a tunnel whose program sent no ClientHello for the tunnel's host. */
function endWithoutTLS({ connections }: Egress, socket: Duplex, entry: Connection, problem: string): void {
  if (problem === NO_HELLO) entry.status = clientClosed;
  else connections.refuse(entry, "mismatch");
  endRefused(socket, problem === NO_HELLO ? undefined : unrecognizedName);
}

const tunnelEstablished = "HTTP/1.1 200 Connection established\r\n\r\n";

async function upgrade(
  egress: Egress,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const url = target(request);
  if (url === undefined) return refuseTunnel(socket, 400, REFUSALS.noHost);
  if (interceptFor(egress.intercepts, url) !== undefined)
    return refuseTunnel(socket, 501, REFUSALS.noUpgrade(url.host));
  const [host, port] = [hostOf(url), portOf(url)];
  const { connections } = egress;
  const entry = connections.add({ at: Date.now(), host, port, method: request.method ?? "-", bytes: 0 });
  const refusal = refusedByPolicy(egress, host, port);
  const mismatch = tunnelMismatch(request, url);
  if (refusal !== undefined || mismatch !== undefined) {
    connections.refuse(entry, refusal?.why ?? "mismatch");
    return refuseTunnel(socket, 403, refusal?.text ?? mismatch ?? "");
  }
  const protocol = request.headers.upgrade ?? "";
  const isWebSocket = protocol.toLowerCase() === "websocket";
  // Other protocols are refused: in HTTP/2, for example, each request could name another host.
  if (!isWebSocket && egress.policy.internet !== "full" && egress.internet.allowed) {
    entry.status = 501;
    return refuseTunnel(socket, 501, REFUSALS.upgrade(protocol));
  }
  const stayOpenAtEnd = isWebSocket ? closeAtEnd(socket) : undefined;
  const upstream = await connectFor(socket, egress, url, entry);
  if (upstream === undefined) return;
  const path = url.pathname + url.search;
  if (stayOpenAtEnd !== undefined)
    return passWebSocket({
      request,
      client: socket,
      head,
      upstream,
      path,
      headers: [
        // The Host header comes from the URL, because the URL's host was checked.
        ["Host", url.host],
        ...endToEndHeaders(request.rawHeaders).filter(([name]) => !/^(host|content-length)$/i.test(name)),
      ],
      allowsExtensions: true,
      onResponse: (status) => {
        entry.status = status;
        if (status === 101) stayOpenAtEnd();
      },
      onFailure: (problem) => {
        entry.status = socket.destroyed ? clientClosed : 502;
        refuseTunnel(socket, 502, problem(url.host));
      },
    });
  // The host's response is forwarded unchecked.
  entry.status = 101;
  const kept = new Set(["connection", "upgrade", "transfer-encoding"]);
  const lines = endToEndHeaders(request.rawHeaders, kept)
    .filter(([name]) => name.toLowerCase() !== "host")
    .map(([name, value]) => `${name}: ${value}`);
  upstream.write(`${request.method} ${path} HTTP/1.1\r\nHost: ${url.host}\r\n`);
  upstream.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  upstream.write(head);
  splice(socket, upstream);
}

/** The absolute URL of a request in absolute or origin form. The URL parser changes 0x7f.1 and 2130706433 into 127.0.0.1. */
function target(request: IncomingMessage): URL | undefined {
  const path = request.url ?? "/";
  // The URL parser would take the first part of the path for the host.
  if (path.startsWith("/") && !request.headers.host) return undefined;
  const schemes = request.socket instanceof TLSSocket ? ["https:", "wss:"] : ["http:", "ws:"];
  const absolute = path.startsWith("/") ? `${schemes[0]}//${request.headers.host ?? ""}${path}` : path;
  const url = URL.parse(absolute) ?? undefined;
  return url !== undefined && schemes.includes(url.protocol) ? url : undefined;
}

/** The URL's host in lower case, without brackets and final dot. */
function hostOf(url: URL): string {
  return url.hostname
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
}

function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "https:" || url.protocol === "wss:" ? 443 : 80;
}

/** The pattern that intercepts a URL; undefined if none does. Internet hosts are intercepted only at standard ports. */
function interceptFor({ http, https }: Intercepts, url: URL): string | undefined {
  const host = hostOf(url);
  if (url.port !== "" && isIntercepted(https, host)) return undefined;
  const exact = http.find((pattern) => pattern === host);
  return exact ?? http.find((pattern) => matchesHost(pattern, host));
}

function isIntercepted(patterns: readonly string[], host: string): boolean {
  return patterns.some((pattern) => matchesHost(pattern, host));
}

/** The status line contains the reason, too, because most clients show only this line. */
function refuseTunnel(socket: Duplex, status: number, reason: string): void {
  const plain = `sandbox-mcp: ${reason}`.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
  const body = `sandbox-mcp: ${reason}.\n`;
  endRefused(
    socket,
    `HTTP/1.1 ${status} ${plain}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
