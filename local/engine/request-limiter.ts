/**
 * Limits a sandbox's requests to its egress proxy: one at a time per connection, and a rate over all connections. The proxies of
 * all sandboxes share one thread.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Pace } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "../../src/shared/per-principal.ts";
import { SerialQueue } from "../../src/shared/queue.ts";
import { waitForPaces } from "../../src/shared/timers.ts";

/**
 * How many bytes a client may send before a request. Node ignores line ends there, and does not count them in its limit of a head.
 * Measured: 200 connections that sent only line ends made a neighbour's call take 345 instead of 26 ms.
 */
const maxBytesBefore = 65_536;
const checkMs = 100;

/** This many header fields take about as long as the rest of a request. Most requests have fewer. */
const HEADERS_OF_A_REQUEST = 50;

/**
 * Node parses at most this many requests of a connection before a pause takes effect. 64 KiB contain 3,600, of 24 µs each. Measured
 * when Node parsed them all: six sandboxes with eight connections each made a neighbour's call take 6 to 10 s.
 */
const requestsAtOnce = 16;
/** Not a text, which Node would encode again for each search. */
const headEnd = Buffer.from("\r\n\r\n");
/** A shorter request is invalid. Measured without it: 64 KiB of line ends, which Node ignores, took 3 ms. */
const shortestRequest = "GET / HTTP/1.1\r\n\r\n".length;

/**
 * Splits bytes after every `requestsAtOnce`th end of a head, and after the last one. So an incomplete head that follows a refused
 * request is not parsed, and no time limit of it ends the connection. Empty lines before a request count as one end.
 */
export function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  let begin = 0;
  const splitAt = (end: number) => {
    if (begin < end) pieces.push(bytes.subarray(begin, end));
    begin = end;
  };
  let heads = 0;
  let end = 0;
  let from = 0;
  for (let at = bytes.indexOf(headEnd); at >= 0; at = bytes.indexOf(headEnd, from)) {
    end = at + headEnd.length;
    from = at + shortestRequest;
    heads += 1;
    if (heads % requestsAtOnce === 0) splitAt(end);
  }
  splitAt(end);
  splitAt(bytes.length);
  return pieces;
}

/** Lets a connection pass what it reads in pieces, so that `accept` can stop between them. */
function readInPieces(socket: Duplex): void {
  const push = socket.push.bind(socket);
  socket.push = (bytes: unknown) => {
    if (!Buffer.isBuffer(bytes)) return push(bytes);
    let isReading = true;
    for (const piece of piecesOf(bytes)) if (!socket.destroyed) isReading = push(piece);
    return isReading;
  };
}

/** `connection`: a connection to the proxy, with any number of requests. */
type RequestKind = "connection" | "direct" | "intercepted" | "handshake";

export class RequestPaces {
  /**
   * The rate of connections. A connection takes about as long as a request, also if it ends without one, or sends something else.
   */
  readonly #connections: Pace;
  readonly #requests: Pace;
  /** The rate of intercepted requests. They cost much more, in the Worker's thread, which all sandboxes share. */
  readonly #intercepted: Pace;
  /**
   * The rate of TLS handshakes of the engine. A certificate and its signature take three to five milliseconds. With bursts of 100, four
   * sandboxes of a principal made a neighbour's call take 1.1 s.
   */
  readonly #handshakes: Pace;

  /** @param sandboxes how many sandboxes may use their whole rates at the same time */
  constructor(sandboxes = 1) {
    const pace = (burst: number, perSecond: number) =>
      new Pace({ burst: sandboxes * burst, perSecond: sandboxes * perSecond });
    this.#connections = pace(1000, 200);
    this.#requests = pace(1000, 200);
    this.#intercepted = pace(100, 50);
    this.#handshakes = pace(20, 30);
  }

  of(kind: RequestKind): Pace[] {
    if (kind === "connection") return [this.#connections];
    if (kind === "handshake") return [this.#handshakes];
    return kind === "direct" ? [this.#requests] : [this.#requests, this.#intercepted];
  }
}

/**
 * The rates of all sandboxes of a principal together. Without them, eight sandboxes with 200 connections each occupied the engine's
 * thread completely: a neighbour's call took 560 to 880 instead of 29 ms (median).
 */
export const requestsTogether = new PerPrincipal(() => new RequestPaces(2));

interface ClientState {
  response: ServerResponse;
  previous: ServerResponse | undefined;
  /** Whether another request came before the end of the current response. */
  isLast: boolean;
}

export class RequestLimiter {
  readonly #server: Server;
  readonly #clients = new WeakMap<Duplex, ClientState>();
  readonly #paces = new RequestPaces();
  /** Returns the rates over several sandboxes. */
  readonly #together: () => RequestPaces | undefined;
  /**
   * The sandbox's requests wait for these rates one after another. Otherwise 256 requests with 2,000 header fields made requests of
   * the principal's other sandboxes wait for 20 s, and intercepted ones for 100 s.
   */
  readonly #queues: Record<RequestKind, SerialQueue> = {
    connection: new SerialQueue(),
    direct: new SerialQueue(),
    intercepted: new SerialQueue(),
    handshake: new SerialQueue(),
  };
  /**
   * The rate of connections that are closed for too many bytes before a request. Until then, Node has read some megabytes.
   */
  readonly #endings = new Pace({ burst: 8, perSecond: 4 });
  /** The connections without a request, and how many bytes each had received when its last request ended. */
  readonly #idle = new Map<Socket, number>();
  #closedUntil = 0;

  constructor(server: Server, together: () => RequestPaces | undefined = () => undefined) {
    this.#server = server;
    this.#together = together;
    server.on("connection", (socket) => {
      socket.on("error", () => undefined);
      if (performance.now() < this.#closedUntil) return void socket.destroy();
      if (!Object.hasOwn(socket, "push")) readInPieces(socket);
      this.#idle.set(socket, socket.bytesRead);
      socket.once("close", () => this.#idle.delete(socket));
    });
    const timer = setInterval(() => this.#endWithoutRequest(), checkMs).unref();
    server.once("close", () => clearInterval(timer));
  }

  #endWithoutRequest(): void {
    for (const [socket, bytes] of this.#idle)
      if (socket.bytesRead - bytes > maxBytesBefore) this.#end(socket);
  }

  /**
   * Whether to handle a request. A request that arrives before the end of the previous response is refused. The limiter then
   * stops reading from the connection, because Node would keep the waiting requests. The connection closes after the previous
   * response, so that the client knows which requests to repeat (RFC 9112, 9.3.2).
   */
  accept(request: IncomingMessage, response: ServerResponse): boolean {
    const { socket } = request;
    if (socket.destroyed) return false;
    const current = this.#clients.get(socket);
    if (current === undefined || isDone(current)) {
      this.#clients.set(socket, { response, previous: current?.response, isLast: false });
      this.#idle.delete(socket);
      request.once("close", () => {
        const isLatest = this.#clients.get(socket)?.response === response;
        if (isLatest && !socket.destroyed) this.#idle.set(socket, socket.bytesRead);
      });
      return true;
    }
    if (current.isLast) return false;
    current.isLast = true;
    // Node parses nothing more. It resumes the connection after each request, and another limit may do so later.
    socket.removeAllListeners("data").on("resume", () => socket.pause());
    socket.pause();
    current.response.shouldKeepAlive = false;
    current.response.once("finish", () => socket.destroySoon());
    return false;
  }

  /**
   * Like `accept`, for CONNECT and upgrades. Node reports them at once, although the response to an earlier request may still use
   * the connection. It has also stopped sending that response, so the connection closes.
   */
  acceptTunnel(socket: Duplex): boolean {
    this.#idle.delete(socket as Socket);
    // A tunnel's bytes are no requests.
    Reflect.deleteProperty(socket, "push");
    const current = this.#clients.get(socket);
    if (current !== undefined && !isDone(current)) socket.destroy();
    return !socket.destroyed;
  }

  #end(socket: Socket): void {
    socket.destroy();
    const wait = this.#endings.take();
    if (wait === 0) return;
    this.#closedUntil = performance.now() + wait;
    this.#server.closeAllConnections();
  }

  /**
   * Waits until the rate allows this request. False if the connection was closed meanwhile; then the request does not count.
   * @param headers the number of header fields
   */
  async waitForRate(socket: Duplex, kind: RequestKind, headers = 0): Promise<boolean> {
    const weight = Math.max(1, headers / HEADERS_OF_A_REQUEST);
    if (!(await waitFor(this.#paces.of(kind), socket, weight))) return false;
    const together = this.#together();
    if (together === undefined) return true;
    return await this.#queues[kind].run(() => waitFor(together.of(kind), socket, weight));
  }
}

async function waitFor(paces: Pace[], socket: Duplex, weight: number): Promise<boolean> {
  if (socket.destroyed) return false;
  const closed = new AbortController();
  const leave = () => closed.abort();
  socket.once("close", leave);
  await waitForPaces(paces, weight, closed.signal);
  socket.off("close", leave);
  return !socket.destroyed;
}

/**
 * Whether a response is done. A client may get the end of a response, and send its next request, before Node confirms that the
 * response is written. So it is enough that the server has ended the response, and that the previous one is written.
 */
function isDone({ response, previous }: ClientState): boolean {
  return response.writableFinished || (response.writableEnded && previous?.writableFinished !== false);
}
