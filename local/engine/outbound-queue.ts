/**
 * Passes intercepted requests to the Worker, and the responses back, without buffering. workerd reads the bytes of headers as
 * UTF-8, and Node reads them as Latin-1, so this file converts the headers.
 */
import { type ClientRequest, type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type Duplex, pipeline, Transform } from "node:stream";
import {
  ABANDONED_HEADER,
  FRAME_HEAD_BYTES,
  OUTBOUND_HEADER,
  type OutboundRequest,
  type OutboundResponse,
} from "../platform/engine-protocol.ts";
import { REQUEST_PROBLEMS, WORKER_PROBLEMS } from "./texts.ts";

/** How long a request waits for a poll, in milliseconds. Meanwhile, the Worker may start, reload, or wake the actor. */
const forwardTimeoutMs = 30_000;
/** After this time, in milliseconds, a poll without a request ends, so that connections do not become stale. */
const pollMs = 60_000;
/**
 * How long a request waits for a response, in milliseconds: longer than any API takes. There is a limit because a restarted
 * Worker never responds to requests from before its restart.
 */
const responseMs = 15 * 60_000;
/** The longest description of a request, in bytes. It is sent in one header, and workerd allows 128 KiB for all headers. */
const maxDescription = 98_304;
/** Node's client drops all names and values in `rawHeaders` beyond this number. Node's server refuses such requests with 431. */
const maxRawHeaders = 2000;

interface Pending {
  number: number;
  description: string;
  hasBody: boolean;
  request: IncomingMessage;
  response: ServerResponse;
  timer: NodeJS.Timeout;
  poller?: string;
  hasResponse?: boolean;
}

export class OutboundQueue {
  readonly #waiting = new Set<Pending>();
  readonly #forwarded = new Map<number, Pending>();
  /** Forwarded requests whose clients have disconnected. The response to the next poll lists them, so that the Worker ends its own. */
  readonly #abandoned: number[] = [];
  #poll: { response: ServerResponse; timer: NodeJS.Timeout } | undefined;
  #poller = "";
  #next = 1;
  #isClosed = false;

  forward(request: IncomingMessage, response: ServerResponse, url: URL, pattern: string): void {
    // Workers cannot send a GET body, and some clients announce an empty one.
    const hasBody =
      Number(request.headers["content-length"] ?? 0) > 0 ||
      request.headers["transfer-encoding"] !== undefined;
    const number = this.#next++;
    const method = request.method ?? "GET";
    const headers = endToEndHeaders(request.rawHeaders).map(([name, value]): [string, string] => [
      name,
      Buffer.from(value, "latin1").toString("utf8"),
    ]);
    const outbound: OutboundRequest = { number, method, url: url.href, headers, hasBody, pattern };
    const description = Buffer.from(JSON.stringify(outbound)).toString("base64");
    if (description.length > maxDescription) return refuseRequest(response, 431, WORKER_PROBLEMS.largeHead);
    const timer = setTimeout(() => refuseRequest(response, 502, WORKER_PROBLEMS.notTaken), forwardTimeoutMs);
    const pending: Pending = { number, description, hasBody, request, response, timer };
    response.on("close", () => {
      clearTimeout(pending.timer);
      this.#waiting.delete(pending);
      if (!this.#forwarded.delete(number) || pending.hasResponse) return;
      this.#abandoned.push(number);
      this.#release(204);
    });
    this.#waiting.add(pending);
    this.#match();
  }

  /** The Worker polls for the next request. @param poller different for each actor; a new poller replaces the previous one */
  poll(poller: string, response: ServerResponse): void {
    // The actor may have disconnected while the sandbox was starting.
    if (response.destroyed) return;
    if (this.#isClosed) {
      response.writeHead(404).end();
      return;
    }
    this.#release(204);
    this.#poller = poller;
    for (const pending of this.#forwarded.values()) {
      if (pending.poller === poller) continue;
      clearTimeout(pending.timer);
      this.#forwarded.delete(pending.number);
      refuseRequest(pending.response, 502, WORKER_PROBLEMS.interrupted);
    }
    const timer = setTimeout(() => this.#release(204), pollMs);
    this.#poll = { response, timer };
    response.on("close", () => {
      if (this.#poll?.response !== response) return;
      clearTimeout(timer);
      this.#poll = undefined;
    });
    this.#match();
  }

  respond(number: number, request: IncomingMessage, response: ServerResponse): void {
    const pending = this.#forwarded.get(number);
    const described = parseResponse(request.headers[OUTBOUND_HEADER]);
    const isGone = pending === undefined || pending.response.destroyed;
    if (isGone || described === undefined) {
      // Usually the process in the sandbox has disconnected. The end of this connection also ends the Worker's own request.
      response.writeHead(isGone ? 410 : 400, { connection: "close" }).end();
      request.destroy();
      return;
    }
    clearTimeout(pending.timer);
    const to = pending.response;
    const isSecond = pending.hasResponse;
    pending.hasResponse = true;
    if (isSecond || !writeHead(to, described)) {
      refuseRequest(to, 502, WORKER_PROBLEMS.notHTTP);
      response.writeHead(400, { connection: "close" }).end();
      request.destroy();
      return;
    }
    // `pipeline` alone listens seven times for "close", and Node would warn at more than ten listeners.
    to.setMaxListeners(20);
    // If one stream fails, all of them end: the client's response breaks off, and the Worker stops sending. `pipeline` does not
    // read the rest of a failed request. The next request on this connection, perhaps of another principal, would wait behind the
    // rest. So the connection closes.
    pipeline(request, unframe(), to, (error) =>
      error ? response.writeHead(502, { connection: "close" }).end() : response.writeHead(204).end(),
    );
  }

  close(): void {
    this.#isClosed = true;
    this.#release(404);
    const ended = [...this.#waiting, ...this.#forwarded.values()];
    this.#forwarded.clear();
    for (const pending of ended) {
      clearTimeout(pending.timer);
      pending.response.destroy();
    }
  }

  #match(): void {
    if (this.#abandoned.length > 0) return this.#release(204);
    const poll = this.#poll;
    if (poll === undefined) return;
    const [pending] = this.#waiting;
    if (pending === undefined) return;
    this.#waiting.delete(pending);
    this.#poll = undefined;
    clearTimeout(poll.timer);
    clearTimeout(pending.timer);
    const { number, description, hasBody, request, response } = pending;
    pending.poller = this.#poller;
    this.#forwarded.set(number, pending);
    pending.timer = setTimeout(() => refuseRequest(response, 504, WORKER_PROBLEMS.silent), responseMs);
    poll.response.writeHead(200, {
      [OUTBOUND_HEADER]: description,
      "content-type": "application/octet-stream",
    });
    poll.response.flushHeaders();
    if (hasBody) request.pipe(poll.response);
    else poll.response.end();
    // The client has disconnected, or got its response before its request ended.
    response.on("close", () => {
      if (!poll.response.writableFinished) poll.response.destroy();
    });
  }

  #release(status: number): void {
    const poll = this.#poll;
    this.#poll = undefined;
    if (poll === undefined) return;
    clearTimeout(poll.timer);
    poll.response.writeHead(status, { [ABANDONED_HEADER]: this.#abandoned.splice(0).join(",") }).end();
  }
}

/** Extracts the body of an `OutboundResponse` from its frames. Fails without the final frame. */
function unframe(): Transform {
  let head = Buffer.alloc(0);
  let bytesLeft = 0;
  let isWhole = false;
  return new Transform({
    transform(bytes: Buffer, _encoding, callback) {
      for (let rest = bytes; rest.length > 0;) {
        if (bytesLeft > 0) {
          const piece = rest.subarray(0, bytesLeft);
          this.push(piece);
          bytesLeft -= piece.length;
          rest = rest.subarray(piece.length);
          continue;
        }
        const missing = FRAME_HEAD_BYTES - head.length;
        head = Buffer.concat([head, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (head.length < FRAME_HEAD_BYTES) break;
        bytesLeft = head.readUInt32BE();
        isWhole = bytesLeft === 0;
        head = Buffer.alloc(0);
      }
      callback();
    },
    flush: (done) => done(isWhole ? null : new Error(REQUEST_PROBLEMS.partial)),
  });
}

/** Responds with a reason. If a response has begun, it breaks off instead. */
export function refuseRequest(response: ServerResponse, status: number, reason: string): void {
  if (response.headersSent) return void response.destroy();
  const body = `sandbox-mcp: ${reason}.\n`;
  // Node may have stored the length of a response that it then refused to write.
  response.writeHead(status, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}

function writeHead(response: ServerResponse, { status, headers }: OutboundResponse): boolean {
  try {
    response.writeHead(status, headers.flat());
  } catch {
    return false;
  }
  sendHead(response);
  return true;
}

/**
 * Sends headers before the body. `flushHeaders` writes non-ASCII characters as UTF-8 instead of the received bytes. Does nothing
 * for a response that has ended, because a write would be an error event without a listener.
 */
export function sendHead(response: ServerResponse): void {
  if (!response.writableEnded) response.write(Buffer.alloc(0));
}

function parseResponse(header: string | string[] | undefined): OutboundResponse | undefined {
  if (typeof header !== "string") return undefined;
  const { status, headers }: OutboundResponse = JSON.parse(Buffer.from(header, "base64").toString("utf8"));
  const latin1 = headers.map(([name, value]): [string, string] => [
    name,
    Buffer.from(value, "utf8").toString("latin1"),
  ]);
  return { status, headers: latin1.filter(([name]) => !hopByHop.has(name.toLowerCase())) };
}

const hopByHop = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** `Transfer-Encoding` shows where a body ends. Without it, a server would read the body of a GET or DELETE as the next request. */
export function framingHeaders({ headers }: IncomingMessage): [string, string][] {
  return headers["transfer-encoding"] === undefined ? [] : [["Transfer-Encoding", "chunked"]];
}

export function onUnexpectedResponse(upstream: ClientRequest, refuse: () => void): void {
  upstream.on("upgrade", (_incoming, switched) => {
    switched.destroy();
    refuse();
  });
}

/**
 * Streams a response. Its headers are sent with the first bytes. Returns false, and sends nothing, for a response that cannot be
 * forwarded:
 * - a protocol change that was not requested;
 * - a transfer coding, which would be lost;
 * - more headers than Node reads: one that Node drops may say how the body is coded;
 * - a response that Node reads but refuses to write, for example with status 0 or control characters in the reason.
 */
export function streamResponse(incoming: IncomingMessage, response: ServerResponse): boolean {
  const coding = incoming.headers["transfer-encoding"] ?? "chunked";
  if (incoming.statusCode === 101 || !/^(?:chunked|identity)$/i.test(coding)) return false;
  if (incoming.rawHeaders.length >= maxRawHeaders) return false;
  const headers = endToEndHeaders(incoming.rawHeaders).flat();
  try {
    response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, headers);
  } catch {
    // Resets the reason, because Node would use it in the response that is sent instead.
    response.statusMessage = "";
    return false;
  }
  const head = setImmediate(() => sendHead(response));
  incoming.pipe(response);
  for (const event of ["data", "end"]) incoming.once(event, () => clearImmediate(head));
  incoming.on("error", () => {
    if (!response.writableEnded) response.destroy();
  });
  return true;
}

/**
 * Ends a connection whose program was refused. Drops what the program has sent more, so that its end is noticed.
 */
export function endRefused(socket: Duplex, last?: string | Buffer): void {
  socket.resume().end(last);
}

/**
 * Closes a connection at its end, until the returned function is called. WebSocket clients do not close one direction before
 * their WebSocket begins. Without this, the connection of a disconnected client would stay open until the server writes or closes.
 */
export function closeAtEnd(client: Duplex): () => void {
  const close = () => void client.destroy();
  if (client.readableEnded) close();
  client.once("end", close);
  return () => void client.off("end", close);
}

/**
 * Passes on the response of a server that refuses an upgrade. Node's server has given the connection up, so it neither resumes the
 * response when the client has read a part of it, nor notices the client's end.
 */
export function declineUpgrade(incoming: IncomingMessage, request: IncomingMessage, socket: Duplex): boolean {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  try {
    response.assignSocket(socket as Socket);
  } catch {
    // The client has not read the previous response yet.
    return false;
  }
  socket.on("drain", () => response.emit("drain")).resume();
  response.on("finish", () => endRefused(socket));
  return streamResponse(incoming, response);
}

/**
 * Removes connection-specific headers (RFC 9110, 7.6.1). Keeps Content-Length even if the Connection header lists it. Without
 * Content-Length, a server would read the body of a DELETE as the next request.
 */
export function endToEndHeaders(raw: string[], keep: ReadonlySet<string> = new Set()): [string, string][] {
  const pairs: [string, string][] = [];
  for (let index = 0; index + 1 < raw.length; index += 2)
    pairs.push([raw[index] ?? "", raw[index + 1] ?? ""]);
  const connection = pairs.filter(([name]) => name.toLowerCase() === "connection").map(([, value]) => value);
  const listed = connection.join(",").toLowerCase().split(",");
  const dropped = new Set([...hopByHop, ...listed.map((name) => name.trim())]);
  dropped.delete("content-length");
  return pairs.filter(([name]) => keep.has(name.toLowerCase()) || !dropped.has(name.toLowerCase()));
}
