/** HTTP requests to sandboxd in this actor's container. sandboxd requires the actor's token. */
import type { SandboxKV } from "../storage/sandbox-schema.ts";
import {
  IS_ENDING,
  IS_LISTENING,
  OPEN_PREVIEWS,
  SANDBOXD_PORT,
  TOKEN_HEADER,
  TOKEN_VARIABLE,
} from "../../container/sandboxd/protocol.ts";
import { ToolError, isGone, sandboxUnresponsive } from "../shared/errors.ts";
import { MAX_HELD_BYTES, hold, holdWhenRoom } from "../shared/limits.ts";
import { LimitedQueue } from "../shared/queue.ts";
import { READ_MS } from "../shared/stream-bytes.ts";
import { CALL_MS, pauseUnlessAborted } from "../shared/timers.ts";
import { containerEnded, containerGone } from "./texts.ts";

/** The platform's connection to the container. */
interface ContainerPort {
  readonly isRunning: boolean;
  fetch(port: number, request: Request): Promise<Response>;
  noteUse(): void;
}

export interface ContainerLifecycle {
  /** Whether a container runs and is not ending. Its workspace may not be restored yet. */
  readonly isRunning: boolean;
  /** A signal that is aborted when the container must not be used any more. Undefined if no container has its workspace. */
  readonly container: AbortSignal | undefined;
  /** Waits for a container with its workspace. @throws {ToolError} `no_answer` after `ms`; errors of the start or restore */
  waitUntilReady(ms?: number): Promise<unknown>;
  /** Like `waitUntilReady`, for a run. @throws {ToolError} `sandbox_restarted` if the run is over; errors of the start */
  waitUntilReadyForRun(isOver: () => boolean): Promise<void>;
}

/** How long to retry while sandboxd does not respond, and the pause between attempts, in milliseconds. */
export const CONNECT_MS = 10_000;
export const RETRY_MS = 50;

/** The pause of a longer body is LARGE_RETRY_MS, because each copy takes memory. */
const LARGE_BODY = 64 * 1024;
const LARGE_RETRY_MS = 2000;

/** How long sandboxd may take to report about itself, in milliseconds. */
const REPORT_MS = 2000;
const TOKEN_KEY = "sandboxd:token";

/** How many requests of an actor, except streams, are open at once. The others wait, which costs almost nothing. */
const OPEN_AT_ONCE = 64;

/** Counts a large response while it is read: see `Bounds.reserve` in stream-bytes.ts. */
export type Reserve = (bytes: number) => Promise<(() => void) | undefined>;

type Reading<T> = (response: Response, reserve: Reserve) => Promise<T>;

export type Requesting = <T>(
  path: string,
  init: RequestInit,
  signal: AbortSignal,
  read: Reading<T>,
) => Promise<T>;

export class Sandboxd {
  readonly #port: ContainerPort;
  readonly #kv: Pick<SandboxKV, "get" | "put">;
  readonly #requests = new LimitedQueue(OPEN_AT_ONCE);
  readonly #principalID: () => string | undefined;

  constructor(
    port: ContainerPort,
    kv: Pick<SandboxKV, "get" | "put">,
    principalID: () => string | undefined,
  ) {
    this.#port = port;
    this.#kv = kv;
    this.#principalID = principalID;
  }

  /** All responses of a principal's sandboxes that are read at once share half the limit, because several principals share the isolate. */
  readonly #reserve: Reserve = async (bytes) => {
    const holder = `responses to ${this.#principalID() ?? ""}`;
    const hasRoom = await holdWhenRoom(holder, bytes, { ms: READ_MS, roomToLeave: MAX_HELD_BYTES / 2 });
    return hasRoom ? () => hold(holder, -bytes) : undefined;
  };

  get isRunning(): boolean {
    return this.#port.isRunning;
  }

  get variables(): Record<string, string> {
    return { [TOKEN_VARIABLE]: this.#token };
  }

  /** The token for sandboxd. */
  get #token(): string {
    const stored = this.#kv.get<string>(TOKEN_KEY);
    if (stored !== undefined) return stored;
    const token = crypto.randomUUID() + crypto.randomUUID();
    this.#kv.put(TOKEN_KEY, token);
    return token;
  }

  isToken(token: string): boolean {
    return token === this.#token;
  }

  noteUse(): void {
    this.#port.noteUse();
  }

  /** Sends a request to sandboxd with its token. @param request made by this actor */
  fetch(request: Request): Promise<Response> {
    request.headers.set(TOKEN_HEADER, this.#token);
    return this.#port.fetch(SANDBOXD_PORT, request);
  }

  /** sandboxd's report about itself, and about `port`; undefined if it does not respond. */
  async report(port?: number) {
    const signal = AbortSignal.timeout(REPORT_MS);
    const headers: Record<string, string> = port === undefined ? {} : { [IS_LISTENING]: String(port) };
    const request = new Request("http://sandboxd/", { signal, headers });
    const response = await this.fetch(request).catch(() => undefined);
    await response?.body?.cancel().catch(() => undefined);
    if (response === undefined) return undefined;
    return {
      /** How many requests and WebSockets to exposed ports are open. */
      openPreviews: Number(response.headers.get(OPEN_PREVIEWS)),
      /** Whether sandboxd says that its container is not ending. */
      isServing: response.headers.get(IS_ENDING) === "false",
      /** Whether sandboxd says that nothing listens on `port`. */
      isSilent: response.headers.get(IS_LISTENING) === "false",
    };
  }

  /** Like `request`, but counts as use, and waits for the workspace. @throws {ToolError} also errors of the start */
  withWorkspace(lifecycle: Pick<ContainerLifecycle, "container" | "waitUntilReady">): Requesting {
    return async (...request) => {
      while (!lifecycle.container) await lifecycle.waitUntilReady(CALL_MS);
      const { container } = lifecycle;
      const isThere = () => {
        this.noteUse();
        return lifecycle.container === container;
      };
      try {
        return await this.request(...request, isThere);
      } catch (error) {
        // If the container has ended, the error says so. A late error would look like a broken connection to the next container.
        throw isGone(error) && container.aborted ? containerEnded() : error;
      }
    };
  }

  /**
   * Makes a request, even before the workspace is restored, and reads the response. Retries if sandboxd does not respond, unless
   * the body is a stream.
   * @param isThere whether the intended container still exists; called before each attempt
   * @throws {ToolError} `no_answer` if nothing responds, `sandbox_restarted`, errors of `read`
   */
  async request<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: Reading<T>,
    isThere: () => boolean = () => this.isRunning,
  ): Promise<T> {
    const isStream = init.body instanceof ReadableStream;
    const send = async () => {
      signal.throwIfAborted();
      return await this.#send(path, init, signal, read, isThere);
    };
    if (!isStream) return await this.#requests.run(send);
    // sandboxd must respond before a stream is sent, because a stream cannot be repeated.
    await this.request("/", {}, signal, async ({ body }) => body?.cancel(), isThere);
    return await send();
  }

  async #send<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: Reading<T>,
    isThere: () => boolean,
  ): Promise<T> {
    const { body } = init;
    const isStream = body instanceof ReadableStream;
    const isLarge = (typeof body === "string" || body instanceof Uint8Array) && body.length > LARGE_BODY;
    const startedAt = Date.now();
    let deadline = startedAt + CONNECT_MS;
    for (;;) {
      if (!isThere()) throw containerGone();
      const sentAt = Date.now();
      try {
        const request = new Request(`http://sandboxd${path}`, { ...init, signal });
        const response = await this.fetch(request);
        return await read(response, this.#reserve);
      } catch (error) {
        if (error instanceof ToolError) throw error;
        signal.throwIfAborted();
        // The container may be stopping. The actor checks this for some time. If the container still runs afterwards, the actor
        // reports a broken connection.
        if (isStream || !isThere()) throw containerGone();
        // sandboxd worked on the request for a while and was then restarted, so the time to connect starts again.
        if (Date.now() - sentAt >= CONNECT_MS) deadline = Date.now() + CONNECT_MS;
        if (Date.now() >= deadline) throw sandboxUnresponsive(Date.now() - startedAt);
        await pauseUnlessAborted(isLarge ? LARGE_RETRY_MS : RETRY_MS, signal);
      }
    }
  }
}
