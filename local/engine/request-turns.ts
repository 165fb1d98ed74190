/**
 * Limits the requests of one sandbox to its egress proxy: one at a time on a connection, and so many a second in total.
 * The proxies of all sandboxes share one process, which no sandbox may keep busy.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { Pace } from "./pace.ts";

/** How many requests a client may send before their turn: apt sends ten. */
const maxPipelined = 16;

interface Turn {
  response: ServerResponse;
  /** Requests that came before this one was answered. */
  early: number;
}

export class Turns {
  readonly #server: Server;
  /** The latest request of each connection that had its turn. */
  readonly #turns = new WeakMap<Socket, Turn>();
  readonly #requests = new Pace({ burst: 1000, perSecond: 200 });
  /** Intercepted requests, which cost the Worker, whose thread everybody shares, much more. */
  readonly #intercepted = new Pace({ burst: 100, perSecond: 50 });
  /** Connections ended for too many early requests. By then Node has parsed all it read at once, some thousand of them. */
  readonly #ended = new Pace({ burst: 8, perSecond: 4 });
  #closedUntil = 0;

  constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => {
      socket.on("error", () => undefined);
      if (performance.now() < this.#closedUntil) socket.destroy();
    });
  }

  /**
   * Whether a request is to be answered. One that comes before the previous one was answered is not: its connection is
   * read no further, because Node would keep what waits there, and closes after that answer, so that the client knows what
   * to send again (RFC 9112, 9.3.2).
   */
  accept({ socket }: IncomingMessage, response: ServerResponse): boolean {
    if (socket.destroyed) return false;
    const current = this.#turns.get(socket);
    if (current === undefined || current.response.writableFinished) {
      this.#turns.set(socket, { response, early: 0 });
      return true;
    }
    current.early += 1;
    if (current.early === 1) {
      socket.pause();
      current.response.shouldKeepAlive = false;
      current.response.once("finish", () => socket.destroySoon());
    } else if (current.early > maxPipelined) this.#end(socket);
    return false;
  }

  #end(socket: Socket): void {
    socket.destroy();
    const wait = this.#ended.take();
    if (wait === 0) return;
    this.#closedUntil = performance.now() + wait;
    this.#server.closeAllConnections();
  }

  /** Waits until it is this connection's turn. False when it was closed meanwhile, which then takes no turn. */
  async wait(socket: Duplex, kind: "direct" | "intercepted"): Promise<boolean> {
    const paces = kind === "intercepted" ? [this.#requests, this.#intercepted] : [this.#requests];
    const ms = Math.max(...paces.map((pace) => pace.take()));
    if (ms === 0 || socket.destroyed) return !socket.destroyed;
    const closed = new AbortController();
    const leave = () => closed.abort();
    socket.once("close", leave);
    try {
      await delay(ms, undefined, { signal: closed.signal });
    } catch {
      // A sandbox that connects and leaves at once would otherwise have any number of requests wait here.
      for (const pace of paces) pace.giveBack();
    }
    socket.off("close", leave);
    return !socket.destroyed;
  }
}
