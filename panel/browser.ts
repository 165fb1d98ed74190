/** The page in a browser window: it calls the server itself, with its session instead of a token. */
import type { Form, Host, ToolResult } from "./host.ts";
import { SignedOut, ToolFailed, Unreachable } from "./tools.ts";
import { Value } from "./value.ts";
import { BUSY, STILL_SIGNED_IN, UNREACHABLE, statusText } from "./texts.ts";

/** A JSON-RPC response, or the body of a refusal. */
interface Reply {
  result?: ToolResult & { tools?: { name: string }[] };
  error?: { message?: string };
  message?: string;
}

export function browserHost(): Host {
  const place = new Value(location.hash);
  addEventListener("hashchange", () => place.set(location.hash));
  return {
    callTool: (name, args, form, signal) => callServer("tools/call", { name, arguments: args }, signal, form),
    async listTools(signal) {
      const { tools = [] } = await callServer("tools/list", {}, signal);
      return new Set(tools.map(({ name }) => name));
    },
    place,
    go(href) {
      location.hash = href;
    },
    endpoint: `${location.origin}/mcp`,
    async signOut() {
      // The person may close the tab at once.
      const { ok } = await post("/panel/sign-out", "", { keepalive: true });
      if (!ok) throw new Unreachable(STILL_SIGNED_IN);
    },
    canReachServer: true,
    async download(url) {
      const anchor = document.createElement("a");
      // The server may have several host names. The page may only call the host in its own address.
      anchor.href = new URL(url).pathname;
      anchor.download = "";
      anchor.click();
    },
    confirm: async (question) => confirm(question),
    isOutOfSight: () => document.hidden,
    display: undefined,
    show: async () => undefined,
  };
}

async function callServer(method: string, params: object, signal?: AbortSignal, form: Form = "structured") {
  const message = { jsonrpc: "2.0", id: 1, method, params };
  const { status, text } = await post(`/panel/mcp?results=${form}`, JSON.stringify(message), { signal });
  if (status === 401) throw new SignedOut();
  if (status === 429 || status === 503) throw new Unreachable(BUSY);
  // For example 502, from a proxy whose server starts again.
  if (status === 408 || status >= 500) throw new Unreachable(statusText(status));
  const reply = replyIn(text);
  if (!reply.result) throw new ToolFailed(reply.message || reply.error?.message || statusText(status));
  return reply.result;
}

async function post(path: string, body: string, options: Pick<RequestInit, "signal" | "keepalive">) {
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  try {
    const request = { method: "POST", headers, body, credentials: "same-origin" } as const;
    const response = await fetch(path, { ...request, ...options });
    return { ok: response.ok, status: response.status, text: await response.text() };
  } catch (error) {
    throw options.signal?.aborted ? error : new Unreachable(UNREACHABLE);
  }
}

/** The last message of a response, as JSON or event stream. */
function replyIn(text: string): Reply {
  const events = text.split(/\r?\n/).filter((line) => line.startsWith("data: {"));
  try {
    return (JSON.parse(events.at(-1)?.slice("data: ".length) ?? text) ?? {}) as Reply;
  } catch {
    return {};
  }
}
