/**
 * The connection to sandboxd, our program in a sandbox: one WebSocket for calls and events. It opens with the first call and
 * closes soon after the last one, so that the actor can sleep. A user program may listen in place of sandboxd, so every message
 * is checked. A message that breaks the protocol ends the connection.
 */
import {
  type Call,
  EVENT_CHARS,
  type Event,
  PIECE_BYTES,
  type Piece,
  LEAST_WINDOW_BYTES,
  SHARED_WINDOW_BYTES,
  SHOWN_END_BYTES,
  STREAMS,
  type StartCall,
  eventSchema,
  readPiece,
} from "../../container/sandboxd/protocol.ts";
import type { Size } from "../shared/terminal/size.ts";
import { ToolError, isGone, sandboxUnresponsive } from "../shared/errors.ts";
import { countdown, pause, waitAtMost } from "../shared/timers.ts";
import { containerGone, inputUnconfirmed } from "./texts.ts";
import { CONNECT_MS, type ContainerLifecycle, RETRY_MS, type Sandboxd } from "./sandboxd.ts";

/** How long sandboxd may take to respond to a ping or input, in milliseconds. It responds at once unless it hangs. */
export const RESPONSE_MS = 10_000;

interface Follower {
  onEvent(event: Event): void;
  onPiece(piece: Piece): void;
  /** Called when the connection is lost. The next connection delivers the run's later events. */
  onBreak(): void;
}

/** A connection without calls and followed runs closes after this time. */
const IDLE_MS = 2000;
/** The most output of a run that waits for its log, besides SHARED_WINDOW_BYTES of all runs: what sandboxd sends ahead. */
export const RUN_WAITING_BYTES = STREAMS.length * (LEAST_WINDOW_BYTES + PIECE_BYTES + SHOWN_END_BYTES);
/** How long sandboxd has to read the last calls and confirm the end of a connection, in milliseconds. Then the connection is aborted. */
export const CLOSE_MS = 1000;
/**
 * The most characters of calls that sandboxd has not confirmed. Further starts and inputs wait for a confirmation. What a program in
 * sandboxd's place does not read stays in the server's memory, also when the runs have ended.
 */
export const MAX_UNREAD_CHARS = 1024 * 1024;
/** The id of no run. */
const NO_RUN = "0";
/** The most containers to which one start call is sent, one after the other. */
const MAX_STARTS = 3;

export interface TerminalInput {
  text: string;
  /** The terminal gets this size before the text is typed. */
  size?: Size | undefined;
}

export type RunCall = Exclude<Call, StartCall>;

export class Connection {
  readonly #sandboxd: Pick<Sandboxd, "isRunning" | "fetch" | "noteUse">;
  readonly #lifecycle: ContainerLifecycle;
  readonly #followers = new Map<string, Follower>();
  #socket: WebSocket | undefined;
  /** Aborts the connection of `#socket`. A program in sandboxd's place may never confirm a close, and go on sending. */
  #abort = new AbortController();
  #opening: Promise<WebSocket> | undefined;
  #pongs: (() => void)[] = [];
  /** Calls that wait for the number of accepted bytes, by key. */
  readonly #typing = new Map<string, PromiseWithResolvers<number>>();
  /** The characters of calls over `#socket` that sandboxd has not confirmed. */
  #unreadChars = 0;
  #confirming: Promise<void> | undefined;
  #closeTimer: ReturnType<typeof setTimeout> | null = null;
  #usedAt = 0;
  /** Bytes of output that arrived and that the logs of runs have not accepted yet. */
  #waitingBytes = 0;

  constructor(sandboxd: Pick<Sandboxd, "isRunning" | "fetch" | "noteUse">, lifecycle: ContainerLifecycle) {
    this.#sandboxd = sandboxd;
    this.#lifecycle = lifecycle;
  }

  follow(id: string, follower: Follower): () => void {
    this.#followers.set(id, follower);
    return () => {
      if (this.#followers.get(id) === follower) this.#followers.delete(id);
      this.#scheduleClose();
    };
  }

  /**
   * Sends calls about existing runs, even before the workspace is restored. @throws {ToolError} `no_answer`,
   * `sandbox_restarted`
   */
  async send(...calls: RunCall[]): Promise<void> {
    this.#send(this.#socket ?? (await this.#openConnection()), calls);
  }

  /** @param onSend called immediately before the call is sent */
  async begin(call: StartCall, isOver: () => boolean, onSend: () => void): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      await this.#lifecycle.waitUntilReadyForRun(isOver);
      try {
        return await this.beginAgain(call, isOver, onSend);
      } catch (error) {
        // The container disappeared before the call reached it. Nothing was done, so another container may be started.
        const isInterrupted = isGone(error) || (error instanceof ToolError && !this.#lifecycle.isRunning);
        if (isOver() || !isInterrupted || attempt === MAX_STARTS) throw error;
      }
    }
  }

  /**
   * Sends a start call, which may be a repetition: sandboxd starts a command only once.
   * @throws {ToolError} as `send`; `sandbox_restarted` also if the run is over, or the container's workspace is not restored yet
   */
  async beginAgain(call: StartCall, isOver: () => boolean, onSend?: () => void): Promise<void> {
    await this.#whenFewUnread((socket) => {
      // Another call may have opened the connection during the restore, and the run may have ended.
      if (!this.#lifecycle.container || isOver()) throw containerGone();
      onSend?.();
      this.#send(socket, [call]);
    });
  }

  /** Sends a call only if a connection is open. A new connection repeats the call, or does not need it. */
  sendIfOpen(call: RunCall): void {
    if (this.#socket) this.#sendCall(this.#socket, call);
  }

  /** @throws {ToolError} `no_answer` if sandboxd has not read the calls after `ms` */
  async sendAndConfirm(ms: number, ...calls: RunCall[]): Promise<void> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(sandboxUnresponsive(ms)), ms);
    const { promise: pong, resolve } = Promise.withResolvers<void>();
    try {
      await Promise.race([late, this.send(...calls)]);
      this.#pongs.push(resolve);
      await Promise.race([late, this.send({ type: "ping" })]);
      await Promise.race([late, pong]);
    } finally {
      clearTimeout(timer);
      this.#pongs = this.#pongs.filter((waiting) => waiting !== resolve);
    }
  }

  /**
   * Types into a run's terminal. Returns the number of accepted bytes.
   * @throws {ToolError} `no_answer`, `sandbox_restarted` if nothing was typed; `connection_lost` if the number is unknown
   */
  async type(id: string, input: TerminalInput): Promise<number> {
    const leftMs = countdown(RESPONSE_MS);
    return await this.#whenFewUnread((socket) => {
      // The caller may have typed the text again.
      if (leftMs() <= 0) throw sandboxUnresponsive(RESPONSE_MS);
      return this.#type(socket, id, input);
    });
  }

  async #type(socket: WebSocket, id: string, { text, size }: TerminalInput): Promise<number> {
    const key = crypto.randomUUID();
    const typing = Promise.withResolvers<number>();
    this.#typing.set(key, typing);
    // The promise may be rejected before anything awaits it.
    typing.promise.catch(() => undefined);
    try {
      this.#send(socket, [{ type: "input", id, key, text, size }]);
      // A program in sandboxd's place may never confirm the input, while its runs keep the connection open.
      const typed = await waitAtMost(RESPONSE_MS, typing.promise);
      if (typed === undefined) throw inputUnconfirmed();
      return typed;
    } finally {
      this.#typing.delete(key);
    }
  }

  /**
   * Calls `send` when sandboxd has read most earlier calls. There is no await between the last check and `send`. Otherwise many calls
   * could be sent after one check.
   */
  async #whenFewUnread<T>(send: (socket: WebSocket) => T | Promise<T>): Promise<T> {
    for (;;) {
      const socket = this.#socket ?? (await this.#openConnection());
      if (this.#unreadChars <= MAX_UNREAD_CHARS) return await send(socket);
      this.#confirming ??= this.#confirmRead(socket).finally(() => (this.#confirming = undefined));
      await this.#confirming;
    }
  }

  /** Waits until sandboxd has read all calls. @throws {ToolError} `no_answer`, and the connection is closed */
  async #confirmRead(socket: WebSocket): Promise<void> {
    const chars = this.#unreadChars;
    // A program that has not read this cannot know its key. A pong has no key.
    const read = await this.#type(socket, NO_RUN, { text: "" }).catch(() => undefined);
    // The next connection has no unread calls.
    if (this.#socket !== socket) return;
    if (read === undefined) {
      this.#abortConnection(socket);
      throw sandboxUnresponsive(RESPONSE_MS);
    }
    this.#unreadChars -= chars;
  }

  /** Counts output that has arrived. @returns false, and closes the connection, if too much output waits */
  admit(bytes: number): boolean {
    const most = SHARED_WINDOW_BYTES + this.#followers.size * RUN_WAITING_BYTES;
    const hasRoom = this.#waitingBytes + bytes <= most;
    if (hasRoom) this.#waitingBytes += bytes;
    else this.close();
    return hasRoom;
  }

  /** Call it when the log of a run has accepted the output, or drops it. */
  release(bytes: number): void {
    this.#waitingBytes -= bytes;
  }

  close(): void {
    this.#dropConnection(this.#socket);
  }

  onContainerEnd(): void {
    this.close();
  }

  #send(socket: WebSocket, calls: readonly Call[]): void {
    this.#sandboxd.noteUse();
    for (const call of calls) this.#sendCall(socket, call);
    this.#scheduleClose();
  }

  #sendCall(socket: WebSocket, call: Call): void {
    const text = JSON.stringify(call);
    this.#unreadChars += text.length;
    socket.send(text);
  }

  #openConnection(): Promise<WebSocket> {
    this.#opening ??= this.#connect().finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  async #connect(): Promise<WebSocket> {
    const deadline = Date.now() + CONNECT_MS;
    for (;;) {
      if (!this.#sandboxd.isRunning) throw containerGone();
      const socket = await this.#attempt(deadline - Date.now());
      if (socket) return this.#accept(socket);
      if (Date.now() >= deadline) throw sandboxUnresponsive(CONNECT_MS);
      await pause(RETRY_MS);
    }
  }

  async #attempt(ms: number): Promise<WebSocket | undefined> {
    // Not `AbortSignal.timeout`, which would also end the open connection.
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), ms);
    const { signal } = abort;
    try {
      const request = new Request("http://sandboxd/", { headers: { Upgrade: "websocket" }, signal });
      const { webSocket, body } = await this.#sandboxd.fetch(request);
      if (webSocket) this.#abort = abort;
      // Otherwise the connection would stay open until the runtime collects garbage, and there is an attempt every RETRY_MS.
      else {
        void body?.cancel().catch(() => undefined);
        abort.abort();
      }
      return webSocket ?? undefined;
    } catch {
      // Nothing listens yet, or the container is stopping.
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  #accept(socket: WebSocket): WebSocket {
    socket.binaryType = "arraybuffer";
    socket.accept();
    this.#socket = socket;
    this.#unreadChars = 0;
    socket.addEventListener("message", ({ data }) => this.#message(socket, data));
    // Also if sandboxd has closed the connection, because unread calls would stay in memory.
    socket.addEventListener("close", () => this.#abortConnection(socket));
    socket.addEventListener("error", () => this.#abortConnection(socket));
    return socket;
  }

  #message(socket: WebSocket, data: unknown): void {
    if (this.#socket !== socket) return;
    try {
      if (data instanceof ArrayBuffer) {
        const piece = readPiece(data);
        return this.#followers.get(piece.id)?.onPiece(piece);
      }
      if (typeof data !== "string" || data.length > EVENT_CHARS) throw new Error("not an event");
      const event = eventSchema.parse(JSON.parse(data));
      if (event.type === "pong") for (const pong of this.#pongs.splice(0)) pong();
      else if (event.type === "typed") this.#typing.get(event.key)?.resolve(event.bytes);
      else this.#followers.get(event.id)?.onEvent(event);
    } catch {
      this.#abortConnection(socket);
    }
  }

  #abortConnection(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    this.#abort.abort();
    this.#dropConnection(socket);
  }

  #dropConnection(socket: WebSocket | undefined): void {
    if (socket === undefined || this.#socket !== socket) return;
    this.#socket = undefined;
    clearTimeout(this.#closeTimer);
    this.#closeTimer = null;
    for (const follower of this.#followers.values()) follower.onBreak();
    for (const typing of this.#typing.values()) typing.reject(inputUnconfirmed());
    try {
      socket.close(1000, "");
    } catch {
      // Already closed.
    }
    const abort = this.#abort;
    setTimeout(() => abort.abort(), CLOSE_MS);
  }

  #scheduleClose(): void {
    this.#usedAt = Date.now();
    this.#closeTimer ??= setTimeout(() => {
      this.#closeTimer = null;
      const awaited = this.#followers.size + this.#pongs.length + this.#typing.size;
      if (awaited > 0 || Date.now() - this.#usedAt < IDLE_MS) this.#scheduleClose();
      else this.#dropConnection(this.#socket);
    }, IDLE_MS);
  }
}
