/** Calls to one server: tools by MCP, files by plain HTTP. */
import {
  type CallToolResult,
  Client,
  InsufficientScopeError,
  type JsonSchemaValidator,
  type jsonSchemaValidator,
  ProtocolError,
  SdkHttpError,
  StreamableHTTPClientTransport,
} from "@modelcontextprotocol/client";
import {
  AccessError,
  CallError,
  ConnectionError,
  InputError,
  SandboxError,
  UnavailableError,
  WRONG_ADDRESS,
} from "./errors.ts";
import * as texts from "./texts.ts";
import {
  ERROR_META,
  MAX_WAIT_SECONDS,
  type ToolInputs,
  type ToolName,
  type ToolOutputs,
} from "./tool-types.ts";

/** The limit of a response: far more than a page of a log or of a directory, or a run with its images. */
const MAX_RESPONSE_MIB = 64;
const MAX_RESPONSE_BYTES = MAX_RESPONSE_MIB * 1024 * 1024;

const CALL_TIMEOUT_MS = 2 * MAX_WAIT_SECONDS * 1000;

/** The time between two polls. With it, all runs of a connection together use at most half of the server's limit of calls. */
const POLL_EVERY_MS = 100;

export interface ConnectOptions {
  /** The server's MCP endpoint, such as `https://sandbox.example.com/mcp`. */
  url: string | URL;
  /** A bearer token that the server accepts. */
  token: string;
  /** Replaces the global `fetch`. */
  fetch?: typeof fetch;
  /** This program's name in the server's log. */
  clientName?: string;
}

/** The form of results. The forms differ only for terminals: `raw` keeps the control sequences in their output. */
export type Results = "structured" | "raw";

export interface ToolResult<Data> {
  data: Data;
  content: CallToolResult["content"];
}

export class Connection {
  readonly url: URL;
  readonly #token: string;
  readonly #fetch: typeof fetch;
  readonly #clientName: string;
  readonly #results: Results;
  #isClosed = false;
  #nextPollAt = 0;
  #client: Promise<Client> | undefined;

  constructor(
    { url, token, fetch: given = fetch, clientName = "sandbox-mcp-client" }: ConnectOptions,
    results: Results = "structured",
  ) {
    this.#results = results;
    this.url = new URL(url);
    this.#token = token;
    // Browsers and Workers refuse a `fetch` that is called as a method of another object.
    this.#fetch = (...args) => fetchDirectly(given, ...args);
    this.#clientName = clientName;
  }

  /**
   * Calls a tool.
   * @throws {CallError} with the tool error's code and hint
   * @throws {AccessError} for a token that is invalid or lacks the scope
   * @throws {ConnectionError} if no response arrives
   */
  async call<Name extends ToolName>(
    name: Name,
    input: ToolInputs[Name],
  ): Promise<ToolResult<ToolOutputs[Name]>> {
    let result: CallToolResult;
    try {
      const client = await this.open();
      const request = { name, arguments: { ...input } };
      result = await client.callTool(request, { timeout: CALL_TIMEOUT_MS });
    } catch (error) {
      throw this.#explain(error);
    }
    const { content, structuredContent, isError, _meta } = result;
    if (isError) throw failureOf(name, content, _meta?.[ERROR_META]);
    return { data: { ...(structuredContent as object | undefined) } as ToolOutputs[Name], content };
  }

  /** Sends a plain HTTP request with the token. @throws {SandboxError} for every response except 2xx */
  async http(path: string, init: RequestInit = {}): Promise<Response> {
    if (this.#isClosed) throw this.#explain(undefined);
    let response: Response;
    try {
      const headers = { ...init.headers, authorization: `Bearer ${this.#token}` };
      response = await this.#fetch(new URL(path, this.url), { ...init, headers });
      const isDownload = (init.method ?? "GET") === "GET" && response.ok && isFile(response);
      if (!isDownload) response = boundResponse(response);
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw this.#explain(error);
    }
    if (response.ok) return response;
    throw await this.#refusalOf(response);
  }

  /** The content of a response. @throws {ConnectionError} if the connection breaks, or if the content is not JSON */
  async received<T>(content: Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await content;
    } catch (error) {
      throw signal?.aborted ? error : this.#explain(error);
    }
  }

  /** Refuses a result that lacks what this server always sends. @throws {CallError} */
  requireForm(isValid: boolean): asserts isValid {
    if (!isValid) throw new CallError(WRONG_ADDRESS, ...texts.wrongForm(this.url.href));
  }

  /** Waits until this connection may poll again. */
  async waitForPollTurn(): Promise<void> {
    // The clock is read once. Otherwise the pause could be negative, and Node would print a warning.
    const now = Date.now();
    const at = Math.max(now, this.#nextPollAt);
    this.#nextPollAt = at + POLL_EVERY_MS;
    await pause(at - now);
  }

  /** Ends the connection for good. Calls in progress fail, and so does every later one. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const client = await this.#client?.catch(() => undefined);
    await client?.close();
  }

  async tools(): Promise<string[]> {
    const { tools } = await (await this.open()).listTools();
    return tools.map(({ name }) => name);
  }

  /** Connects, as the first call does. @throws {SandboxError} on failure; the next call retries */
  open(): Promise<Client> {
    if (this.#isClosed) return Promise.reject(this.#explain(undefined));
    this.#client ??= this.#connect().catch((error: unknown) => {
      this.#client = undefined;
      throw this.#explain(error);
    });
    return this.#client;
  }

  async #connect(): Promise<Client> {
    const url = new URL(this.url);
    url.searchParams.set("results", this.#results);
    const client = new Client({ name: this.#clientName, version: "1" }, { jsonSchemaValidator: TRUSTING });
    const requestInit = { headers: { authorization: `Bearer ${this.#token}` } };
    // Refusals become errors here, because the SDK's errors have no headers such as Retry-After.
    const fetchOrRefuse: typeof fetch = async (...args) => {
      const response = boundResponse(await this.#fetch(...args));
      if (response.status === 429 || response.status >= 500) throw await this.#refusalOf(response);
      return isEventStream(response) ? withEnd(response, args[1]?.body) : response;
    };
    // Reopens no stream: this server opens none for its own messages, and another one could ask for reconnections without a pause.
    const reconnectionScheduler = () => undefined;
    const options = { requestInit, fetch: fetchOrRefuse, reconnectionScheduler };
    await client.connect(new StreamableHTTPClientTransport(url, options));
    return client;
  }

  async #refusalOf(response: Response): Promise<SandboxError> {
    const retryAfter = response.headers.get("retry-after");
    const body = await this.received(response.text());
    return refusal(this.url.href, response.status, body, retryAfter);
  }

  #explain(error: unknown): SandboxError {
    for (let cause = error; cause instanceof Error; { cause } = cause)
      if (cause instanceof SandboxError) return cause;
    if (this.#isClosed) return new SandboxError("closed", ...texts.CLOSED);
    if (error instanceof SdkHttpError)
      return refusal(this.url.href, error.status, String(error.data.text ?? ""));
    // For a 403 the SDK's error has the WWW-Authenticate challenge, but not the body.
    if (error instanceof InsufficientScopeError)
      return new AccessError(403, error.errorDescription ?? error.message);
    if (error instanceof ProtocolError && error.code === STREAM_ENDED)
      return error.data === TOO_LARGE ? tooLarge() : new ConnectionError(this.url.href, error);
    // The server has responded, with a JSON-RPC error.
    if (error instanceof ProtocolError) return new CallError("invalid_argument", error.message);
    return new ConnectionError(this.url.href, error);
  }
}

/** Whether a response is a file: the server sends a file as an attachment, and a directory as a list. */
export function isFile({ headers }: Response): boolean {
  return headers.get("content-disposition") !== null;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/**
 * Follows no redirect: fetch would send the call, which may contain secrets, to the new address.
 * @throws {CallError} for a redirect
 */
export async function fetchDirectly(
  send: typeof fetch,
  ...[url, init]: Parameters<typeof fetch>
): Promise<Response> {
  const response = await send(url, { ...init, redirect: "manual" });
  // Browsers hide the status and the headers of a redirect.
  if (response.type !== "opaqueredirect" && !REDIRECTS.has(response.status)) return response;
  const target = response.headers.get("location")?.slice(0, 300) ?? "another address";
  await response.body?.cancel();
  const address = url instanceof Request ? url.url : url;
  throw new CallError(WRONG_ADDRESS, ...texts.redirected(String(address), target));
}

/** The statuses of responses without a body: https://fetch.spec.whatwg.org/#null-body-status. */
const NO_BODY = new Set([204, 205, 304]);

/**
 * Makes the body of a response fail after MAX_RESPONSE_BYTES, because the body is kept in memory. In an event stream, the limit is
 * for each event.
 */
export function boundResponse(response: Response): Response {
  // In Chromium a 204 has an empty body, but the constructor of Response refuses any body for this status.
  if (response.body === null || NO_BODY.has(response.status)) return response;
  const isStream = isEventStream(response);
  let bytes = 0;
  const counter = new TransformStream<Uint8Array, Uint8Array>({
    transform(piece, controller) {
      const eventEnd = isStream ? endOfLastEvent(piece) : 0;
      bytes = (eventEnd > 0 ? 0 : bytes) + piece.length - eventEnd;
      if (bytes > MAX_RESPONSE_BYTES) throw tooLarge();
      controller.enqueue(piece);
    },
  });
  return new Response(response.body.pipeThrough(counter), response);
}

const TOO_LARGE = "too_large";

function tooLarge(): SandboxError {
  return new SandboxError(TOO_LARGE, ...texts.responseTooLarge(MAX_RESPONSE_MIB));
}

function isEventStream({ headers }: Response): boolean {
  return headers.get("content-type")?.startsWith("text/event-stream") === true;
}

/** The code of the error at the end of an event stream. The SDK has no error of this code. */
const STREAM_ENDED = -32_098;

/**
 * Adds an error for the request to the end of the event stream, even if the connection broke. Otherwise the SDK would wait for
 * the response until its time limit. If the response has arrived, the SDK ignores the error.
 * @param message the request's body
 */
function withEnd(response: Response, message: unknown): Response {
  if (response.body === null || typeof message !== "string") return response;
  const { id }: { id?: unknown } = JSON.parse(message);
  const reader = response.body.getReader();
  const end = (data: unknown) => {
    const error = { code: STREAM_ENDED, message: texts.STREAM_ENDED, data };
    return new TextEncoder().encode(`\n\ndata: ${JSON.stringify({ jsonrpc: "2.0", id, error })}\n\n`);
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      let why: unknown;
      const { value, done } = await reader.read().catch((error: unknown) => {
        why = error instanceof SandboxError ? error.code : undefined;
        return { value: undefined, done: true };
      });
      controller.enqueue(value ?? end(why));
      if (done) controller.close();
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, response);
}

/** The end of the last complete event in this piece of a stream; 0 if no event ends here. An empty line ends an event. */
function endOfLastEvent(piece: Uint8Array): number {
  const LINE_FEED = 10;
  const RETURN = 13;
  for (let at = piece.length - 1; at > 0; at--) {
    const before = piece[at - 1] === RETURN ? at - 2 : at - 1;
    if (piece[at] === LINE_FEED && piece[before] === LINE_FEED) return at + 1;
  }
  return 0;
}

/**
 * A validator that accepts everything. The SDK's validators generate code, and Workers forbid that. The server has validated
 * its results.
 */
const TRUSTING: jsonSchemaValidator = {
  getValidator<T>(): JsonSchemaValidator<T> {
    return (data) => ({ valid: true, data: data as T, errorMessage: undefined });
  },
};

/** The server SDK's prefix before the reasons why arguments are invalid. */
const INVALID = /^Input validation error: Invalid arguments for tool \w+: /;

function failureOf(tool: string, content: CallToolResult["content"], meta: unknown): CallError {
  const text = textOf(content);
  const { code, message, hint } = (meta ?? {}) as Partial<CallError>;
  if (code !== undefined) return new CallError(code, message ?? text, hint);
  return INVALID.test(text)
    ? new InputError(text.replace(INVALID, ""))
    : new CallError("internal", text || texts.toolFailed(tool));
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export function textOf(content: CallToolResult["content"]): string {
  return content.flatMap((block) => (block.type === "text" ? block.text : [])).join("\n");
}

export function refusal(
  url: string,
  status: number,
  body: string,
  retryAfter: string | null = null,
): SandboxError {
  const { code, message, hint } = errorIn(body);
  if (status === 404 && (message === "" || message === "Not found"))
    return new CallError(WRONG_ADDRESS, ...texts.notAnEndpoint(url));
  const reason = message || texts.statusText(url, status, body.slice(0, 300));
  if (status === 401 || status === 403) return new AccessError(status, reason);
  if (status !== 429 && status < 500) return new CallError(code ?? "invalid_argument", reason, hint);
  const ownCode = status === 429 ? "rate_limited" : "internal";
  return new UnavailableError(code ?? ownCode, reason, hint ?? texts.TRY_LATER, millisecondsOf(retryAfter));
}

/** A `Retry-After` header: seconds, or a date. */
function millisecondsOf(retryAfter: string | null): number | undefined {
  if (retryAfter === null) return undefined;
  const ms = /^\d+$/.test(retryAfter) ? Number(retryAfter) * 1000 : Date.parse(retryAfter) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** An error body's content: from JSON-RPC, OAuth, or the routes for files and tasks. */
function errorIn(body: string): { code?: string; message: string; hint?: string } {
  try {
    const parsed = JSON.parse(body);
    const { error, error_description, message: reason, details, notice, code, hint, problems } = parsed;
    if (Array.isArray(problems)) return { message: problems.map(String).join(" ") };
    const title = typeof error === "object" && error !== null ? error.message : error;
    const message = [title, error_description ?? reason ?? details]
      .filter((part) => typeof part === "string")
      .join(": ");
    return { code, message: typeof notice === "string" ? `${notice} ${message}` : message, hint };
  } catch {
    return { message: "" };
  }
}
