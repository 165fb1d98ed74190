/** Handles a request in this order: host and origin, route, token, turn, rate limit, scopes, handler. */
import { isJsonContentType, type McpServer } from "@modelcontextprotocol/server";
import { createMcpHandler } from "agents/mcp/server";
import { addressOf } from "../actors/attempts.ts";
import { serveAuthorize, callbackPath, serveCallback } from "../auth/authorize.ts";
import { authenticate, insufficientScope } from "../auth/bearer.ts";
import { messagePage } from "../auth/consent-page.ts";
import { serveAuthorizationServer, serveResourceMetadata } from "../auth/endpoints.ts";
import { type OAuth, oauthFor, type ResourcePath } from "../auth/oauth.ts";
import { canSignIn, REDIRECT_METHODS } from "../auth/methods/index.ts";
import { finishPanelSignIn, panelCaller, signOutOfPanel, startPanelSignIn } from "../auth/panel-session.ts";
import * as paths from "../auth/paths.ts";
import { declaresApps, takePanelForm } from "../shared/apps.ts";
import { declaresURLElicitation, sessionDeclares, sessionID } from "../shared/extensions.ts";
import { type Scope, SCOPES } from "../shared/principal.ts";
import { json, type Refusal, rpcError } from "../shared/responses.ts";
import { readJSON, unreadable } from "./body.ts";
import { type EndpointQuery, endpointQueryOf } from "../shared/endpoint-query.ts";
import { type Config, ConfigError, type Env, parseConfig } from "../shared/config.ts";
import { decisionPage } from "./decision-page.ts";
import { DECISION_PATH, GIT_PATH } from "../shared/link-token.ts";
import { serveFiles, serveLink } from "./file-routes.ts";
import { gitPage } from "./git-page.ts";
import { RequestMemory } from "../shared/request-memory.ts";
import { noTurn, RequestTurns } from "../shared/request-turns.ts";
import { ICON } from "./icon.ts";
import { isBrowser, landingPage } from "./landing.ts";
import { PROCESS_ADDRESS_LIMITER, rateLimited, isRateLimited } from "../shared/limiter.ts";
import { callerFields, log, logError } from "../shared/log.ts";
import { hasLongHost, parseURL } from "../shared/long-host.ts";
import {
  allowReading,
  isHostAllowed,
  isLoopback,
  namedOrigin,
  isOriginAllowed,
  preflight,
} from "../shared/origin.ts";
import { previewLabel } from "../shared/preview-address.ts";
import { panelAsset, panelPage, redirectToPanel } from "./panel-page.ts";
import { panelStream } from "./panel-stream.ts";
import { servePreview } from "./preview-routes.ts";
import { servePlainCall, isPlainCall } from "./plain-call.ts";
import { execute, TASK_SCOPES, taskResult } from "./rest.ts";
import { CARD_PATH, CATALOG_PATH, catalog, serverCard } from "./server-card.ts";
import type { Caller, CallerContext, RequestContext } from "../shared/request-context.ts";
import { MAX_RESOURCE_URI } from "../shared/resource-uri.ts";
import { isRecord } from "../shared/is-record.ts";
import { declaresTasks, TASK_METHODS, TASKS_CAPABILITY } from "../tools/mcp-task.ts";
import { paceOpenRequest } from "../shared/open-requests.ts";
import { chooseTools } from "../shared/tool-sets.ts";
import { traceOfHeaders, traceOfMessage } from "../shared/trace.ts";
import * as texts from "./texts.ts";

export interface NeededTools {
  called: readonly string[];
  /** The request contains only tool calls, so only the called tools are registered, to save time. */
  onlyCalls: boolean;
}

/** The functions of the tools and resources that the MCP routes use. */
export interface MCPParts {
  createMCPServer(caller: CallerContext, query: EndpointQuery, wanted: NeededTools): McpServer;
  requiredScopes(name: string, args: unknown): readonly Scope[];
  resourceScopes(uri: string): readonly Scope[];
}

/** Used instead of `ExportedHandler`, because tests cannot construct that type's requests. */
export interface App {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response>;
}

type Serve<Context> = (request: Request, context: Context) => Response | Promise<Response>;

interface Route {
  /** A segment that begins with a colon matches any value; a star at the end matches all remaining segments. */
  path: string;
  methods: string;
  hasLandingPage?: boolean;
  /**
   * Whether pages of any origin may read the response. On loopback they may not, because any page could then find out that its
   * user runs this server.
   */
  isPublic?: boolean;
  /** Unauthenticated requests cause writes, so they are rate limited by address. */
  writes?: boolean;
  serve:
    | { open: Serve<RequestContext> }
    | {
        authenticate: (request: Request, context: RequestContext) => Promise<Caller | Refusal>;
        scopes?: readonly Scope[];
        handle: Serve<CallerContext>;
      };
}

function authenticateFor(...resources: readonly [ResourcePath, ...ResourcePath[]]) {
  return (request: Request, context: RequestContext) => authenticate(request, context, resources);
}

const READ = "GET, HEAD";
const FORM = `${READ}, POST`;

export function createApp(parts: MCPParts): App {
  const mcp = async (request: Request, sender: CallerContext) => {
    const memory = RequestMemory.forCall(sender.principal.id, request.signal);
    try {
      return memory.releaseAfter(await serveMCP(parts, request, { ...sender, memory }));
    } catch (error) {
      memory.release();
      throw error;
    }
  };
  /** Each call of a stream of the panel has turns of its own, because the stream's request has ended its turn. */
  const polled = (request: Request, sender: CallerContext) => inTurn(request, sender, mcp);
  const stream = async (request: Request, caller: CallerContext) => {
    const callerOf = (sent: Request) => panelCaller(sent, caller);
    const opened = await panelStream(request, caller, { callerOf, mcp: polled });
    return "reason" in opened ? refuse(caller, opened, { route: paths.PANEL_STREAM_PATH }) : opened;
  };
  const tasks = { authenticate: authenticateFor("/mcp", "/"), scopes: TASK_SCOPES };
  const routes: readonly Route[] = [
    { path: "/health", methods: READ, serve: { open: health } },
    { path: CATALOG_PATH, methods: READ, isPublic: true, serve: { open: catalog } },
    { path: CARD_PATH, methods: READ, isPublic: true, serve: { open: serverCard } },
    // Browsers request this path by themselves.
    { path: "/favicon.ico", methods: READ, serve: { open: favicon } },
    {
      path: "/mcp",
      methods: "POST",
      hasLandingPage: true,
      serve: { authenticate: authenticateFor("/mcp"), handle: mcp },
    },
    // Some clients post to the root.
    {
      path: "/",
      methods: "POST",
      hasLandingPage: true,
      serve: { authenticate: authenticateFor("/"), handle: mcp },
    },
    { path: "/execute", methods: "POST", serve: { ...tasks, handle: execute } },
    { path: "/tasks/:taskId/result", methods: `${READ}, DELETE`, serve: { ...tasks, handle: taskResult } },
    { path: "/files/:token", methods: `${READ}, PUT, POST`, serve: { open: serveLink } },
    {
      path: "/sandboxes/:name/files/*",
      methods: `${READ}, PUT, DELETE`,
      serve: { authenticate: authenticateFor("/mcp", "/"), handle: serveFiles },
    },
    { path: paths.PANEL_PATH, methods: READ, serve: { open: panelPage } },
    { path: `${paths.PANEL_PATH}/`, methods: READ, serve: { open: redirectToPanel } },
    { path: `${paths.PANEL_ASSETS_PATH}/:name`, methods: READ, serve: { open: panelAsset } },
    { path: paths.PANEL_MCP_PATH, methods: "POST", serve: { authenticate: panelCaller, handle: mcp } },
    { path: paths.PANEL_STREAM_PATH, methods: "POST", serve: { authenticate: panelCaller, handle: stream } },
    writingRoute(paths.PANEL_SIGN_IN_PATH, READ, startPanelSignIn),
    writingRoute(paths.PANEL_CALLBACK_PATH, READ, finishPanelSignIn),
    writingRoute(paths.PANEL_SIGN_OUT_PATH, "POST", signOutOfPanel),
    writingRoute(`${DECISION_PATH}/:token`, FORM, decisionPage),
    writingRoute(GIT_PATH, FORM, gitPage),
    writingRoute(`${GIT_PATH}/:host`, FORM, gitPage),
    { path: paths.METADATA_PATH, methods: READ, serve: requireOAuth(serveResourceMetadata) },
    { path: `${paths.METADATA_PATH}/mcp`, methods: READ, serve: requireOAuth(serveResourceMetadata) },
    { path: paths.SERVER_METADATA_PATH, methods: READ, serve: requireOAuth(serveAuthorizationServer) },
    writingRoute(paths.REGISTRATION_PATH, "POST", serveAuthorizationServer),
    writingRoute(paths.TOKEN_PATH, "POST", serveAuthorizationServer),
    writingRoute(paths.AUTHORIZE_PATH, FORM, serveAuthorize),
    ...REDIRECT_METHODS.map((method) => writingRoute(callbackPath(method), READ, serveCallback(method))),
  ];

  async function respond(request: Request, context: RequestContext): Promise<Response> {
    const url = parseURL(request.url);
    const segments = url?.pathname.split("/") ?? [];
    const route = routes.find(({ path }) => matchesRoute(path, segments));
    const isPublic = url !== undefined && route?.isPublic === true && !isLoopback(url);
    const problem = senderProblem(request, context.config, isPublic);
    const isAccepted = route !== undefined && route.methods.split(", ").includes(request.method);
    if (!problem && isAccepted && "authenticate" in route.serve) {
      const { scopes = [], handle, authenticate: signIn } = route.serve;
      const sender = await signIn(request, context);
      if ("principal" in sender)
        return inTurn(request, { ...context, ...sender }, async (_, caller) => {
          if (await isRateLimited(caller.env.RATE_LIMITER, caller.principal.id))
            return refuse(caller, rateLimited(), { route: route.path });
          return requireScopes(caller, scopes, route.path) ?? handle(request, caller);
        });
      await paceOpenRequest();
      return refuse(context, sender, { route: route.path });
    }

    await paceOpenRequest();
    if (problem) return refuse(context, problem);
    if (!route) return notFound(request);
    if (route.hasLandingPage && isBrowser(request)) return landingPage(request, context);
    const methods = `${route.methods}, OPTIONS`;
    if (request.method === "OPTIONS") return preflight(methods, isPublic);
    if (!isAccepted || !("open" in route.serve))
      return json({ error: "Method not allowed" }, 405, { allow: methods });
    const limiter = route.writes ? (context.env.ADDRESS_LIMITER ?? PROCESS_ADDRESS_LIMITER) : undefined;
    if (await isRateLimited(limiter, addressOf(request)))
      return refuse(context, rateLimited(), { route: route.path });
    return route.serve.open(request, context);
  }

  return {
    async fetch(request, env, ctx) {
      const arrivedAt = Date.now();
      const requestID = crypto.randomUUID();
      let config: Config;
      try {
        config = parseConfig(env);
      } catch (error) {
        if (error instanceof ConfigError)
          return withStandardHeaders(misconfiguredResponse(request, error), requestID);
        throw error;
      }
      const named = namedOrigin(request);
      const trace = traceOfHeaders(request.headers);
      const context = { env, config, ctx, origin: named?.origin, arrivedAt, requestID, trace };
      const label = named && previewLabel(named, config);
      if (named && label !== undefined)
        return servePreview(request, { label, origin: named.origin }, context).catch((error) =>
          unexpectedErrorResponse(context, "preview", error),
        );
      const response = await respond(request, context).catch((error) =>
        unexpectedErrorResponse(context, "app", error),
      );
      const out = withStandardHeaders(response, requestID);
      allowReading(request, config, out.headers);
      return out;
    },
  };
}

/** @param isPublic whether pages of any origin may read the response */
function senderProblem(request: Request, config: Config, isPublic: boolean): Refusal | undefined {
  if (!isHostAllowed(request, config)) return forbidden("bad_host", texts.BAD_HOST_TEXT);
  if (!isPublic && !isOriginAllowed(request, config)) return forbidden("bad_origin", texts.BAD_ORIGIN_TEXT);
  return undefined;
}

function notFound(request: Request): Response | Promise<Response> {
  if (!isBrowser(request)) return json({ error: "Not found" }, 404);
  return messagePage(texts.NOT_FOUND_PAGE, {
    status: 404,
    link: { href: "/", label: texts.NOT_FOUND_PAGE.link },
  });
}

async function serveMCP(parts: MCPParts, request: Request, sender: CallerContext): Promise<Response> {
  const url = new URL(request.url);
  const { pathname: route } = url;
  let caller = sender;
  const endpointQuery = endpointQueryOf(url, caller.config.tools);
  if ("problem" in endpointQuery) {
    const response = rpcError(400, -32602, endpointQuery.problem);
    return refuse(caller, { reason: "bad_query", response }, { route });
  }
  if (!isJsonContentType(request.headers.get("content-type"))) {
    return refuse(
      caller,
      { reason: "bad_body", response: rpcError(415, -32000, texts.NOT_JSON_TYPE) },
      { route },
    );
  }
  const body = await readJSON(request, caller);
  if ("problem" in body) return refuse(caller, unreadable(body.problem), { route });

  const messages = Array.isArray(body.value) ? body.value : [body.value];
  const [trace = sender.trace] = messages.flatMap((message) => traceOfMessage(message) ?? []);
  caller = { ...sender, trace };
  // The first message was counted when the request arrived.
  if (await isRateLimited(caller.env.RATE_LIMITER, caller.principal.id, messages.length - 1))
    return refuse(caller, rateLimited(), { route });
  if (caller.memory?.addCalls(messages.length - 1) === false)
    return refuse(caller, unreadable("no_room"), { route });
  const [panelForm] = messages.flatMap((message) => takePanelForm(message) ?? []);
  const calls = messages.flatMap(toolCall);
  const readURIs = messages.flatMap(resourceRead);
  const isTooLong = (value: string) => value.length > MAX_RESOURCE_URI || hasLongHost(value);
  if (messages.flatMap(repeatedStrings).some(isTooLong)) {
    const response = rpcError(400, -32602, texts.longValueText(MAX_RESOURCE_URI), idOf(body.value));
    return refuse(caller, { reason: "bad_body", response }, { route });
  }
  const needed = scopesNeeded(parts, calls, readURIs);
  const refused = requireScopes(caller, needed, route);
  if (refused) return refused;

  let error: Error | undefined;
  const query = panelForm
    ? { ...endpointQuery, structured: true, raw: panelForm === "raw", images: true }
    : endpointQuery;
  const toolChoice = { called: calls.map(({ name }) => name), onlyCalls: calls.length === messages.length };
  const client = {
    ...caller,
    ...(panelForm && { takesNotice: false }),
    takesResourceLinks: takesResourceLinks(request),
    takesImages: query.images,
    chosenTools: query.tools && chooseTools(query.tools, caller.config.tools),
  };
  const declared = declaresTasks(body.value);
  if (listensToTasks(body.value) && !declared)
    return refuse(caller, undeclaredExtension(idOf(body.value)), { route });
  const session = sessionDeclares(request);
  const opensURLs = declaresURLElicitation(body.value) || session.urls;
  const hasSignIn = canSignIn(caller.principal, caller);
  const createServer = ({ era }: { era: "modern" | "legacy" }) =>
    parts.createMCPServer(
      {
        ...client,
        // The panel never gets MCP tasks, even if the client that shows it supports them.
        takesTasks: era === "modern" ? declared && panelForm === undefined : undefined,
        mayShowApps: era === "legacy" || declaresApps(body.value),
        showsApps: declaresApps(body.value) || session.apps,
        hasSignIn,
        urlElicitation: opensURLs && hasSignIn ? era : undefined,
      },
      query,
      toolChoice,
    );
  const onerror = (reported: Error) => (error = reported);
  const respond = async () => {
    if (await isPlainCall(request, body.value))
      return servePlainCall(createServer({ era: "legacy" }), request, body.value, onerror);
    const handler = createMcpHandler(createServer, {
      route,
      // Switch off the handler's own guards; the guards above replace them.
      corsOptions: false,
      allowedOriginHostnames: "*",
      onerror,
    });
    return handler.fetch(request, { parsedBody: body.value });
  };
  const response = await respond();
  // Tool calls and reads of resources are already logged. This logs other uses of a token, and refused requests.
  if (needed.length === 0 || response.status !== 200) logUse(caller, route);
  if (response.status >= 500) return internalErrorResponse(caller, "mcp", error, idOf(body.value));
  const isInitialize = isRecord(body.value) && body.value.method === "initialize";
  const id = isInitialize ? sessionID({ apps: declaresApps(body.value), urls: opensURLs }) : undefined;
  if (id === undefined || !response.ok) return response;
  const opened = new Response(response.body, response);
  opened.headers.set("mcp-session-id", id);
  return opened;
}

/** Clients before revision 2025-06-18 fail on resource links. */
function takesResourceLinks({ headers }: Request): boolean {
  return (headers.get("mcp-protocol-version") ?? "") >= "2025-06-18";
}

interface ToolCall {
  name: string;
  args: unknown;
}

function toolCall(message: unknown): ToolCall[] {
  if (!isRecord(message) || !isRecord(message.params)) return [];
  const { method } = message;
  const { name, arguments: args, taskId } = message.params;
  if (method === "tools/call") return typeof name === "string" ? [{ name, args }] : [];
  const tasks: Record<string, string> = TASK_METHODS;
  const tool = typeof method === "string" && Object.hasOwn(tasks, method) ? tasks[method] : undefined;
  return tool === undefined ? [] : [{ name: tool, args: { id: taskId } }];
}

function listensToTasks(message: unknown): boolean {
  if (!isRecord(message) || message.method !== "subscriptions/listen" || !isRecord(message.params))
    return false;
  const { notifications } = message.params;
  return isRecord(notifications) && notifications.taskIds !== undefined;
}

function resourceRead(message: unknown): string[] {
  if (!isRecord(message) || message.method !== "resources/read" || !isRecord(message.params)) return [];
  const { uri } = message.params;
  return typeof uri === "string" ? [uri] : [];
}

/** The strings of a message that its response repeats. The response stays in memory until the client has read it. */
function repeatedStrings(message: unknown): string[] {
  if (!isRecord(message)) return [];
  const { ref, name, uri } = isRecord(message.params) ? message.params : {};
  const values = [message.id, name, uri, ...(isRecord(ref) ? [ref.uri, ref.name] : [])];
  return values.filter((value) => typeof value === "string");
}

/** The scopes that all calls of the body need. A batch is allowed as a whole or not at all. */
function scopesNeeded(parts: MCPParts, calls: readonly ToolCall[], read: readonly string[]): Scope[] {
  const needed = new Set([
    ...calls.flatMap(({ name, args }) => parts.requiredScopes(name, args)),
    ...read.flatMap((uri) => parts.resourceScopes(uri)),
  ]);
  return SCOPES.filter((scope) => needed.has(scope));
}

function favicon(): Response {
  const bytes = Uint8Array.fromBase64(ICON.src.slice(ICON.src.indexOf(",") + 1));
  return new Response(bytes, {
    headers: { "content-type": ICON.mimeType, "cache-control": "public, max-age=86400" },
  });
}

function health(request: Request, context: RequestContext): Response {
  const { serverAuthToken, authTokens } = context.config;
  const oauth = oauthFor(request, context);
  const methods = [];
  if (serverAuthToken !== undefined || authTokens.length > 0) methods.push("bearer");
  if (!("off" in oauth)) methods.push("oauth");
  const auth_method = methods.join(" and ") || "none";
  return json({
    ...HEALTHY,
    ...(context.config.localTokenCommand !== undefined && { platform: "local" }),
    auth_method: "off" in oauth ? `${auth_method} (no oauth: ${oauth.off})` : auth_method,
  });
}

type ServeWithOAuth = (request: Request, oauth: OAuth, context: RequestContext) => Promise<Response>;

/** A route whose requests cause writes, of OAuth or of a page that needs OAuth. */
function writingRoute(path: string, methods: string, serve: ServeWithOAuth): Route {
  return { path, methods, serve: requireOAuth(serve), writes: true };
}

/** Makes a route that exists only while OAuth is on. */
function requireOAuth(serve: ServeWithOAuth) {
  return {
    open: (request: Request, context: RequestContext) => {
      const oauth = oauthFor(request, context);
      if ("off" in oauth) return json({ error: "Not found", message: texts.oauthOffText(oauth.off) }, 404);
      return serve(request, oauth, context);
    },
  };
}

function logUse(caller: CallerContext, route: string): void {
  const scope = caller.principal.scopes.join(" ");
  log(caller.config, { event: "token", action: "use", ...callerFields(caller), scope, route });
}

function requireScopes(caller: CallerContext, needed: readonly Scope[], route: string): Response | undefined {
  const refusal = insufficientScope(caller, needed);
  return refusal && refuse(caller, refusal, { route, scope: needed.join(" ") });
}

/** Handles a request when it is its principal's turn. */
async function inTurn(
  request: Request,
  sender: Omit<CallerContext, "turns">,
  handle: Serve<CallerContext>,
): Promise<Response> {
  const turns = new RequestTurns(sender.principal.id, request.signal);
  const caller = { ...sender, turns };
  try {
    return (await turns.begin()) ? await handle(request, caller) : refuse(caller, noTurn());
  } finally {
    turns.end();
  }
}

function refuse(
  context: RequestContext | CallerContext,
  refusal: Refusal,
  more: { route?: string; scope?: string } = {},
): Response {
  const { reason, response } = refusal;
  log(context.config, {
    event: "refusal",
    ...("principal" in context ? callerFields(context) : { request_id: context.requestID }),
    status: response.status,
    reason,
    ...more,
  });
  return response;
}

function internalErrorResponse(
  context: RequestContext,
  where: string,
  error: unknown,
  id: string | number | null = null,
) {
  logError(context, where, error);
  return rpcError(500, -32603, `Internal error (ref ${context.requestID})`, id);
}

/** Anybody may be able to cause this error repeatedly. */
async function unexpectedErrorResponse(context: RequestContext, where: string, error: unknown) {
  await paceOpenRequest();
  return internalErrorResponse(context, where, error);
}

/** Until the operator corrects the configuration, every route fails. `/health` fails too, so that deployments notice. */
function misconfiguredResponse(request: Request, { problems }: ConfigError): Response {
  log({ logLevel: "error" }, { event: "config", problems });
  if (parseURL(request.url)?.pathname === "/health")
    return json({ ...HEALTHY, status: "misconfigured", problems }, 503);
  return json({ error: texts.MISCONFIGURED, problems }, 500);
}

function withStandardHeaders(response: Response, requestID: string): Response {
  const out = new Response(response.body, response);
  out.headers.set("x-content-type-options", "nosniff");
  out.headers.set("x-request-id", requestID);
  if (!out.headers.has("cache-control")) out.headers.set("cache-control", "no-store");
  return out;
}

const HEALTHY = { status: "healthy", platform: "cloudflare_sandboxes" };

/** Refuses a client that subscribes to tasks without declaring the extension (SEP-2663, "Protocol Errors"). */
function undeclaredExtension(id: string | number | null): Refusal {
  const data = { requiredCapabilities: TASKS_CAPABILITY };
  const message = "Missing required client capability";
  return { reason: "bad_body", response: rpcError(400, -32021, message, id, data) };
}

function forbidden(reason: "bad_host" | "bad_origin", message: string): Refusal {
  return { reason, response: json({ error: "Forbidden", message }, 403) };
}

/** @param segments of the request's path. They are split once for all routes, because a path can have thousands of them */
function matchesRoute(path: string, segments: readonly string[]): boolean {
  const parts = path.split("/");
  const hasRest = parts.at(-1) === "*";
  if (hasRest) parts.pop();
  return (
    (hasRest ? segments.length >= parts.length : segments.length === parts.length) &&
    parts.every((part, index) => (part.startsWith(":") ? segments[index] !== "" : part === segments[index]))
  );
}

function idOf(body: unknown): string | number | null {
  const id = isRecord(body) ? body.id : undefined;
  if (typeof id === "string") return id.length > MAX_RESOURCE_URI ? null : id;
  return typeof id === "number" ? id : null;
}
