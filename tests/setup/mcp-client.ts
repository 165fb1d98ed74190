/** The tests' MCP client: JSON-RPC over a `fetch`, which calls a server or the Worker in the same process. */

export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

export interface Result {
  status: number;
  /** Also true if the call reached no tool and `text` is a JSON-RPC error. */
  isError: boolean;
  content: Block[];
  /** All text blocks, joined. */
  text: string;
  structured: Record<string, unknown>;
  progress: string[];
}

interface Message {
  method?: string;
  params?: { message?: string; [name: string]: unknown };
  result?: Partial<Pick<Result, "isError" | "content">> & { structuredContent?: object };
  error?: { code: number; message: string };
  [name: string]: unknown;
}

interface Answer {
  status: number;
  /** Every JSON-RPC message, in order of arrival. */
  messages: Message[];
}

interface CallOptions {
  progressToken?: string;
  /** Other fields of `_meta`. */
  meta?: Record<string, string>;
  signal?: AbortSignal;
}

/** The response to a request of revision 2026-07-28. */
export interface ModernAnswer {
  status: number;
  result?: Record<string, unknown>;
  error?: { code: number; message: string };
}

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export function mcpHeaders(token: string): Record<string, string> {
  return {
    authorization: `Bearer ${token}`,
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
  };
}

/** The JSON-RPC messages of a response, which is JSON or an event stream. */
export function messagesIn(body: string): Message[] {
  // No regular expression with `.` or `$`: these end a line at U+2028, which JSON may contain and which ends no line of an event.
  const events = body.split(/\r?\n/).filter((line) => line.startsWith("data: {"));
  return events.length > 0
    ? events.map((line) => JSON.parse(line.slice("data: ".length)))
    : [JSON.parse(body)].flat();
}

/** The run's id in the result of a call. */
export function idIn({ text }: Pick<Result, "text">): string {
  const id = /\b[a-z0-9._-]+\.[0-9a-z]{26}t?\b/.exec(text)?.[0];
  if (id === undefined) throw new Error(`no id in: ${text}`);
  return id;
}

export class MCPClient {
  readonly url: string;
  readonly token: string;
  readonly #fetch: Fetch;

  constructor(url: string, token: string, through: Fetch = (to, init) => fetch(to, init)) {
    this.url = url;
    this.token = token;
    this.#fetch = through;
  }

  /** Calls a tool as a program that requests data in addition to text. */
  async call(name: string, args: Record<string, unknown> = {}, options: CallOptions = {}): Promise<Result> {
    const url = new URL(this.url);
    if (!url.searchParams.has("results")) url.searchParams.set("results", "structured");
    const program = new MCPClient(url.href, this.token, this.#fetch);
    const { status, messages } = await program.send(name, args, options);
    const last = messages.at(-1);
    const { content = [], isError = !last?.result, structuredContent } = last?.result ?? {};
    const texts = content.filter(({ type }) => type === "text").map((block) => block.text);
    const notified = messages.filter(({ method }) => method === "notifications/progress");
    return {
      status,
      isError,
      content,
      text: last?.result ? texts.join("\n") : (last?.error?.message ?? JSON.stringify(last)),
      structured: { ...structuredContent },
      progress: notified.map(({ params }) => params?.message ?? ""),
    };
  }

  /** Calls a tool and returns the status and all messages. */
  send(name: string, args: Record<string, unknown>, options: CallOptions = {}): Promise<Answer> {
    const { progressToken, meta, signal } = options;
    const _meta = progressToken === undefined && meta === undefined ? undefined : { ...meta, progressToken };
    return this.post({ method: "tools/call", params: { name, arguments: args, _meta } }, signal);
  }

  async post(message: { method: string; params?: object }, signal?: AbortSignal): Promise<Answer> {
    const response = await this.fetch(JSON.stringify({ jsonrpc: "2.0", id: 1, ...message }), signal);
    return { status: response.status, messages: messagesIn(await response.text()) };
  }

  /** Sends any request and returns its result. @throws Error with the response if it has no result */
  async result<T>(message: { method: string; params?: object }): Promise<T> {
    const answer = (await this.post(message)).messages.at(-1);
    if (answer?.result === undefined) throw new Error(`no result: ${JSON.stringify(answer)}`);
    return answer.result as T;
  }

  /**
   * Sends a request of revision 2026-07-28, in which every request describes the client.
   * @param extensions the extensions that the client declares
   * @param capabilities the client's other capabilities
   */
  async sendModern(
    method: string,
    params: Record<string, unknown>,
    extensions: object = { "io.modelcontextprotocol/tasks": {} },
    capabilities: object = {},
  ): Promise<ModernAnswer> {
    const prefix = "io.modelcontextprotocol";
    const revision = "2026-07-28";
    const _meta = {
      [`${prefix}/protocolVersion`]: revision,
      [`${prefix}/clientInfo`]: { name: "test", version: "1" },
      [`${prefix}/clientCapabilities`]: { extensions, ...capabilities },
    };
    const headers = {
      ...mcpHeaders(this.token),
      "mcp-protocol-version": revision,
      "mcp-method": method,
      "mcp-name": String(params.taskId ?? params.name),
    };
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta } });
    const response = await this.http(this.url, { method: "POST", headers, body });
    const { result, error } = messagesIn(await response.text()).at(-1) ?? {};
    return { status: response.status, result: result && { ...result }, error };
  }

  fetch(body: string, signal?: AbortSignal): Promise<Response> {
    return this.#fetch(this.url, { method: "POST", headers: mcpHeaders(this.token), body, signal });
  }

  http(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { authorization: `Bearer ${this.token}`, ...(init.headers as Record<string, string>) };
    return this.#fetch(new URL(path, this.url).href, { ...init, headers });
  }
}
