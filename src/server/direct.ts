/**
 * The short way of one tool call. A client of the 2025 revisions that posts one well-formed `tools/call` is answered
 * without a server object, a transport and an event stream made for this request alone, which is most of what MCP costs:
 * with one JSON message, as Streamable HTTP allows, or with an event stream when the call takes long or reports progress.
 * Whatever is special in any way (another method or revision, a batch, a name or arguments that do not fit) takes the
 * long way and is answered there.
 */
import type { CallToolResult } from "@modelcontextprotocol/server";
import type { Requester } from "../tools/define.ts";

/** A `tools/call` that can be answered directly. */
export interface DirectCall {
  id: string | number;
  name: string;
  args: unknown;
  meta: Requester["mcpReq"]["_meta"];
}

const REVISIONS = new Set(["2025-03-26", "2025-06-18", "2025-11-25"]);
const MESSAGE_KEYS = new Set(["jsonrpc", "id", "method", "params"]);
const PARAMS_KEYS = new Set(["name", "arguments", "_meta"]);

/** A call that takes longer is answered by an event stream, whose head tells client and proxies that it is at work. */
const SHORT_MS = 1000;

/** The pause between two comments on such a stream. */
const KEEP_ALIVE_MS = 15_000;

/** The call in such a request, or undefined for the long way. */
export function directCall({ headers }: Request, body: unknown): DirectCall | undefined {
  if (!REVISIONS.has(headers.get("mcp-protocol-version") ?? "")) return undefined;
  const accept = headers.get("accept") ?? "";
  if (!accept.includes("application/json") || !accept.includes("text/event-stream")) return undefined;
  if (!isRecord(body) || body.jsonrpc !== "2.0" || body.method !== "tools/call") return undefined;
  const { id, params } = body;
  if (typeof id !== "string" && !(typeof id === "number" && Number.isSafeInteger(id))) return undefined;
  if (!isRecord(params) || typeof params.name !== "string") return undefined;
  if (!onlyHas(body, MESSAGE_KEYS) || !onlyHas(params, PARAMS_KEYS)) return undefined;
  const { name, arguments: args = {}, _meta: meta } = params;
  if (meta === undefined) return { id, name, args, meta };
  return isPlainMeta(meta) ? { id, name, args, meta } : undefined;
}

/** Makes the call and answers with its result. @param call Must not throw. */
export async function answerDirectly(
  { id, meta }: DirectCall,
  call: (requester: Requester) => Promise<CallToolResult>,
): Promise<Response> {
  const { promise: streamed, resolve: stream } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => stream(undefined), SHORT_MS);
  const events = new EventStream();
  const notify: Requester["mcpReq"]["notify"] = async (notification) => {
    stream(undefined);
    events.send({ jsonrpc: "2.0", ...notification });
  };
  const result = call({ mcpReq: { _meta: meta, notify } });
  const early = await Promise.race([result, streamed]);
  clearTimeout(timer);
  if (early) return Response.json({ jsonrpc: "2.0", id, result: early });
  void result.then((late) => events.end({ jsonrpc: "2.0", id, result: late }));
  return events.response();
}

/** Messages as an event stream: those from before there is a reader wait for it. */
class EventStream {
  readonly #encoder = new TextEncoder();
  #waiting: string[] = [];
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #ended = false;
  #timer: ReturnType<typeof setInterval> | null = null;

  send(message: object): void {
    this.#write(`event: message\ndata: ${JSON.stringify(message)}\n\n`);
  }

  end(message: object): void {
    this.send(message);
    this.#ended = true;
    clearInterval(this.#timer);
    this.#controller?.close();
  }

  response(): Response {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
        for (const text of this.#waiting.splice(0)) this.#write(text);
        if (this.#ended) controller.close();
        else this.#timer = setInterval(() => this.#write(": keep-alive\n\n"), KEEP_ALIVE_MS);
      },
      // The client is gone: its call goes on without it.
      cancel: () => {
        clearInterval(this.#timer);
        this.#controller = undefined;
        this.#ended = true;
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  }

  #write(text: string): void {
    if (this.#controller) this.#controller.enqueue(this.#encoder.encode(text));
    else if (!this.#ended) this.#waiting.push(text);
  }
}

/** Whether it is a 2025 client's: 2026-07-28 has its envelope there. */
function isPlainMeta(meta: unknown): meta is NonNullable<DirectCall["meta"]> {
  if (!isRecord(meta)) return false;
  const token = meta.progressToken;
  return (
    (token === undefined || typeof token === "string" || Number.isSafeInteger(token)) &&
    !Object.keys(meta).some((key) => key.startsWith("io.modelcontextprotocol/"))
  );
}

function onlyHas(value: Record<string, unknown>, keys: ReadonlySet<string>): boolean {
  return Object.keys(value).every((key) => keys.has(key));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
