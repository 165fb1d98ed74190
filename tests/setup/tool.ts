/** Tool calls over plain HTTP, for tests that are about the server and not about clients. */
import { TOKEN } from "./server.ts";

export interface ToolAnswer {
  /** HTTP status. */
  status: number;
  isError: boolean;
  /** All text blocks, one after the other. */
  text: string;
  /** The structured content; an empty object where there is none. */
  structured: Record<string, unknown>;
}

export interface ToolOptions {
  token?: string;
  signal?: AbortSignal;
}

interface Message {
  result?: { content: { text?: string }[]; isError?: boolean; structuredContent?: Record<string, unknown> };
  error?: { message: string };
}

/** Posts one message to the endpoint, as a client does. */
export function post(url: string, message: unknown, { token = TOKEN, signal }: ToolOptions = {}) {
  return fetch(url, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify(message),
    signal,
  });
}

/** Calls a tool of the server at `url`. A JSON-RPC error is shown as an answer with `isError`. */
export async function tool(
  url: string,
  name: string,
  args: Record<string, unknown>,
  options: ToolOptions = {},
): Promise<ToolAnswer> {
  const params = { name, arguments: args };
  const address = new URL(url);
  // As a program that asks for data beside the text.
  address.searchParams.set("results", "structured");
  const response = await post(address.href, { jsonrpc: "2.0", id: 1, method: "tools/call", params }, options);
  const body = await response.text();
  const data =
    body
      .match(/^data: (\{.*)$/gm)
      ?.at(-1)
      ?.slice("data: ".length) ?? body;
  const { result, error }: Message = JSON.parse(data);
  const text = result?.content.map((block) => block.text ?? "").join("\n") ?? error?.message ?? body;
  return {
    status: response.status,
    isError: result?.isError ?? result === undefined,
    text,
    structured: result?.structuredContent ?? {},
  };
}

/** The id of a run in the words of an answer. */
export function runIDIn({ text }: Pick<ToolAnswer, "text">): string {
  const id = /\b[a-z0-9-]+\.[0-9a-z]{26}\b/.exec(text)?.[0];
  if (id === undefined) throw new Error(`no id in: ${text}`);
  return id;
}
