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
import { DAY_MS } from "../shared/days.ts";
import { pacesOf, takeOf } from "../shared/per-principal.ts";
import { countBefore } from "../shared/request-turns.ts";
import { type BodyTurns, READ_MS, TURN_MS } from "../shared/stream-bytes.ts";
import { CALL_MS, pauseUnlessAborted } from "../shared/timers.ts";
import { type TakesTurns, Turns, TurnsByID, takeAll } from "../shared/turns.ts";
import { connectionsBreak, containerEnded, containerGone, tooManyUploads } from "./texts.ts";

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

/**
 * The rate of the repetitions for all sandboxes of a principal. Measured without it: 640 requests to ten sandboxes, in which a program in
 * sandboxd's place broke each connection, used 40 % of the thread.
 */
const REPETITIONS = { burst: 200, perSecond: 200 };
const repetitions = pacesOf(REPETITIONS);

/**
 * A longer body is sent at most MAX_LARGE_SENDS times, and again only when sandboxd responds to another request. A program in sandboxd's
 * place can break each connection: with 8 bodies of 6.5 MB, each sent every RETRY_MS, workerd's memory grew by 2.4 GB.
 */
const LARGE_BODY = 64 * 1024;
const MAX_LARGE_SENDS = 3;

/** How long sandboxd may take to report about itself, in milliseconds. */
const REPORT_MS = 2000;
const TOKEN_KEY = "sandboxd:token";

/**
 * How many large responses of a sandbox, of all sandboxes of a principal, and of all sandboxes are read at once. A program in sandboxd's
 * place can send almost all of a response and then wait until its time is over. With only the limit of a sandbox, those of ten sandboxes
 * took 194 MiB of V8's heap. An isolate on Cloudflare has 128 MB. Each principal has at most LONG_BY_PRINCIPAL responses in the line for
 * the last limit.
 */
const READ_AT_ONCE = 2;
const READ_BY_PRINCIPAL = 5;
const LONG_BY_PRINCIPAL = 2;
const READ_BY_ALL = 7;

/**
 * The largest response, by its announced size, that needs no turn of all sandboxes. With such a turn for each large response, two
 * principals could occupy all turns.
 */
const SHORT_BYTES = 1024 * 1024;

/**
 * A read ends after TURN_MS. The last of many reads that wait for a turn has little time left, so the end of its wait does not show
 * that the turns will never end. A principal's turn begins before the wait for the last limit.
 */
const LONGEST_READ_MS = 2 * TURN_MS;
const readByPrincipals = new TurnsByID(() => new Turns(READ_BY_PRINCIPAL), READ_MS + LONGEST_READ_MS);
const longByPrincipals = new TurnsByID(() => new Turns(LONG_BY_PRINCIPAL), READ_MS + LONGEST_READ_MS);
const readByAll = new TurnsByID(() => new Turns(READ_BY_ALL), LONGEST_READ_MS);

/** How many requests of an actor, except uploads, are open at once. The others wait, which costs almost nothing. */
const OPEN_AT_ONCE = 64;
/**
 * How many uploads of a sandbox, and of all sandboxes of a principal, are in progress at once. Without a limit, 256 of them, whose clients
 * sent nothing, occupied all connections to sandboxd. One that no program reads keeps 6 MB of the kernel's memory until it ends.
 */
const UPLOADS_AT_ONCE = 32;
const UPLOADS_OF_PRINCIPAL = 64;
/** An upload lasts at most a day. */
const uploadsOfPrincipals = new TurnsByID(() => new Turns(UPLOADS_OF_PRINCIPAL), DAY_MS);

/** The turns for large responses: for those that are parsed, and for others. */
export type ReadTurns = Record<"parsed" | "plain", BodyTurns>;

/** Reads a response. A large response needs a turn of `turns`. */
type Reading<T> = (response: Response, turns: ReadTurns) => Promise<T>;

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
  readonly #uploads = new Turns(UPLOADS_AT_ONCE);
  readonly #ownLargeResponses = new Turns(READ_AT_ONCE);
  readonly #principalID: () => string | undefined;

  constructor(
    port: ContainerPort,
    kv: Pick<SandboxKV, "get" | "put">,
    principalID: () => string | undefined = () => undefined,
  ) {
    this.#port = port;
    this.#kv = kv;
    this.#principalID = principalID;
  }

  /**
   * Waits for a turn of this sandbox, and for one of its principal. A response that is not short also waits for one of the two for such
   * responses of the principal, and for one of all sandboxes. A response that is parsed counts like an answer of the principal, because
   * the answer to the call may be much shorter: a completion lists 2,000 files. Measured without this: while calls read 8 MB each and
   * showed 26 characters, a neighbour's call took up to twelve times as long.
   */
  #takeReadTurn(ms: number, bytes: number, isParsed: boolean): Promise<(() => void) | undefined> {
    const principalID = this.#principalID() ?? "";
    const isLong = bytes > SHORT_BYTES;
    const takes: TakesTurns["take"][] = [(left) => this.#ownLargeResponses.take(left)];
    // First: long responses that wait for this turn must not take all turns of the principal.
    if (isLong) takes.push((left) => longByPrincipals.take(principalID, left));
    takes.push((left) => readByPrincipals.take(principalID, left));
    if (isParsed) takes.push(() => countBefore(principalID, bytes).then(() => () => undefined));
    if (isLong) takes.push((left) => readByAll.take("", left));
    return takeAll(takes, ms);
  }

  /** Waits for a turn of this sandbox, and for one of its principal. */
  #takeUploadTurn(ms: number): Promise<(() => void) | undefined> {
    const takes: TakesTurns["take"][] = [
      (left) => this.#uploads.take(left),
      (left) => uploadsOfPrincipals.take(this.#principalID() ?? "", left),
    ];
    return takeAll(takes, ms);
  }

  get isRunning(): boolean {
    return this.#port.isRunning;
  }

  get variables(): Record<string, string> {
    return { [TOKEN_VARIABLE]: this.#token };
  }

  /** The token for sandboxd. In a container that an earlier version of this server started, sandboxd requires no token. */
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
      /** Whether sandboxd says that its container is not ending. False for earlier versions, which do not report this. */
      isServing: response.headers.get(IS_ENDING) === "false",
      /** Whether sandboxd says that nothing listens on `port`. False for earlier versions, which do not report this. */
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
   * Makes a request, even before the workspace is restored, and reads the response. Retries if sandboxd does not respond,
   * unless the body is a stream, which can be sent only once.
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
    // Restores are streams too. Uploads, whose clients may send nothing for hours, must not prevent the start of other sandboxes.
    const isUpload = isStream && !path.startsWith("/snapshot/");
    const endTurn = await (isUpload ? this.#takeUploadTurn(CALL_MS) : this.#requests.take(CALL_MS));
    if (!endTurn)
      throw isUpload ? tooManyUploads(UPLOADS_AT_ONCE, UPLOADS_OF_PRINCIPAL) : sandboxUnresponsive(CALL_MS);
    try {
      signal.throwIfAborted();
      // sandboxd must respond before a stream is sent, because a stream cannot be repeated.
      if (isStream) await this.request("/", {}, signal, async ({ body }) => body?.cancel(), isThere);
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
    const { body } = init;
    const isStream = body instanceof ReadableStream;
    const isLarge = (typeof body === "string" || body instanceof Uint8Array) && body.length > LARGE_BODY;
    let sends = 0;
    const startedAt = Date.now();
    let deadline = startedAt + CONNECT_MS;
    for (;;) {
      if (!isThere()) throw containerGone();
      const sentAt = Date.now();
      try {
        const request = new Request(`http://sandboxd${path}`, { ...init, signal });
        const response = await this.fetch(request);
        return await read(response, {
          parsed: { take: (ms, bytes) => this.#takeReadTurn(ms, bytes, true) },
          plain: { take: (ms, bytes) => this.#takeReadTurn(ms, bytes, false) },
        });
      } catch (error) {
        if (error instanceof ToolError) throw error;
        signal.throwIfAborted();
        // The container may be stopping. The actor checks this for some time. If the container still runs afterwards, the actor
        // reports a broken connection.
        if (isStream || !isThere()) throw containerGone();
        // sandboxd worked on the request for a while and was then restarted, so the time to connect starts again.
        if (Date.now() - sentAt >= CONNECT_MS) deadline = Date.now() + CONNECT_MS;
        if (isLarge && ++sends === MAX_LARGE_SENDS) throw connectionsBreak(sends);
        if (Date.now() >= deadline) throw sandboxUnresponsive(Date.now() - startedAt);
        const ms = Math.max(RETRY_MS, takeOf(repetitions, this.#principalID(), 1));
        await pauseUnlessAborted(ms, signal);
        if (isLarge) await this.#send("/", {}, signal, async (answer) => answer.body?.cancel(), isThere);
      }
    }
  }
}
