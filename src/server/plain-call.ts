/** Returns results of short tool calls as JSON, without the event stream of the library's handler. */
import {
  isLegacyRequest,
  type McpServer,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";
import { isRecord } from "../shared/is-record.ts";
import { waitAtMost } from "../shared/timers.ts";
import { eventStream, KEEP_ALIVE, KEEP_ALIVE_MS } from "./event-stream.ts";

/** How long a call may take to be returned as JSON. */
const JSON_WITHIN_MS = 1000;

/** Whether a request is a single tool call that asks for no progress, in an MCP revision before 2026-07-28. */
export async function isPlainCall(request: Request, body: unknown): Promise<boolean> {
  if (!isRecord(body) || body.method !== "tools/call" || body.id === undefined) return false;
  const { _meta } = isRecord(body.params) ? body.params : {};
  const asksForProgress = isRecord(_meta) && _meta.progressToken !== undefined;
  return !asksForProgress && isLegacyRequest(request, body);
}

/**
 * Serves a plain call as JSON. The library's handler opens an event stream for every call, which takes a quarter of the
 * Worker's time for a short call. A longer call gets its result as an event, because proxies close silent connections.
 */
export async function servePlainCall(
  server: McpServer,
  request: Request,
  body: unknown,
  onerror: (error: Error) => void,
): Promise<Response> {
  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  Object.assign(transport, { onerror });
  await server.connect(transport);
  // The server is not closed: there is nothing to clean up after the call, and `close` takes time, because it creates an error.
  const pending = transport.handleRequest(request, { parsedBody: body });
  return (await waitAtMost(JSON_WITHIN_MS, pending)) ?? eventStream(asEvents(pending), (text) => text);
}

async function* asEvents(pending: Promise<Response>): AsyncGenerator<string, void> {
  for (;;) {
    yield KEEP_ALIVE;
    const response = await waitAtMost(KEEP_ALIVE_MS, pending);
    if (response) return yield `event: message\ndata: ${await response.text()}\n\n`;
  }
}
