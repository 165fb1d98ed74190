/** sandboxd requires the actor's token. */
import type { SandboxKV } from "../storage/sandbox-schema.ts";
import {
  IS_ENDING,
  OPEN_PREVIEWS,
  SANDBOXD_PORT,
  TOKEN_HEADER,
  TOKEN_VARIABLE,
} from "../../container/sandboxd/protocol.ts";
import { ToolError, isGone, sandboxUnresponsive } from "../shared/errors.ts";
import { CALL_MS, pause } from "../shared/timers.ts";
import { Turns } from "../shared/turns.ts";
import { containerEnded, containerGone } from "./texts.ts";

interface ContainerPort {
  readonly isRunning: boolean;
  fetch(port: number, request: Request): Promise<Response>;
  noteUse(): void;
}

export interface ContainerLifecycle {
  /** Whether a container runs and is not ending, perhaps still without its workspace. */
  readonly isRunning: boolean;
  /** Aborted when the container must not be used any more. Undefined if no container has its workspace. */
  readonly container: AbortSignal | undefined;
  /** @throws {ToolError} `no_answer` after `ms`; errors of the start or restore */
  waitUntilReady(ms?: number): Promise<unknown>;
  /** @throws {ToolError} `sandbox_restarted` if the run is over; errors of the start */
  waitUntilReadyForRun(isOver: () => boolean): Promise<void>;
}

/** How long, and how often, requests are retried while sandboxd does not respond. */
export const CONNECT_MS = 10_000;
export const RETRY_MS = 50;

const REPORT_MS = 2000;
const TOKEN_KEY = "sandboxd:token";

/**
 * Large responses of a sandbox. A program in sandboxd's place can send almost all of a response and then wait until its time is over.
 * Measured without a limit: 200 such responses to `list_files` took 2.4 GB.
 */
const READ_AT_ONCE = 2;

/**
 * Requests of an actor, except those that send a stream. The others wait, which costs almost nothing. Measured without a limit: 3,000
 * requests to a sandboxd that did not respond, each repeated every RETRY_MS, delayed other principals' calls by 25 seconds.
 */
const OPEN_AT_ONCE = 64;

/** A large response needs a turn of `turns`. */
type Reading<T> = (response: Response, turns: Turns) => Promise<T>;

export type Requesting = <T>(
  path: string,
  init: RequestInit,
  signal: AbortSignal,
  read: Reading<T>,
) => Promise<T>;

export class Sandboxd {
  readonly #port: ContainerPort;
  readonly #kv: Pick<SandboxKV, "get" | "put">;
  readonly #requests = new Turns(OPEN_AT_ONCE);
  readonly #largeResponses = new Turns(READ_AT_ONCE);

  constructor(port: ContainerPort, kv: Pick<SandboxKV, "get" | "put">) {
    this.#port = port;
    this.#kv = kv;
  }

  get isRunning(): boolean {
    return this.#port.isRunning;
  }

  get variables(): Record<string, string> {
    return { [TOKEN_VARIABLE]: this.#token };
  }

  /** In a container that an earlier version of this server started, sandboxd requires no token. */
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

  /** @param request made by this actor */
  fetch(request: Request): Promise<Response> {
    request.headers.set(TOKEN_HEADER, this.#token);
    return this.#port.fetch(SANDBOXD_PORT, request);
  }

  async report() {
    const signal = AbortSignal.timeout(REPORT_MS);
    const response = await this.fetch(new Request("http://sandboxd/", { signal })).catch(() => undefined);
    await response?.body?.cancel().catch(() => undefined);
    if (response === undefined) return undefined;
    return {
      /** Requests and WebSockets to exposed ports. */
      openPreviews: Number(response.headers.get(OPEN_PREVIEWS)),
      /** False also for earlier versions of sandboxd, which do not report this. */
      isServing: response.headers.get(IS_ENDING) === "false",
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
        // A late error would look like a broken connection to the next container.
        throw isGone(error) && container.aborted ? containerEnded() : error;
      }
    };
  }

  /**
   * Works even before the workspace is restored. Retries if sandboxd does not respond, unless the body is a stream.
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
    if (init.body instanceof ReadableStream) {
      // A stream cannot be repeated, so sandboxd must respond before.
      await this.request("/", {}, signal, async ({ body }) => body?.cancel(), isThere);
      return await this.#send(path, init, signal, read, isThere);
    }
    const endTurn = await this.#requests.take(CALL_MS);
    if (!endTurn) throw sandboxUnresponsive(CALL_MS);
    try {
      signal.throwIfAborted();
      return await this.#send(path, init, signal, read, isThere);
    } finally {
      endTurn();
    }
  }

  async #send<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: Reading<T>,
    isThere: () => boolean,
  ): Promise<T> {
    const isStream = init.body instanceof ReadableStream;
    const startedAt = Date.now();
    let deadline = startedAt + CONNECT_MS;
    for (;;) {
      if (!isThere()) throw containerGone();
      const sentAt = Date.now();
      try {
        const request = new Request(`http://sandboxd${path}`, { ...init, signal });
        return await read(await this.fetch(request), this.#largeResponses);
      } catch (error) {
        if (error instanceof ToolError) throw error;
        signal.throwIfAborted();
        // The container may be stopping. The actor checks this for some time, and reports a broken connection if it still runs.
        if (isStream || !isThere()) throw containerGone();
        // sandboxd was restarted after some work on the request, so the time to connect starts again.
        if (Date.now() - sentAt >= CONNECT_MS) deadline = Date.now() + CONNECT_MS;
        if (Date.now() >= deadline) throw sandboxUnresponsive(Date.now() - startedAt);
        await pause(RETRY_MS);
      }
    }
  }
}
