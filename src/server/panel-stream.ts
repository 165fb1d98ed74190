/**
 * `POST /panel/stream`: sends a panel page the results that it watches, as server-sent events. The server calls the same tools
 * as the page would at `/panel/mcp`, through the same guards, and sends each changed result. Every request states the log
 * offset to read from, so a broken connection causes neither gaps nor repeated lines.
 */
import * as z from "zod";
import { PANEL_MCP_PATH } from "../auth/paths.ts";
import { parseSafely } from "../shared/bounded.ts";
import { issueMessage } from "../shared/argument-issues.ts";
import { RequestMemory } from "../shared/request-memory.ts";
import { isRecord } from "../shared/is-record.ts";
import { rateLimited, isRateLimited } from "../shared/limiter.ts";
import { logError } from "../shared/log.ts";
import { noTurn } from "../shared/request-turns.ts";
import { CALL_MS, pauseUnlessAborted } from "../shared/timers.ts";
import { Turns, TurnsByID } from "../shared/turns.ts";
import type { Caller, CallerContext } from "../shared/request-context.ts";
import { json, type Refusal } from "../shared/responses.ts";
import { isReadWhole, POLL_MS, logPauseMs, nextOffset, terminalPauseMs } from "../shared/watch-intervals.ts";
import { readJSON } from "./body.ts";
import { EVENT_HEADERS, KEEP_ALIVE } from "./event-stream.ts";
import { UnbufferedBody } from "./unbuffered.ts";
import { STREAM_TEXTS } from "./texts.ts";

/** The lifetime of one stream. It limits the polls: one request to a Worker may make only 1000 calls. */
const STREAM_MS = 300_000;
const MAX_POLLS = 150;

/** The interval of session checks. Each check also sends a keep-alive comment. */
const SESSION_MS = 5000;

const POLL_WAIT_SECONDS = 20;

const MAX_WATCHED = 8;

const MAX_WATCH_LENGTH = 8192;

/** The longest that an event waits for its reader. */
const STALL_MS = 30_000;

/** The most streams of a principal in one isolate. Their polls are rate limited across all isolates. */
const MAX_STREAMS = 20;

/**
 * The most streams of a principal that are open, or that have ended but still wait for a call. Without this limit, clients that open
 * streams and disconnect would start eight calls with each.
 */
const MAX_UNFINISHED = 64;

/** If a stream has not checked its session for this many milliseconds, the platform has ended its request. */
const STREAM_EXPIRY_MS = STALL_MS + 2 * SESSION_MS;

/** A principal's polls take turns, unless they wait for output, because each takes the thread's time for its tool and its result. */
const polls = new TurnsByID(() => new Turns(1));

/** Why a stream ended. After `again` the page reconnects at once, after `busy` later. */
type End = "again" | "busy" | "replaced" | "signed_out";

const list = (name: "list_sandboxes" | "list_runs") =>
  z.strictObject({ name: z.literal(name), arguments: z.record(z.string(), z.unknown()).default({}) });

const watchSchema = z.discriminatedUnion("name", [
  list("list_sandboxes"),
  list("list_runs"),
  z.strictObject({
    name: z.literal("get_result"),
    arguments: z.strictObject({ id: z.string(), cursor: z.number().int().min(0) }),
    raw: z.boolean().optional(),
  }),
]);

const requestSchema = z.strictObject({
  /** Chosen by the page and the same for all its streams: a new stream replaces the old one. */
  page: z.string().regex(/^[\w-]{8,64}$/, "must be 8 to 64 letters, digits, - and _"),
  watch: z
    .array(watchSchema)
    .min(1)
    .max(MAX_WATCHED)
    .refine((value) => JSON.stringify(value).length <= MAX_WATCH_LENGTH, "is too long"),
});

type WatchRequest = z.output<typeof watchSchema>;

interface PanelGuards {
  /** The caller of the request's session, or the refusal if that session is no longer valid. */
  callerOf(request: Request): Promise<Caller | Refusal>;
  mcp(request: Request, caller: CallerContext): Promise<Response>;
}

/** Serves the stream with the guards of `/panel/mcp`. For the rate limit, the request itself counts as the first poll. */
export async function panelStream(
  request: Request,
  caller: CallerContext,
  guards: PanelGuards,
): Promise<Response | Refusal> {
  const memory = new RequestMemory(caller.principal.id, request.signal);
  const body = await readJSON(request, { ...caller, memory }).finally(() => memory.release());
  if ("problem" in body && body.problem === "no_turn") return noTurn();
  const { data, error } = requestSchema.safeParse("value" in body ? body.value : undefined, {
    error: issueMessage,
  });
  if (!data) {
    const [issue] = error.issues;
    const message = "problem" in body ? STREAM_TEXTS.notJSON : `${issue?.path.join(".")} ${issue?.message}`;
    return { reason: "bad_body", response: json({ error: "Bad request", message }, 400) };
  }
  const { id: principal } = caller.principal;
  if (await isRateLimited(caller.env.RATE_LIMITER, principal, data.watch.length - 1)) return rateLimited();
  const registration = openStream(principal, data.page);
  if (!registration) return rateLimited();
  const stream = new PanelStream(request, caller, guards, registration);
  void stream.run(data.watch);
  return new Response(stream.body.readable, { headers: EVENT_HEADERS });
}

class PanelStream {
  readonly #request: Request;
  readonly #caller: CallerContext;
  readonly #guards: PanelGuards;
  readonly #registration: OpenStream;
  /** Unbuffered: if the client does not read, at most one event of each watched call waits in memory. */
  readonly body = new UnbufferedBody(() => this.#ended.abort());
  readonly #encoder = new TextEncoder();
  readonly #ended = new AbortController();
  #polls = 0;
  /** How many polls were counted for the rate limit when the stream was opened. */
  #countedPolls = 0;

  constructor(request: Request, caller: CallerContext, guards: PanelGuards, registration: OpenStream) {
    this.#request = request;
    this.#caller = caller;
    this.#guards = guards;
    this.#registration = registration;
    this.#ended.signal.addEventListener("abort", () => (registration.isClosed = true));
    // The client may have disconnected already.
    if (request.signal.aborted) this.#ended.abort();
    request.signal.addEventListener("abort", () => this.#ended.abort());
  }

  async run(watch: readonly WatchRequest[]): Promise<void> {
    this.#countedPolls = watch.length;
    try {
      const loops = watch.map((call, index) =>
        call.name === "get_result" ? this.#follow(call, index) : this.#watch(call, index),
      );
      await Promise.all([this.#keepAlive(), ...loops]);
    } catch (error) {
      if (!this.#isEnded) logError(this.#caller, "panel_stream", error);
      this.#break(STREAM_TEXTS.failed);
    } finally {
      this.#registration.isFinished = true;
    }
  }

  get #isEnded(): boolean {
    return this.#ended.signal.aborted;
  }

  async #watch({ name, arguments: args }: WatchRequest, index: number): Promise<void> {
    let sent: string | undefined;
    while (!this.#isEnded) {
      const reply = await this.#poll(name, args);
      if (!reply) return;
      const event = JSON.stringify({ watch: index, ...reply });
      if (event !== sent) await this.#push(event);
      if ("refused" in reply) return;
      sent = event;
      await pauseUnlessAborted(POLL_MS[name], this.#ended.signal);
    }
  }

  async #follow(
    { arguments: args, raw }: Extract<WatchRequest, { name: "get_result" }>,
    index: number,
  ): Promise<void> {
    let { cursor } = args;
    let wait_seconds = 0;
    let sent: string | undefined;
    while (!this.#isEnded) {
      const startedAt = Date.now();
      const reply = await this.#poll("get_result", { id: args.id, cursor, wait_seconds }, raw);
      if (!reply) return;
      const event = JSON.stringify({ watch: index, ...reply });
      if (event !== sent) await this.#push(event);
      const page = positionSchema.safeParse("data" in reply ? reply.data : undefined).data;
      if (!page || isReadWhole(page)) return;
      sent = event;
      const pauseMs = raw ? terminalPauseMs(page, cursor, Date.now() - startedAt) : logPauseMs(page);
      cursor = nextOffset(page);
      wait_seconds = Math.min(POLL_WAIT_SECONDS, this.#caller.config.maxWaitSeconds);
      await pauseUnlessAborted(pauseMs, this.#ended.signal);
    }
  }

  async #poll(name: string, args: object, raw = false): Promise<PollResult | undefined> {
    if (++this.#polls > MAX_POLLS) return this.#end("again");
    const { env, principal } = this.#caller;
    if (this.#polls > this.#countedPolls && (await isRateLimited(env.RATE_LIMITER, principal.id)))
      return this.#end("busy");
    const url = new URL(`${PANEL_MCP_PATH}?results=${raw ? "raw" : "structured"}`, this.#request.url);
    const headers = new Headers(this.#request.headers);
    headers.set("accept", "application/json, text/event-stream");
    headers.delete("content-length");
    const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
    // When the server ends the stream, the platform ends its polls without their `finally`. Then only a signal releases their memory.
    const { signal } = this.#ended;
    const call = new Request(url, { method: "POST", headers, body: JSON.stringify(message), signal });
    const waits = "wait_seconds" in args && args.wait_seconds !== 0;
    const endTurn = waits ? undefined : await polls.take(principal.id, CALL_MS, this.#ended.signal);
    try {
      const response = await this.#guards.mcp(call, this.#caller);
      const text = await response.text();
      if (this.#isEnded) return undefined;
      if (response.status === 429 || response.status >= 500) return this.#end("busy");
      return parsePollResult(text);
    } finally {
      endTurn?.();
    }
  }

  async #push(event: string): Promise<void> {
    if (await this.#isSignedIn()) await this.#write(`data: ${event}\n\n`);
  }

  async #keepAlive(): Promise<void> {
    const endsAt = Date.now() + STREAM_MS;
    while (!this.#isEnded) {
      await pauseUnlessAborted(SESSION_MS, this.#ended.signal);
      if (Date.now() >= endsAt) return this.#end("again");
      if (await this.#isSignedIn()) await this.#write(KEEP_ALIVE);
    }
  }

  async #isSignedIn(): Promise<boolean> {
    this.#registration.aliveAt = Date.now();
    const caller = await this.#guards.callerOf(this.#request);
    if (this.#isEnded) return false;
    if (this.#registration.isClosed) this.#end("replaced");
    else if ("principal" in caller && caller.principal.id === this.#caller.principal.id) return true;
    else this.#end("response" in caller && caller.response.status !== 401 ? "busy" : "signed_out");
    return false;
  }

  #end(reason: End): undefined {
    if (this.#isEnded) return;
    this.#ended.abort();
    this.body.end(this.#encoder.encode(`event: end\ndata: ${JSON.stringify({ reason })}\n\n`));
  }

  #break(reason: string): void {
    this.#ended.abort();
    this.body.fail(reason);
  }

  async #write(text: string): Promise<void> {
    const stalled = setTimeout(() => this.#break(STREAM_TEXTS.notRead), STALL_MS);
    await this.body.write(this.#encoder.encode(text));
    clearTimeout(stalled);
  }
}

/** The result of a poll as it is sent to the page. A `refused` call is not repeated. */
type PollResult = { data: unknown } | { problem: string } | { refused: string };

const positionSchema = z.object({ state: z.string(), next_cursor: z.number(), log_bytes: z.number() });

function parsePollResult(body: string): PollResult {
  const message = body.split(/\r?\n/).findLast((line) => line.startsWith("data: {"));
  const reply = parseSafely(message?.slice("data: ".length) ?? body);
  if (!isRecord(reply)) return { refused: "" };
  const { result, error } = reply;
  if (!isRecord(result))
    return { refused: String(isRecord(error) ? error.message : (reply.message ?? STREAM_TEXTS.notShown)) };
  if (result.isError !== true) return { data: result.structuredContent };
  const content = Array.isArray(result.content) ? result.content.filter(isRecord) : [];
  return { problem: content.map(({ text }) => text).join("\n") };
}

interface OpenStream {
  page: string;
  /** When the session was last checked, in milliseconds since the epoch. */
  aliveAt: number;
  /** The stream has ended, or must end because another one replaced it. */
  isClosed: boolean;
  /** None of its calls is in progress. */
  isFinished: boolean;
}

const openStreams = new Map<string, Set<OpenStream>>();

function openStream(principal: string, page: string): OpenStream | undefined {
  const now = Date.now();
  for (const [key, streams] of openStreams) {
    for (const stream of streams)
      if (stream.isFinished || stream.aliveAt + STREAM_EXPIRY_MS < now) streams.delete(stream);
    if (streams.size === 0) openStreams.delete(key);
  }
  const streams = openStreams.get(principal) ?? new Set<OpenStream>();
  if (streams.size >= MAX_UNFINISHED) return undefined;
  for (const stream of streams) if (stream.page === page) stream.isClosed = true;
  const open = [...streams].filter(({ isClosed }) => !isClosed);
  if (open.length >= MAX_STREAMS) return undefined;
  const registration = { page, aliveAt: now, isClosed: false, isFinished: false };
  openStreams.set(principal, streams.add(registration));
  return registration;
}
