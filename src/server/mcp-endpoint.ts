/** Serves the messages of MCP: checks them, then passes them to the MCP SDK with the tools that they need. */
import {
  isJsonContentType,
  isLegacyRequest,
  type McpServer,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";
import { createMcpHandler } from "agents/mcp/server";
import { insufficientScope } from "../auth/bearer.ts";
import { canSignIn } from "../auth/methods/index.ts";
import { declaresApps, takePanelForm } from "../shared/apps.ts";
import { type EndpointQuery, endpointQueryOf } from "../shared/endpoint-query.ts";
import { declaresURLElicitation, sessionDeclares, sessionID } from "../shared/extensions.ts";
import { isRecord } from "../shared/is-record.ts";
import { isRateLimited, rateLimited } from "../shared/limits.ts";
import { callerFields, log } from "../shared/log.ts";
import { type Scope, SCOPES } from "../shared/principal.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { RequestMemory, SMALL_BYTES } from "../shared/request-memory.ts";
import { MAX_RESOURCE_URI } from "../shared/resource-uri.ts";
import { internalErrorResponse, refuse, type Refusal, rpcError } from "../shared/responses.ts";
import { waitAtMost } from "../shared/timers.ts";
import { chooseTools } from "../shared/tool-sets.ts";
import { traceOfMessage } from "../shared/trace.ts";
import { declaresTasks, TASK_METHODS, TASKS_CAPABILITY } from "../tools/mcp-task.ts";
import { readJSON, unreadable } from "./body.ts";
import { eventStream, KEEP_ALIVE, KEEP_ALIVE_MS } from "./event-stream.ts";
import * as texts from "./texts.ts";

export interface NeededTools {
  called: readonly string[];
  /** The request contains only tool calls, so only the called tools are registered, to save time. */
  hasOnlyCalls: boolean;
}

/** The functions of the tools and resources that the endpoint uses. */
export interface MCPParts {
  createMCPServer(caller: CallerContext, query: EndpointQuery, wanted: NeededTools): McpServer;
  requiredScopes(name: string, args: unknown): readonly Scope[];
  resourceScopes(uri: string): readonly Scope[];
}

type ServeMCP = (request: Request, sender: CallerContext) => Promise<Response>;

export function mcpEndpoint(parts: MCPParts): ServeMCP {
  return async (request, sender) => {
    const memory = RequestMemory.forCall(sender.principal.id, request.signal);
    try {
      return memory.releaseAfter(await serveMCP(parts, request, { ...sender, memory }));
    } catch (error) {
      memory.release();
      throw error;
    }
  };
}

async function serveMCP(parts: MCPParts, request: Request, sender: CallerContext): Promise<Response> {
  const url = new URL(request.url);
  const { pathname: route } = url;
  const query = endpointQueryOf(url, sender.config.tools);
  if ("problem" in query)
    return refuse(sender, { reason: "bad_query", response: rpcError(400, -32602, query.problem) }, route);
  if (!isJsonContentType(request.headers.get("content-type"))) {
    const response = rpcError(415, -32000, texts.NOT_JSON_TYPE);
    return refuse(sender, { reason: "bad_body", response }, route);
  }
  const body = await readJSON(request, sender);
  if ("problem" in body) return refuse(sender, unreadable(body.problem), route);

  const messages = Array.isArray(body.value) ? body.value : [body.value];
  const [trace = sender.trace] = messages.flatMap((message) => traceOfMessage(message) ?? []);
  const [panelForm] = messages.flatMap((message) => takePanelForm(message) ?? []);
  const caller = { ...sender, trace, ...(panelForm && { takesNotice: false }) };
  const id = idOf(body.value);
  const tooMuch = await checkLimits(caller, messages, id);
  if (tooMuch) return refuse(caller, tooMuch, route);
  const calls = messages.flatMap(toolCall);
  // Only after the limits, because the scopes of a resource need its parsed address.
  const needed = scopesNeeded(parts, calls, messages.flatMap(resourceRead));
  const refusal = insufficientScope(caller, needed) ?? undeclaredTasks(body.value, id);
  if (refusal) return refuse(caller, refusal, route);

  const neededTools = {
    called: calls.map(({ name }) => name),
    hasOnlyCalls: calls.length === messages.length,
  };
  const session = sessionDeclares(request);
  const opensURLs = declaresURLElicitation(body.value) || session.urls;
  const hasSignIn = canSignIn(caller.principal, caller);
  const createServer = ({ era }: { era: "modern" | "legacy" }) =>
    parts.createMCPServer(
      {
        ...caller,
        takesResourceLinks: takesResourceLinks(request),
        takesImages: panelForm !== undefined || query.images,
        chosenTools: query.tools && chooseTools(query.tools, caller.config.tools),
        // The panel never gets MCP tasks, even if the client that shows it supports them.
        takesTasks: era === "modern" ? declaresTasks(body.value) && panelForm === undefined : undefined,
        mayShowApps: era === "legacy" || declaresApps(body.value),
        showsApps: declaresApps(body.value) || session.apps,
        hasSignIn,
        urlElicitation: opensURLs && hasSignIn ? era : undefined,
      },
      panelForm ? { ...query, structured: true, raw: panelForm === "raw", images: true } : query,
      neededTools,
    );
  let error: Error | undefined;
  const onerror = (reported: Error) => (error = reported);
  const response = (await isPlainCall(request, body.value))
    ? await servePlainCall(createServer({ era: "legacy" }), request, body.value, onerror)
    : await serveBySDK(createServer, request, body.value, { route, onerror });
  // Tool calls and reads of resources are already logged. This logs other uses of a token, and refused requests.
  if (needed.length === 0 || response.status !== 200) logUse(caller, route);
  if (response.status >= 500) return internalErrorResponse(caller, "mcp", error, id);
  return isRecord(body.value) && body.value.method === "initialize" && response.ok
    ? withSession(response, { apps: declaresApps(body.value), urls: opensURLs })
    : response;
}

/** Refuses too many messages, long values, and repeated or cancelled ids. @param id of the request, for the response */
async function checkLimits(
  { env, principal, memory }: CallerContext,
  messages: readonly unknown[],
  id: RequestID,
): Promise<Refusal | undefined> {
  // The first message was counted when the request arrived.
  const more = messages.length - 1;
  if (await isRateLimited(env.RATE_LIMITER, principal.id, more)) return rateLimited();
  if (memory?.addCalls(more) === false) return unreadable("no_room");
  const ids = messages.flatMap(
    (message) => (isRecord(message) && "method" in message ? message.id : []) ?? [],
  );
  // The SDK ends the response after one answer for each id, so the other calls would get no answer.
  const distinctIDs = new Set<unknown>(ids);
  if (distinctIDs.size < ids.length)
    return { reason: "bad_body", response: rpcError(400, -32600, texts.REPEATED_ID) };
  // A cancelled request gets no answer, and the SDK would wait for one until the client disconnects.
  const cancelledID = (message: unknown) => paramsOf(message, "notifications/cancelled")?.requestId;
  if (messages.some((message) => distinctIDs.has(cancelledID(message))))
    return { reason: "bad_body", response: rpcError(400, -32600, texts.CANCELLED_IN_BATCH) };
  const isTooLong = (value: string) => value.length > MAX_RESOURCE_URI;
  if (messages.flatMap(repeatedStrings).some(isTooLong))
    return { reason: "bad_body", response: rpcError(400, -32602, texts.longValueText(MAX_RESOURCE_URI), id) };
  if (JSON.stringify(messages.map(withoutArguments)).length <= MAX_BESIDES_ARGUMENTS) return undefined;
  const problem = texts.longMessageText(MAX_BESIDES_ARGUMENTS);
  return { reason: "bad_body", response: rpcError(400, -32602, problem, id) };
}

/**
 * The most characters of a body's messages besides the arguments of tools. Errors repeat and escape them, and a response of up to
 * SMALL_BYTES does not count as unread.
 */
const MAX_BESIDES_ARGUMENTS = SMALL_BYTES / 4;

function withoutArguments(message: unknown): unknown {
  const params = paramsOf(message, "tools/call");
  return params && isRecord(message) ? { ...message, params: { ...params, arguments: undefined } } : message;
}

/** The strings of a message that its response repeats. The response stays in memory until the client has read it. */
function repeatedStrings(message: unknown): string[] {
  const { ref, name, uri } = paramsOf(message) ?? {};
  const id = isRecord(message) ? message.id : undefined;
  const values = [id, name, uri, ...(isRecord(ref) ? [ref.uri, ref.name] : [])];
  return values.filter((value) => typeof value === "string");
}

interface ToolCall {
  name: string;
  args: unknown;
}

function toolCall(message: unknown): ToolCall[] {
  const call = paramsOf(message, "tools/call");
  if (call) return typeof call.name === "string" ? [{ name: call.name, args: call.arguments }] : [];
  return Object.entries(TASK_METHODS).flatMap(([method, name]) => {
    const params = paramsOf(message, method);
    return params ? [{ name, args: { id: params.taskId } }] : [];
  });
}

function resourceRead(message: unknown): string[] {
  const uri = paramsOf(message, "resources/read")?.uri;
  return typeof uri === "string" ? [uri] : [];
}

/** The parameters of a message, or undefined if it has none or calls another method than `method`. */
function paramsOf(message: unknown, method?: string): Record<string, unknown> | undefined {
  if (!isRecord(message) || !isRecord(message.params)) return undefined;
  return method === undefined || message.method === method ? message.params : undefined;
}

/** The scopes that all calls of the body need. A batch is allowed as a whole or not at all. */
function scopesNeeded(parts: MCPParts, calls: readonly ToolCall[], read: readonly string[]): Scope[] {
  const needed = new Set([
    ...calls.flatMap(({ name, args }) => parts.requiredScopes(name, args)),
    ...read.flatMap((uri) => parts.resourceScopes(uri)),
  ]);
  return SCOPES.filter((scope) => needed.has(scope));
}

/** Refuses a client that subscribes to tasks without declaring the extension (SEP-2663, "Protocol Errors"). */
function undeclaredTasks(body: unknown, id: RequestID): Refusal | undefined {
  const notifications = paramsOf(body, "subscriptions/listen")?.notifications;
  if (!isRecord(notifications) || notifications.taskIds === undefined || declaresTasks(body))
    return undefined;
  const data = { requiredCapabilities: TASKS_CAPABILITY };
  return {
    reason: "bad_body",
    response: rpcError(400, -32021, "Missing required client capability", id, data),
  };
}

/** Clients before revision 2025-06-18 fail on resource links. */
function takesResourceLinks({ headers }: Request): boolean {
  return (headers.get("mcp-protocol-version") ?? "") >= "2025-06-18";
}

type OnError = (error: Error) => void;

function serveBySDK(
  createServer: Parameters<typeof createMcpHandler>[0],
  request: Request,
  body: unknown,
  options: { route: string; onerror: OnError },
): Promise<Response> {
  // Switch off the handler's own guards; the guards above replace them.
  const handler = createMcpHandler(createServer, {
    ...options,
    corsOptions: false,
    allowedOriginHostnames: "*",
  });
  return handler.fetch(request, { parsedBody: body });
}

/** Whether a request is a single tool call that asks for no progress, in an MCP revision before 2026-07-28. */
async function isPlainCall(request: Request, body: unknown): Promise<boolean> {
  if (!isRecord(body) || body.method !== "tools/call" || body.id === undefined) return false;
  const meta = paramsOf(body)?._meta;
  const asksForProgress = isRecord(meta) && meta.progressToken !== undefined;
  return !asksForProgress && isLegacyRequest(request, body);
}

/** How long a plain call may take to be returned as JSON. */
const JSON_WITHIN_MS = 1000;

/**
 * Serves a plain call as JSON, which takes less time than the event stream of the library's handler. A longer call gets its result
 * as an event, because proxies close silent connections.
 */
async function servePlainCall(
  server: McpServer,
  request: Request,
  body: unknown,
  onerror: OnError,
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

function withSession(response: Response, declared: Parameters<typeof sessionID>[0]): Response {
  const id = sessionID(declared);
  if (id === undefined) return response;
  const out = new Response(response.body, response);
  out.headers.set("mcp-session-id", id);
  return out;
}

function logUse(caller: CallerContext, route: string): void {
  const scope = caller.principal.scopes.join(" ");
  log(caller.config, { event: "token", action: "use", ...callerFields(caller), scope, route });
}

type RequestID = string | number | null;

function idOf(body: unknown): RequestID {
  const id = isRecord(body) ? body.id : undefined;
  if (typeof id === "string") return id.length > MAX_RESOURCE_URI ? null : id;
  return typeof id === "number" ? id : null;
}
