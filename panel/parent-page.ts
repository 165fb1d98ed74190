/** JSON-RPC over `postMessage` with the embedding page, as in MCP Apps. */
import { ToolFailed, Unreachable } from "./tools.ts";
import { NOT_PASSED_ON } from "./texts.ts";

type Params = Record<string, unknown>;

interface Message {
  jsonrpc: "2.0";
  id?: number | string;
  method?: string;
  params?: Params;
  result?: unknown;
  error?: { code?: number; message?: string };
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** JSON-RPC errors that a retry would repeat. */
const FINAL = new Set([-32600, -32601, -32602]);

export class ParentPage {
  #lastID = 0;
  readonly #waiting = new Map<number | string, Waiting>();

  /** @param handlers of requests and notifications by method; a returned value responds to a request */
  constructor(handlers: Record<string, (params: Params) => object | void>) {
    addEventListener("message", ({ source, data }: MessageEvent<Message | undefined>) => {
      if (source !== window.parent || data?.jsonrpc !== "2.0") return;
      const { id, method, params = {} } = data;
      if (method === undefined) return this.#settle(data);
      const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
      const result = handler?.(params) ?? {};
      if (id === undefined) return;
      const error = { code: -32601, message: "Method not found" };
      this.#post(handler ? { jsonrpc: "2.0", id, result } : { jsonrpc: "2.0", id, error });
    });
  }

  notify(method: string, params: object): void {
    this.#post({ jsonrpc: "2.0", method, params: params as Params });
  }

  /** @throws {ToolFailed} if another try would fail too, else {@link Unreachable}; both have the error's message */
  async request<Result>(method: string, params: object, signal?: AbortSignal): Promise<Result> {
    signal?.throwIfAborted();
    const id = ++this.#lastID;
    const replied = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const cancel = () => {
      this.notify("notifications/cancelled", { requestId: id });
      this.#waiting.get(id)?.reject(signal?.reason as Error);
    };
    signal?.addEventListener("abort", cancel);
    this.#post({ jsonrpc: "2.0", id, method, params: params as Params });
    try {
      return (await replied) as Result;
    } finally {
      this.#waiting.delete(id);
      signal?.removeEventListener("abort", cancel);
    }
  }

  #settle({ id, result, error }: Message): void {
    const waiting = id === undefined ? undefined : this.#waiting.get(id);
    if (!error) return waiting?.resolve(result);
    const words = error.message || NOT_PASSED_ON;
    waiting?.reject(FINAL.has(error.code ?? 0) ? new ToolFailed(words) : new Unreachable(words));
  }

  /** Posts to any origin, because MCP Apps does not define the embedding page's origin. That page has the token anyway. */
  #post(message: Message): void {
    window.parent.postMessage(message, "*");
  }
}
