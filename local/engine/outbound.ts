/** Hands intercepted requests of one sandbox to the Worker, which asks for them one after another. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { OUTBOUND_HEADER, type OutboundRequest, type OutboundResponse } from "../platform/protocol.ts";

/** How long an intercepted request waits for a Worker that is starting, reloading or waking an actor. */
const patienceMs = 30_000;
/** A question of the Worker's is answered with "nothing" after this long, so that no connection rots. */
const pollMs = 60_000;

interface Pending {
  description: OutboundRequest;
  request: IncomingMessage;
  response: ServerResponse;
  timer: NodeJS.Timeout;
}

export class OutboundQueue {
  readonly #waiting: Pending[] = [];
  readonly #taken = new Map<number, Pending>();
  #poll: { response: ServerResponse; timer: NodeJS.Timeout } | undefined;
  #next = 1;
  #closed = false;

  /** Passes a request of the sandbox's to the Worker and its answer back, both unbuffered. */
  hand(request: IncomingMessage, response: ServerResponse, url: URL, pattern: string | null): void {
    const hasBody =
      request.headers["content-length"] !== undefined || request.headers["transfer-encoding"] !== undefined;
    const number = this.#next++;
    const method = request.method ?? "GET";
    const headers = endToEndHeaders(request.rawHeaders);
    const description = { number, method, url: url.href, headers, hasBody, pattern };
    const timer = setTimeout(() => this.#fail(pending, "the Worker did not take the request"), patienceMs);
    const pending: Pending = { description, request, response, timer };
    response.on("close", () => {
      clearTimeout(timer);
      this.#taken.delete(number);
      const index = this.#waiting.indexOf(pending);
      if (index >= 0) this.#waiting.splice(index, 1);
    });
    this.#waiting.push(pending);
    this.#match();
  }

  /** The Worker asks for the next request. */
  poll(response: ServerResponse): void {
    if (this.#closed) {
      response.writeHead(404).end();
      return;
    }
    this.#release(204);
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
  answer(number: number, request: IncomingMessage, response: ServerResponse): void {
    const pending = this.#taken.get(number);
    const described = parseResponse(request.headers[OUTBOUND_HEADER]);
    if (pending === undefined || described === undefined) {
      // The process in the sandbox hung up meanwhile: ending the connection ends the Worker's upstream too.
      response.writeHead(pending === undefined ? 410 : 400, { connection: "close" }).end();
      request.destroy();
      return;
    }
    this.#taken.delete(number);
    clearTimeout(pending.timer);
    const to = pending.response;
    to.writeHead(described.status, described.headers.flat());
    to.flushHeaders();
    request.pipe(to);
    request.on("end", () => response.writeHead(204).end());
    request.on("close", () => {
      if (!request.complete) to.destroy();
    });
    to.on("close", () => {
      if (!request.complete) request.destroy();
    });
  }

  close(): void {
    this.#closed = true;
    this.#release(404);
    for (const pending of [...this.#waiting, ...this.#taken.values()]) pending.response.destroy();
  }

  #match(): void {
    const poll = this.#poll;
    if (poll === undefined) return;
    const pending = this.#waiting.shift();
    if (pending === undefined) return;
    this.#poll = undefined;
    clearTimeout(poll.timer);
    clearTimeout(pending.timer);
    const { description, request } = pending;
    this.#taken.set(description.number, pending);
    const header = Buffer.from(JSON.stringify(description)).toString("base64");
    poll.response.writeHead(200, { [OUTBOUND_HEADER]: header, "content-type": "application/octet-stream" });
    poll.response.flushHeaders();
    if (description.hasBody) request.pipe(poll.response);
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

  #fail({ response }: Pending, reason: string): void {
    if (!response.headersSent) response.writeHead(502, { "content-type": "text/plain" });
    response.end(`sandbox-mcp: ${reason}.\n`);
  }
}

function parseResponse(header: string | string[] | undefined): OutboundResponse | undefined {
  if (typeof header !== "string") return undefined;
  const value: unknown = JSON.parse(Buffer.from(header, "base64").toString("utf8"));
  if (typeof value !== "object" || value === null || !("status" in value) || !("headers" in value))
    return undefined;
  if (typeof value.status !== "number" || !Array.isArray(value.headers)) return undefined;
  const headers = value.headers.map((pair: unknown): [string, string] =>
    Array.isArray(pair) ? [String(pair[0]), String(pair[1])] : ["", ""],
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
 * Streams an answer on, unbuffered. Node reads status lines and header values that it refuses to write, such as status
 * 0 or a control character in the reason: false for those, and nothing is sent.
 */
export function passOn(incoming: IncomingMessage, response: ServerResponse): boolean {
  const headers = endToEndHeaders(incoming.rawHeaders).flat();
  try {
    response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, headers);
  } catch {
    // It has been taken over by now, and would spoil the answer that comes instead.
    response.statusMessage = "";
    return false;
  }
  response.flushHeaders();
  incoming.pipe(response);
  incoming.on("error", () => response.destroy());
  return true;
}

/** Header pairs without those that are about one connection (RFC 9110, 7.6.1). */
export function endToEndHeaders(raw: string[], keep: ReadonlySet<string> = new Set()): [string, string][] {
  const dropped = new Set(hopByHop);
  const pairs: [string, string][] = [];
  for (let index = 0; index + 1 < raw.length; index += 2)
    pairs.push([raw[index] ?? "", raw[index + 1] ?? ""]);
  for (const [name, value] of pairs) {
    if (name.toLowerCase() !== "connection") continue;
    for (const listed of value.split(",")) dropped.add(listed.trim().toLowerCase());
  }
  return pairs.filter(([name]) => keep.has(name.toLowerCase()) || !dropped.has(name.toLowerCase()));
}
