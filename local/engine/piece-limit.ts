/**
 * Limits how many pieces of bodies and WebSocket frames pass in a second, over all connections of a sandbox, and over all sandboxes
 * of a principal. All sandboxes share the engine's thread, and even a short piece takes about as much of its time as a long one.
 */
import { IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { Pace, pieceWeight } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "../../src/shared/per-principal.ts";
import { readTurns } from "./read-turns.ts";

/** This many pieces take about 2 % of the engine's thread. */
const PER_SECOND = 20_000;

/**
 * All connections pause together, for at least this many milliseconds times their number. Pausing and resuming one connection
 * takes 8 µs, which is 2 % of its part.
 */
const PAUSE_MS = 0.4;

/**
 * A short read costs this many pieces, because it takes about 12 µs, also if it contains no piece of a body: programs can send heads,
 * lengths of chunks, and line ends before a response byte by byte, and without end.
 */
export const WEIGHT_OF_A_READ = 8;
/** Reading and dropping this many bytes of an unread body costs as much as a piece. */
const UNUSED_BYTES = 2048;
/** A response has at most about this many header fields. Further ones take a few microseconds each. */
const USUAL_FIELDS = 100;
/** Passing on this many header fields takes as long as a short read and the write after it. */
const FIELDS_OF_A_READ = 15;
/** The size of buffers in Node's streams. */
const MAX_GATHERED = 65_536;

/**
 * The limit for all sandboxes of a principal together. Each frame takes 22 µs of workerd's thread. Without this limit, nine
 * sandboxes occupied the thread completely.
 */
const PER_SECOND_TOGETHER = 2 * PER_SECOND;

/**
 * Limits the short reads of a sandbox's tunnels and connections to hosts. A read and the write after it take about 40 µs of the
 * engine's thread, so this rate takes 2.5 % of the thread. A fast connection is delayed only by milliseconds, because the kernel
 * joins data that arrives during a pause. The burst is enough for a thousand small requests.
 */
const READS = { burst: 5000, perSecond: 625 };
/** The limit for all sandboxes of a principal together. With only their own limits, the bursts of eight sandboxes took two seconds. */
const READS_TOGETHER = { burst: 2 * READS.burst, perSecond: 2 * READS.perSecond };

interface PieceLimits {
  pace?: Pace;
  bytes?: Pace | undefined;
}

export const limitTogether = () => new Pace({ burst: PER_SECOND_TOGETHER, perSecond: PER_SECOND_TOGETHER });

/** The limit of requests to the proxies that all sandboxes of this principal share. */
export const requestPiecesTogether = new PerPrincipal(limitTogether);

/** The limit of short reads that all sandboxes of this principal share. */
export const readsTogether = new PerPrincipal(() => new Pace(READS_TOGETHER));

export const shortReads = () => new Pieces({ pace: new Pace(READS) });

export class Pieces {
  readonly pace: Pace;
  readonly #bytes: Pace | undefined;
  readonly #connections = new Map<Duplex, () => void>();
  readonly #paused = new Set<Duplex>();
  /** Whether all connections are paused, because there were too many pieces or bytes. */
  isPaused = false;

  constructor({ pace = new Pace({ burst: PER_SECOND, perSecond: PER_SECOND }), bytes }: PieceLimits = {}) {
    this.pace = pace;
    this.#bytes = bytes;
  }

  /** Watches a server that has the request class from `requestsOf`. */
  watch(server: Server): void {
    server.on("connection", (socket: Duplex) => this.count(socket, WEIGHT_OF_A_READ));
    for (const event of ["connect", "upgrade"])
      server.on(event, (_request, socket: Duplex) => this.leave(socket));
    server.on("request", (request, response) => {
      // Starts to read. Otherwise, Node would drain an unread body itself, and its pieces would not count.
      request.read(0);
      drainAfter(request, response);
      response.once("close", () =>
        request.on("data", (piece: Buffer) => this.take(0, piece.length / UNUSED_BYTES)),
      );
    });
  }

  /** @param onRead called for each read while the connection is joined */
  join(socket: Duplex, onRead?: (bytes: Buffer) => void): void {
    this.leave(socket);
    const pauseIfLimited = () => {
      if (this.isPaused) return this.#pause(socket);
      if (readTurns.isWaiting(socket)) socket.pause();
      // After the next pause, the others come first. Otherwise the first connections could use all pieces.
      this.#connections.delete(socket);
      this.#connections.set(socket, stopWatching);
    };
    const leave = () => this.leave(socket);
    const stopWatching = () => {
      socket.off("resume", pauseIfLimited).off("close", leave);
      if (onRead !== undefined) socket.off("data", onRead);
    };
    this.#connections.set(socket, stopWatching);
    socket.on("resume", pauseIfLimited).on("close", leave);
    if (onRead !== undefined) socket.on("data", onRead);
    pauseIfLimited();
  }

  /** Like `join`, and counts each read of the connection. @param weight the cost of a short read, in pieces */
  count(socket: Duplex, weight = 1): void {
    if (this.#connections.has(socket)) return;
    this.join(socket, (bytes) => this.read(socket, bytes.length, weight));
  }

  leave(socket: Duplex): void {
    this.#connections.get(socket)?.();
    this.#connections.delete(socket);
    const wasWaiting = readTurns.leave(socket);
    if (this.#paused.delete(socket) || wasWaiting) socket.resume();
  }

  /** Counts a piece that was read from a connection. */
  read(socket: Duplex, bytes: number, weight = 1): void {
    this.take(bytes, weight);
    readTurns.take(socket, bytes, this);
  }

  /** Counts header fields or trailers, if they are more than usual. @param raw names and values @param weight of a field, in pieces */
  takeFields(raw: readonly string[], weight = 1 / FIELDS_OF_A_READ): void {
    this.take(0, Math.max(0, raw.length / 2 - USUAL_FIELDS) * weight);
  }

  /** Counts a piece. Above a limit, all connections pause for a while. @param weight the cost, in pieces of a body */
  take(bytes: number, weight = 1): void {
    const ms = this.#wait(weight * pieceWeight(bytes), bytes);
    if (ms === 0 || this.isPaused) return;
    this.isPaused = true;
    for (const socket of this.#connections.keys()) if (!socket.isPaused()) this.#pause(socket);
    this.#pauseFor(ms);
  }

  #wait(pieces: number, bytes: number): number {
    return Math.max(this.pace.take(pieces), this.#bytes?.take(bytes) ?? 0);
  }

  #pauseFor(ms: number): void {
    const pause = Math.max(ms, this.#connections.size * PAUSE_MS);
    setTimeout(() => {
      const more = this.#wait(0, 0);
      if (more > 0) return this.#pauseFor(more);
      this.isPaused = false;
      const paused = [...this.#paused];
      this.#paused.clear();
      for (const socket of paused) socket.resume();
    }, pause).unref();
  }

  #pause(socket: Duplex): void {
    this.#paused.add(socket);
    socket.pause();
  }
}

export function requestsOf(pieces: Pieces): typeof IncomingMessage {
  return class extends IncomingMessage {
    constructor(socket: IncomingMessage["socket"]) {
      super(socket);
      gather(this, pieces, true);
    }
  };
}

/**
 * Counts a body's pieces. Joins pieces that arrive together, and forwards them after `MAX_GATHERED` bytes at the latest: Node reads
 * up to 2 MB at once unless a full stream pauses the connection.
 * @param areReadsCounted whether `Pieces.count` counts the connection's bytes already
 */
export function gather(message: IncomingMessage, pieces: Pieces, areReadsCounted = false): void {
  const push = message.push.bind(message);
  let gathered: Buffer[] = [];
  let bytes = 0;
  const pass = () => {
    if (gathered.length === 0) return;
    const together = gathered.length === 1 ? gathered[0] : Buffer.concat(gathered);
    gathered = [];
    bytes = 0;
    if (!push(together)) message.socket.pause();
  };
  message.push = (piece: Buffer | null) => {
    if (piece === null) {
      pass();
      return push(null);
    }
    if (areReadsCounted) pieces.take(0, pieceWeight(piece.length));
    else pieces.read(message.socket, piece.length);
    bytes += piece.length;
    if (gathered.push(piece) === 1) setImmediate(pass);
    if (bytes >= MAX_GATHERED) pass();
    return true;
  };
}

/**
 * Drains a request whose response ended early. Otherwise, the next request on the connection, perhaps another principal's, would
 * wait behind it.
 */
export function drainAfter(request: IncomingMessage, response: ServerResponse): void {
  response.once("close", () => {
    request.unpipe();
    request.resume();
  });
}

/**
 * Calls `end` if the receiver takes nothing of a request's body for `ms` milliseconds. The body already goes to the receiver, which
 * pauses it. The engine does not read the client's connection then, so it would never notice that the client has disconnected.
 */
export function endStalled(
  request: IncomingMessage,
  response: ServerResponse,
  ms: number,
  end: () => void,
): void {
  let stalled: NodeJS.Timeout | undefined;
  let isOver = false;
  const stop = () => clearTimeout(stalled);
  request.on("resume", stop).on("pause", () => {
    stop();
    // Node also pauses a request when its whole body has been passed on. The response may come later.
    if (!isOver && !request.readableEnded) stalled = setTimeout(end, ms).unref();
  });
  response.once("close", () => {
    isOver = true;
    stop();
  });
}
