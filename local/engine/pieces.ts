/**
 * Limits how many pieces the request bodies of one sandbox come in, on all its connections together. A piece costs the engine's
 * thread, which all sandboxes share, about the same however short it is, and a chunk of one byte is a piece.
 */
import { IncomingMessage, type Server } from "node:http";
import type { Duplex } from "node:stream";
import { Pace } from "./pace.ts";

/** A piece of this many bytes costs nothing: most of what it costs is that of moving bytes. */
const WHOLE_BYTES = 16_384;

/** Some 2 % of the engine's thread. */
const PER_SECOND = 20_000;

export class Pieces {
  readonly #pace = new Pace({ burst: PER_SECOND, perSecond: PER_SECOND });
  /** Connections that carry requests. */
  readonly #connections = new Set<Duplex>();
  /** Those that are read on after the rest. */
  readonly #held = new Set<Duplex>();
  #isResting = false;

  /** For a server whose requests are of the class that `requestsOf` makes. */
  watch(server: Server): void {
    server.on("connection", (socket: Duplex) => {
      this.#connections.add(socket);
      const hold = () => this.#isResting && this.#connections.has(socket) && this.#hold(socket);
      socket.on("resume", hold).once("close", () => this.#leave(socket));
      hold();
    });
    for (const event of ["connect", "upgrade"])
      server.on(event, (_request, socket: Duplex) => this.#leave(socket));
    server.on("request", (request, response) => {
      // Node would take the rest of a body that nobody has begun to read past its request, uncounted.
      request.read(0);
      response.once("close", () => {
        request.unpipe();
        request.resume();
      });
    });
  }

  /** Counts a piece. When there were too many, no connection is read for a while. */
  take(bytes: number): void {
    const ms = this.#pace.take(Math.max(0, 1 - bytes / WHOLE_BYTES));
    if (ms === 0 || this.#isResting) return;
    this.#isResting = true;
    for (const socket of this.#connections) if (!socket.isPaused()) this.#hold(socket);
    this.#restFor(ms);
  }

  #restFor(ms: number): void {
    setTimeout(() => {
      const more = this.#pace.take(0);
      if (more > 0) return this.#restFor(more);
      this.#isResting = false;
      for (const socket of this.#held) socket.resume();
      this.#held.clear();
    }, ms).unref();
  }

  #hold(socket: Duplex): void {
    this.#held.add(socket);
    socket.pause();
  }

  #leave(socket: Duplex): void {
    this.#connections.delete(socket);
    if (this.#held.delete(socket)) socket.resume();
  }
}

/** A class of requests that count the pieces of their bodies, and pass on together what came at once. */
export function requestsOf(pieces: Pieces): typeof IncomingMessage {
  return class extends IncomingMessage {
    #gathered: Buffer[] = [];

    override push(piece: Buffer | null): boolean {
      if (piece === null) {
        this.#pass();
        return super.push(null);
      }
      pieces.take(piece.length);
      if (this.#gathered.push(piece) === 1) setImmediate(() => this.#pass());
      return true;
    }

    #pass(): void {
      if (this.#gathered.length === 0) return;
      const gathered = Buffer.concat(this.#gathered);
      this.#gathered = [];
      if (!super.push(gathered)) this.socket.pause();
    }
  };
}
