/**
 * The way to sandboxd, the program of ours in a sandbox: one WebSocket for calls and for what comes back, and plain requests
 * about files. The WebSocket opens with the first call and closes soon after the last, so that the actor can sleep. What
 * answers may be the user's own program: every message is checked, and one that breaks the protocol ends the connection.
 */
import {
  type Call,
  EVENT_CHARS,
  type Event,
  type Piece,
  SANDBOXD_PORT,
  eventSchema,
  readPiece,
} from "../../container/sandboxd/protocol.ts";
import { ToolError, connectionLost, noAnswer } from "../shared/errors.ts";

export interface ConnectionHost {
  /** Whether there is a container. */
  running(): boolean;
  /** Starts the container where there is none. @throws errors of the SDK */
  start(): Promise<void>;
  /** A request to a port in the container. */
  fetch(port: number, request: Request): Promise<Response>;
  /** The sandbox is in use. */
  used(): void;
}

/** Who follows a run. */
export interface Follower {
  event(event: Event): void;
  piece(piece: Piece): void;
  /** The connection is gone, and what follows on it. */
  broken(): void;
}

/** How long a connection stays open that nobody uses, milliseconds. */
const IDLE_MS = 2000;

/** How long sandboxd is waited for where it is not there, as when it is just being started again, and the pause between two attempts. Milliseconds. */
const CONNECT_MS = 10_000;
const RETRY_MS = 50;

/** Containers that are started for one call at most. */
const MAX_STARTS = 3;

export class Connection {
  readonly #host: ConnectionHost;
  readonly #followers = new Map<string, Follower>();
  #open: WebSocket | undefined;
  #opening: Promise<WebSocket> | undefined;
  #pongs: (() => void)[] = [];
  /** By key, who waits to hear what was typed. */
  readonly #typing = new Map<string, PromiseWithResolvers<number>>();
  #idle: ReturnType<typeof setTimeout> | null = null;
  #usedAt = 0;

  constructor(host: ConnectionHost) {
    this.#host = host;
  }

  /** From now on a run's events go to this follower. Answers what ends that. */
  follow(id: string, follower: Follower): () => void {
    this.#followers.set(id, follower);
    return () => {
      if (this.#followers.get(id) === follower) this.#followers.delete(id);
      this.#rest();
    };
  }

  /**
   * Sends calls, over a new connection where there is none; into a container that is there. @throws {ToolError}
   * `no_answer`, `sandbox_restarted`
   */
  async send(...calls: Call[]): Promise<void> {
    const socket = this.#open ?? (await this.#connected());
    this.#host.used();
    for (const call of calls) socket.send(JSON.stringify(call));
    this.#rest();
  }

  /** As `send`, into a container that is started for that where there is none. @throws errors of the SDK, too */
  async begin(...calls: Call[]): Promise<void> {
    for (let attempt = 1; this.#open === undefined; attempt++) {
      while (!this.#host.running()) await this.#host.start();
      try {
        await this.#connected();
      } catch (error) {
        // A container that went away before it was called has done nothing: another one is started.
        if (this.#host.running() || attempt === MAX_STARTS) throw error;
      }
    }
    await this.send(...calls);
  }

  /**
   * Makes a request, into a container that is started for that where there is none, and reads the answer. Both again where
   * sandboxd is not there, and where the connection breaks, unless the body can be sent only once.
   * @throws {ToolError} `no_answer` where nothing answers, `sandbox_restarted`, and what `read` throws; errors of the SDK
   */
  async fetch<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: (response: Response) => Promise<T>,
  ): Promise<T> {
    const isStream = init.body instanceof ReadableStream;
    // Whether somebody is there, before what cannot be sent again is sent.
    if (isStream) await this.fetch("/", {}, signal, async ({ body }) => body?.cancel());
    while (!this.#host.running()) await this.#host.start();
    const deadline = Date.now() + CONNECT_MS;
    for (;;) {
      this.#host.used();
      try {
        const request = new Request(`http://sandboxd${path}`, { ...init, signal });
        return await read(await this.#host.fetch(SANDBOXD_PORT, request));
      } catch (error) {
        if (error instanceof ToolError) throw error;
        signal.throwIfAborted();
        if (!this.#host.running()) throw containerGone();
        if (isStream) throw connectionLost();
        if (Date.now() >= deadline) throw noAnswer(CONNECT_MS);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  /** Sends what can only be of use to somebody who is connected. */
  tell(call: Call): void {
    this.#open?.send(JSON.stringify(call));
  }

  /** Sends calls and waits until sandboxd has read them. @throws {ToolError} `no_answer` after so many milliseconds */
  async ask(ms: number, ...calls: Call[]): Promise<void> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(noAnswer(ms)), ms);
    const { promise: pong, resolve } = Promise.withResolvers<void>();
    try {
      await Promise.race([late, this.send(...calls)]);
      this.#pongs.push(resolve);
      await Promise.race([late, this.send({ type: "ping" })]);
      await Promise.race([late, pong]);
    } finally {
      clearTimeout(timer);
      this.#pongs = this.#pongs.filter((one) => one !== resolve);
    }
  }

  /**
   * Types into the terminal of a run. Answers how many bytes of the text were taken.
   * @throws {ToolError} `no_answer`, `sandbox_restarted`, `connection_lost` where nobody knows whether it was typed
   */
  async type(id: string, text: string): Promise<number> {
    const key = crypto.randomUUID();
    const typing = Promise.withResolvers<number>();
    this.#typing.set(key, typing);
    // It may be rejected before anybody waits for it.
    typing.promise.catch(() => undefined);
    try {
      await this.send({ type: "input", id, key, text });
      return await typing.promise;
    } finally {
      this.#typing.delete(key);
    }
  }

  /** The container is gone. */
  close(): void {
    this.#lost(this.#open);
  }

  #connected(): Promise<WebSocket> {
    this.#opening ??= this.#connect().finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  async #connect(): Promise<WebSocket> {
    const deadline = Date.now() + CONNECT_MS;
    for (;;) {
      if (!this.#host.running()) throw containerGone();
      const socket = await this.#attempt(deadline - Date.now());
      if (socket) return this.#accept(socket);
      if (Date.now() >= deadline) throw noAnswer(CONNECT_MS);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async #attempt(ms: number): Promise<WebSocket | undefined> {
    const signal = AbortSignal.timeout(Math.max(1, ms));
    const request = new Request("http://sandboxd/", { headers: { Upgrade: "websocket" }, signal });
    try {
      return (await this.#host.fetch(SANDBOXD_PORT, request)).webSocket ?? undefined;
    } catch {
      // Nobody listens yet, or the container is just going away.
      return undefined;
    }
  }

  #accept(socket: WebSocket): WebSocket {
    socket.binaryType = "arraybuffer";
    socket.accept();
    this.#open = socket;
    socket.addEventListener("message", ({ data }) => this.#message(socket, data));
    socket.addEventListener("close", () => this.#lost(socket));
    socket.addEventListener("error", () => this.#lost(socket));
    return socket;
  }

  #message(socket: WebSocket, data: unknown): void {
    this.#usedAt = Date.now();
    try {
      if (data instanceof ArrayBuffer) {
        const piece = readPiece(data);
        return this.#followers.get(piece.id)?.piece(piece);
      }
      if (typeof data !== "string" || data.length > EVENT_CHARS) throw new Error("no event");
      const event = eventSchema.parse(JSON.parse(data));
      if (event.type === "pong") for (const pong of this.#pongs.splice(0)) pong();
      else if (event.type === "typed") this.#typing.get(event.key)?.resolve(event.bytes);
      else this.#followers.get(event.id)?.event(event);
    } catch {
      socket.close(1008, "no such message");
      this.#lost(socket);
    }
  }

  #lost(socket: WebSocket | undefined): void {
    if (socket === undefined || this.#open !== socket) return;
    this.#open = undefined;
    clearTimeout(this.#idle);
    this.#idle = null;
    for (const follower of this.#followers.values()) follower.broken();
    for (const typing of this.#typing.values()) typing.reject(unknownTyped());
    try {
      socket.close(1000, "");
    } catch {
      // It is closed.
    }
  }

  /** Closes the connection once nobody has used it for a while. */
  #rest(): void {
    this.#usedAt = Date.now();
    this.#idle ??= setTimeout(() => {
      this.#idle = null;
      if (this.#followers.size > 0 || this.#pongs.length > 0 || Date.now() - this.#usedAt < IDLE_MS)
        this.#rest();
      else this.#lost(this.#open);
    }, IDLE_MS);
  }
}

function unknownTyped(): ToolError {
  return new ToolError(
    "connection_lost",
    "The connection to the sandbox broke: whether the text was typed is not known.",
    "Look at the output with get_result, then type what is missing.",
  );
}

/** The error for a call whose container went away. */
export function containerGone(): ToolError {
  return new ToolError(
    "sandbox_restarted",
    "The sandbox went away while this call was running; its files, processes and kernels are gone.",
    "Repeat the steps that made the files you need, then this call: the next call starts a fresh sandbox.",
    true,
  );
}
