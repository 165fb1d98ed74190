/** Hands intercepted requests of one sandbox to the Worker, which asks for them one after another. */
import { type ClientRequest, type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type Duplex, pipeline, Transform } from "node:stream";
import {
  FRAME_HEAD_BYTES,
  OUTBOUND_HEADER,
  type OutboundRequest,
  type OutboundResponse,
} from "../platform/engine-protocol.ts";

/** How long an intercepted request waits for a Worker that is starting, reloading or waking an actor. */
const patienceMs = 30_000;
/** A question of the Worker's is answered with "nothing" after this long, so that no connection rots. */
const pollMs = 60_000;
/** Longer than any API takes for the head of an answer. A Worker that restarts forgets the requests that it took. */
const responseMs = 15 * 60_000;
/** Requests that the Worker has at a time. The next ones wait, each on its connection. */
const maxTaken = 16;
/** A description goes to the Worker in one header, for which workerd has 128 KiB, less the rest of the head. */
const maxDescription = 98_304;
/** Interim answers (100, 103) to one request. They are not passed on, so that a client which reads slowly holds none up. */
const maxInterim = 100;

interface Pending {
  number: number;
  /** Base64 of the JSON of an `OutboundRequest`. */
  description: string;
  hasBody: boolean;
  request: IncomingMessage;
  response: ServerResponse;
  timer: NodeJS.Timeout;
  /** Who took it. */
  taker?: string;
  hasResponse?: boolean;
}

export class OutboundQueue {
  readonly #waiting = new Set<Pending>();
  readonly #taken = new Map<number, Pending>();
  #poll: { response: ServerResponse; timer: NodeJS.Timeout } | undefined;
  /** The actor that asks, of those that followed one another. */
  #taker = "";
  #next = 1;
  #closed = false;

  /**
   * Passes a request of the sandbox's to the Worker and its answer back, both unbuffered. The bytes of headers are text in UTF-8
   * to workerd, and in Latin-1 to Node.
   */
  forward(request: IncomingMessage, response: ServerResponse, url: URL, pattern: string | null): void {
    // Nobody can send one by GET from a Worker, and some clients announce one that is empty.
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
    if (description.length > maxDescription)
      return fail(response, 431, "the head of this request is too large");
    const timer = setTimeout(() => fail(response, 502, "the Worker did not take the request"), patienceMs);
    const pending: Pending = { number, description, hasBody, request, response, timer };
    response.on("close", () => {
      clearTimeout(pending.timer);
      this.#waiting.delete(pending);
      if (this.#taken.delete(number)) this.#match();
    });
    this.#waiting.add(pending);
    this.#match();
  }

  /** The Worker asks for the next request. @param taker other for each actor: one that is followed by another is gone */
  poll(taker: string, response: ServerResponse): void {
    if (this.#closed) {
      response.writeHead(404).end();
      return;
    }
    this.#release(204);
    this.#taker = taker;
    for (const pending of this.#taken.values())
      if (pending.taker !== taker) fail(pending.response, 502, "the server was interrupted at this request");
    const timer = setTimeout(() => this.#release(204), pollMs);
    this.#poll = { response, timer };
    response.on("close", () => {
      if (this.#poll?.response !== response) return;
      clearTimeout(timer);
      this.#poll = undefined;
    });
    this.#match();
  }

  /** The Worker's answer to a request it took. */
  respond(number: number, request: IncomingMessage, response: ServerResponse): void {
    const pending = this.#taken.get(number);
    const described = parseResponse(request.headers[OUTBOUND_HEADER]);
    if (pending === undefined || described === undefined) {
      // The process in the sandbox hung up meanwhile: ending the connection ends the Worker's upstream too.
      response.writeHead(pending === undefined ? 410 : 400, { connection: "close" }).end();
      request.destroy();
      return;
    }
    clearTimeout(pending.timer);
    const to = pending.response;
    if (pending.hasResponse || !writeHead(to, described)) {
      fail(to, 502, "the server's answer is not HTTP");
      response.writeHead(400, { connection: "close" }).end();
      request.destroy();
      return;
    }
    pending.hasResponse = true;
    // Whatever fails first ends the others: a client sees that its answer breaks off, and the Worker that nobody reads on.
    pipeline(request, unframed(), to, (error) => response.writeHead(error ? 502 : 204).end());
  }

  close(): void {
    this.#closed = true;
    this.#release(404);
    for (const pending of [...this.#waiting, ...this.#taken.values()]) pending.response.destroy();
  }

  #match(): void {
    const poll = this.#poll;
    if (poll === undefined || this.#taken.size >= maxTaken) return;
    const [pending] = this.#waiting;
    if (pending === undefined) return;
    this.#waiting.delete(pending);
    this.#poll = undefined;
    clearTimeout(poll.timer);
    clearTimeout(pending.timer);
    const { number, description, hasBody, request, response } = pending;
    pending.taker = this.#taker;
    this.#taken.set(number, pending);
    pending.timer = setTimeout(() => fail(response, 504, "the Worker did not answer"), responseMs);
    poll.response.writeHead(200, {
      [OUTBOUND_HEADER]: description,
      "content-type": "application/octet-stream",
    });
    poll.response.flushHeaders();
    if (hasBody) request.pipe(poll.response);
    else poll.response.end();
    request.on("close", () => {
      if (!request.complete) poll.response.destroy();
    });
  }

  #release(status: number): void {
    const poll = this.#poll;
    this.#poll = undefined;
    if (poll === undefined) return;
    clearTimeout(poll.timer);
    poll.response.writeHead(status).end();
  }
}

/** Takes the body of an `OutboundResponse` out of its frames. Fails where the frame at the end is missing. */
function unframed(): Transform {
  /** The beginning of a frame's head. */
  let head = Buffer.alloc(0);
  let left = 0;
  let isWhole = false;
  return new Transform({
    transform(bytes: Buffer, _encoding, done) {
      for (let rest = bytes; rest.length > 0;) {
        if (left > 0) {
          const piece = rest.subarray(0, left);
          this.push(piece);
          left -= piece.length;
          rest = rest.subarray(piece.length);
          continue;
        }
        const missing = FRAME_HEAD_BYTES - head.length;
        head = Buffer.concat([head, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (head.length < FRAME_HEAD_BYTES) break;
        left = head.readUInt32BE();
        isWhole = left === 0;
        head = Buffer.alloc(0);
      }
      done();
    },
    flush: (done) => done(isWhole ? null : new Error("the answer broke off")),
  });
}

function fail(response: ServerResponse, status: number, reason: string): void {
  if (response.headersSent) return void response.destroy();
  const body = `sandbox-mcp: ${reason}.\n`;
  // An answer that Node refused to write may have left its length.
  response.writeHead(status, { "content-type": "text/plain", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

/** False when Node refuses to write what an API answered. */
function writeHead(response: ServerResponse, { status, headers }: OutboundResponse): boolean {
  try {
    response.writeHead(status, headers.flat());
  } catch {
    return false;
  }
  sendHead(response);
  return true;
}

/** Sends a head before its body. `flushHeaders` writes what is not ASCII in it as UTF-8, and not the bytes that came. */
export function sendHead(response: ServerResponse): void {
  response.write(Buffer.alloc(0));
}

function parseResponse(header: string | string[] | undefined): OutboundResponse | undefined {
  if (typeof header !== "string") return undefined;
  const value: unknown = JSON.parse(Buffer.from(header, "base64").toString("utf8"));
  if (typeof value !== "object" || value === null || !("status" in value) || !("headers" in value))
    return undefined;
  if (typeof value.status !== "number" || !Array.isArray(value.headers)) return undefined;
  const headers = value.headers.map((pair: unknown): [string, string] =>
    Array.isArray(pair)
      ? [String(pair[0]), Buffer.from(String(pair[1]), "utf8").toString("latin1")]
      : ["", ""],
  );
  return { status: value.status, headers: headers.filter(([name]) => !hopByHop.has(name.toLowerCase())) };
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

/**
 * How a body whose length is not known goes on: Node would send that of a GET or DELETE without any framing, so that its server
 * read it as the next request.
 */
export function framing({ headers }: IncomingMessage): [string, string][] {
  return headers["transfer-encoding"] === undefined ? [] : [["Transfer-Encoding", "chunked"]];
}

/** Calls `refuse` where a server switches to a protocol unasked, or sends interim answers without end. */
export function onUnexpectedResponse(upstream: ClientRequest, refuse: () => void): void {
  upstream.on("upgrade", (_incoming, switched) => {
    switched.destroy();
    refuse();
  });
  limitInterim(upstream, refuse);
}

export function limitInterim(upstream: ClientRequest, refuse: () => void): void {
  let interim = 0;
  upstream.on("information", () => {
    if (++interim > maxInterim) refuse();
  });
}

/**
 * Streams an answer on, its head with what of the body came with it. False where it is none that could be passed on, and then
 * nothing is sent: a change of the protocol, for which nobody has asked; a body in a coding of the connection's, which goes on
 * without that; and what Node reads and refuses to write, such as status 0 or a control character in the reason.
 */
export function streamResponse(incoming: IncomingMessage, response: ServerResponse): boolean {
  const coding = incoming.headers["transfer-encoding"] ?? "chunked";
  if (incoming.statusCode === 101 || !/^(?:chunked|identity)$/i.test(coding)) return false;
  const headers = endToEndHeaders(incoming.rawHeaders).flat();
  try {
    response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, headers);
  } catch {
    // It has been taken over by now, and would spoil the answer that comes instead.
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

/** Streams on an answer to a request that asked for an upgrade, and ends its connection. False where `streamResponse` says so. */
export function declineUpgrade(incoming: IncomingMessage, request: IncomingMessage, socket: Duplex): boolean {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket as Socket);
  response.on("finish", () => socket.end());
  return streamResponse(incoming, response);
}

/**
 * Header pairs without those that are about one connection (RFC 9110, 7.6.1). The length of a body is not, whoever names it in
 * `Connection`: without it Node would send that of a GET or DELETE as the next request.
 */
export function endToEndHeaders(raw: string[], keep: ReadonlySet<string> = new Set()): [string, string][] {
  const dropped = new Set(hopByHop);
  const pairs: [string, string][] = [];
  for (let index = 0; index + 1 < raw.length; index += 2)
    pairs.push([raw[index] ?? "", raw[index + 1] ?? ""]);
  for (const [name, value] of pairs) {
    if (name.toLowerCase() !== "connection") continue;
    for (const listed of value.split(",")) dropped.add(listed.trim().toLowerCase());
  }
  dropped.delete("content-length");
  return pairs.filter(([name]) => keep.has(name.toLowerCase()) || !dropped.has(name.toLowerCase()));
}
