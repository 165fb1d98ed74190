/** The connections that a sandbox's own servers have opened to the engine (container/sandboxd/engine-link.ts). */
import { timingSafeEqual } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { ACCEPTED, clock, NEEDED, type OwnServer, UNUSED } from "../../container/sandboxd/engine-link.ts";
import { CLIENT_GONE, START_PROBLEMS } from "./texts.ts";

/** The most connections of a sandbox that have not sent their greeting. A further one replaces the oldest. */
const MAX_NEW = 64;
const GREETING_MS = 10_000;
/** How long a request waits for an unused connection: of a server that has connections, and of one that has none. */
const BUSY_MS = 30_000;
const ABSENT_MS = 1000;

class Connections {
  /** When the newest server of this kind started. */
  since = 0;
  readonly all = new Set<Socket>();
  readonly unused = new Map<Socket, () => void>();
  readonly waiting = new Set<PromiseWithResolvers<Socket>>();
}

export class ServerConnections {
  readonly #key: string;
  readonly #of = { control: new Connections(), sandboxd: new Connections() };
  readonly #new = new Set<Socket>();
  #listener: Server | undefined;
  #isClosed = false;

  /** @param key what the servers must send, 32 characters. Only root in the sandbox can read it */
  constructor(key: string) {
    this.#key = key;
  }

  accept(listener: Server): void {
    if (this.#isClosed) return void listener.close();
    this.#listener = createServer({ noDelay: true }, (socket) => this.#greet(socket)).listen(listener);
  }

  /**
   * Returns a connection without earlier requests.
   * @throws Error if the server has not connected in time, the sandbox ends, or `aborted` is aborted
   */
  async take(
    server: OwnServer,
    { waitMs, aborted }: { waitMs?: number; aborted?: AbortSignal | undefined } = {},
  ): Promise<Socket> {
    const { all, unused, waiting } = this.#of[server];
    if (this.#isClosed) throw new Error(START_PROBLEMS.ended);
    if (aborted?.aborted) throw new Error(CLIENT_GONE);
    for (const [socket, release] of unused) {
      release();
      return this.#use(socket);
    }
    const entry = Promise.withResolvers<Socket>();
    const { promise, reject } = entry;
    const ms = waitMs ?? (all.size > 0 ? BUSY_MS : ABSENT_MS);
    const timer = setTimeout(() => reject(new Error(START_PROBLEMS.noConnection(server))), ms);
    const leave = () => reject(new Error(CLIENT_GONE));
    aborted?.addEventListener("abort", leave);
    waiting.add(entry);
    return await promise.finally(() => {
      clearTimeout(timer);
      aborted?.removeEventListener("abort", leave);
      waiting.delete(entry);
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#listener?.close();
    for (const socket of this.#new) socket.destroy();
    for (const { all, waiting } of Object.values(this.#of)) {
      for (const socket of all) socket.destroy();
      for (const { reject } of waiting) reject(new Error(START_PROBLEMS.ended));
    }
  }

  #greet(socket: Socket): void {
    socket.on("error", () => undefined);
    if (this.#isClosed) return void socket.destroy();
    const [oldest] = this.#new;
    if (oldest !== undefined && this.#new.size >= MAX_NEW) {
      this.#new.delete(oldest);
      oldest.destroy();
    }
    this.#new.add(socket);
    const timer = setTimeout(() => socket.destroy(), GREETING_MS);
    const end = () => {
      clearTimeout(timer);
      this.#new.delete(socket);
    };
    socket.once("close", end);
    socket.once("readable", () => {
      socket.off("close", end);
      end();
      // A greeting is so short that it arrives as a whole.
      const server = this.#acceptedServer(String(socket.read() ?? ""));
      if (server === undefined) socket.destroy();
      else this.#add(socket, this.#of[server]);
    });
  }

  /** The server that sent the greeting, which is then the newest of its kind; undefined for any other program. */
  #acceptedServer(greeting: string): OwnServer | undefined {
    const match = /^(control|sandboxd) ([0-9a-f]{32}) (\d{1,15})\n$/.exec(greeting);
    if (match === null) return undefined;
    const [, name, key = "", time] = match;
    const server = name as OwnServer;
    const since = Number(time);
    const of = this.#of[server];
    if (!timingSafeEqual(Buffer.from(key), Buffer.from(this.#key))) return undefined;
    if (since < of.since || since > clock()) return undefined;
    if (since > of.since) {
      of.since = since;
      // The earlier server has ended, or does not respond.
      for (const release of of.unused.values()) release();
      for (const socket of of.all) socket.destroy();
    }
    return server;
  }

  #use(socket: Socket): Socket {
    // Without this byte, the server would not open another connection until the first request, which may come late.
    socket.write(NEEDED);
    return socket;
  }

  #add(socket: Socket, { all, unused, waiting }: Connections): void {
    if (waiting.size === 0 && unused.size >= UNUSED) return void socket.destroy();
    all.add(socket);
    socket.once("close", () => all.delete(socket));
    socket.write(ACCEPTED);
    for (const entry of waiting) {
      waiting.delete(entry);
      return entry.resolve(this.#use(socket));
    }
    // An unused connection gets no bytes. It is read so that its end is noticed.
    const check = () => void socket.destroy();
    const release = () => {
      unused.delete(socket);
      socket.off("readable", check).off("close", release);
    };
    unused.set(socket, release);
    socket.on("readable", check).once("close", release);
  }
}
