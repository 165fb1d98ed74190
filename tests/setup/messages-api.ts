/**
 * A scripted Messages API on loopback, in place of the model of a real Claude Code. It has the parts that Claude Code
 * uses: POST /v1/messages, streamed or not, and /v1/messages/count_tokens.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text as textOf } from "node:stream/consumers";
import { sleep } from "./until.ts";
import { listen } from "./listen.ts";

export type Block =
  | { type: "text"; text: string }
  | { type: "tool_use"; name: string; input: Record<string, unknown> };

export type Reply =
  | {
      blocks: Block[];
      /** Tokens, as the usage reports them. */
      usage?: { input: number; output: number };
      stopReason?: string;
      /** The pause before each event of the stream, milliseconds. */
      delayMs?: number;
      /** Closes the connection after this number of events. With a pause the client has received them. */
      cutAfter?: number;
      /** Sends nothing after this number of events, and keeps the connection open. */
      silentAfter?: number;
    }
  | { status: number; error: { type: string; message: string }; headers?: Record<string, string> }
  /** Never responds, or closes the connection instead of a response. */
  | "hang"
  | "disconnect";

interface ContentBlock {
  type: string;
  name?: string;
}

export interface MessagesRequest {
  model: string;
  stream?: boolean;
  messages: { role: "user" | "assistant"; content: string | ContentBlock[] }[];
  tools?: { name: string; description?: string }[];
}

interface Received {
  path: string;
  headers: Record<string, string | string[] | undefined>;
  body: MessagesRequest;
}

export interface MessagesAPI {
  url: string;
  requests: Received[];
  close(): Promise<void>;
}

/**
 * @param script replies to each request that offers tools. Only the conversation itself offers tools. Other requests
 * (for a title or a summary) get the reply "ok".
 */
export async function startMessagesAPI(
  script: (request: MessagesRequest, received: Received) => Reply | Promise<Reply>,
): Promise<MessagesAPI> {
  const requests: Received[] = [];
  const server = createServer((request, response) => {
    void serve(request, response).catch((error: unknown) => response.destroy(error as Error));
  });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    const body = await textOf(request);
    if (request.method !== "POST" || body === "") return sendJSON(response, 200, {});
    const received: Received = { path, headers: request.headers, body: JSON.parse(body) };
    requests.push(received);
    if (path.endsWith("/count_tokens")) return sendJSON(response, 200, { input_tokens: 10 });
    if (!path.endsWith("/v1/messages")) return sendJSON(response, 404, failure("not_found_error", path));
    const conversation = (received.body.tools ?? []).length > 0;
    const reply = conversation ? await script(received.body, received) : textReply("ok");
    if (reply === "hang") return;
    if (reply === "disconnect") return void response.destroy();
    if ("status" in reply) {
      const { status, error, headers } = reply;
      return sendJSON(response, status, failure(error.type, error.message), headers);
    }
    const events = eventsOf(received.body.model, reply, requests.length);
    if (received.body.stream !== true) return sendJSON(response, 200, messageOf(received.body.model, reply));
    response.writeHead(200, { "content-type": "text/event-stream", "request-id": `req_${requests.length}` });
    for (const [index, event] of events.entries()) {
      if (reply.delayMs) await sleep(reply.delayMs);
      if (index === reply.cutAfter) return void response.destroy();
      if (index === reply.silentAfter || response.destroyed) return;
      response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    }
    response.end();
  }

  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    async close() {
      if (!server.listening) return;
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

export function textReply(text: string): Reply {
  return { blocks: [{ type: "text", text }] };
}

/** The results of tools in the newest message. */
export function toolResults(request: MessagesRequest): ContentBlock[] {
  const content = request.messages.at(-1)?.content;
  return Array.isArray(content) ? content.filter(({ type }) => type === "tool_result") : [];
}

export type BlocksReply = Extract<Reply, { blocks: Block[] }>;

function messageOf(model: string, { blocks, usage, stopReason }: BlocksReply, id = "msg_test") {
  return {
    id,
    type: "message",
    role: "assistant",
    model,
    content: blocks.map((block, index) => addID(block, index, id)),
    stop_reason: stopReason ?? (blocks.some(({ type }) => type === "tool_use") ? "tool_use" : "end_turn"),
    stop_sequence: null,
    usage: { input_tokens: usage?.input ?? 10, output_tokens: usage?.output ?? 5 },
  };
}

function addID(block: Block, index: number, message: string) {
  return block.type === "text" ? block : { ...block, id: `toolu_${message}_${index}` };
}

/** The message as a stream of server-sent events, each block's content in one delta. */
function eventsOf(
  model: string,
  reply: BlocksReply,
  number: number,
): { type: string; [key: string]: unknown }[] {
  const message = messageOf(model, reply, `msg_${number}`);
  const start = { ...message, content: [], stop_reason: null, usage: { ...message.usage, output_tokens: 1 } };
  const blocks = message.content.flatMap((block, index) => {
    const [empty, delta] =
      block.type === "text"
        ? [
            { type: "text", text: "" },
            { type: "text_delta", text: block.text },
          ]
        : [
            { ...block, input: {} },
            { type: "input_json_delta", partial_json: JSON.stringify(block.input) },
          ];
    return [
      { type: "content_block_start", index, content_block: empty },
      { type: "content_block_delta", index, delta },
      { type: "content_block_stop", index },
    ];
  });
  return [
    { type: "message_start", message: start },
    ...blocks,
    {
      type: "message_delta",
      delta: { stop_reason: message.stop_reason, stop_sequence: null },
      usage: { output_tokens: message.usage.output_tokens },
    },
    { type: "message_stop" },
  ];
}

function failure(type: string, message: string) {
  return { type: "error", error: { type, message } };
}

function sendJSON(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}
