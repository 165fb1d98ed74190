/** The way of a request, in reading order: host and origin, route, token; then, for MCP, body, scopes, handler. */
import { isJsonContentType, type McpServer } from "@modelcontextprotocol/server";
import { createMcpHandler } from "agents/mcp/server";
import { addressOf } from "../actors/attempts.ts";
import { serveAuthorize, serveGitHubCallback } from "../auth/authorize.ts";
import { authenticate, type Caller } from "../auth/bearer.ts";
import { insufficientScope } from "../auth/challenge.ts";
import { serveAuthorizationServer, serveResourceMetadata } from "../auth/endpoints.ts";
import { type OAuth, oauthFor, type ResourcePath } from "../auth/oauth.ts";
import {
  AUTHORIZE_PATH,
  GITHUB_CALLBACK_PATH,
  METADATA_PATH,
  REGISTRATION_PATH,
  SERVER_METADATA_PATH,
  TOKEN_PATH,
} from "../auth/paths.ts";
import { missingScopes, type Scope, SCOPES } from "../shared/principal.ts";
import { json, type Refusal, rpcError } from "../shared/responses.ts";
import { readJSON, unreadable } from "./body.ts";
import { type Connection, connectionOf } from "../shared/connection.ts";
import { type Config, ConfigError, type Env, parseConfig } from "../shared/config.ts";
import { isBrowser, landingPage } from "./landing.ts";
import { PROCESS_ADDRESS_LIMITER, rateLimited, tooOften } from "../shared/limiter.ts";
import { log } from "../shared/log.ts";
import { allowReading, hostAllowed, originAllowed, preflight } from "../shared/origin.ts";
import { execute, taskResult } from "./rest.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { isRecord } from "../shared/is-record.ts";

/** An authenticated request, as everything behind the guards sees it. */
export interface Call extends RequestContext, Caller {}

/** What a request asks of the tools. */
export interface Wanted {
  /** Those it calls. */
  called: readonly string[];
  /** Whether it does nothing else, so that no other tool need be there: registering one takes its time. */
  onlyCalls: boolean;
}

/** What stands behind the guards. */
export interface Product {
  createMCPServer(call: Call, connection: Connection, wanted: Wanted): McpServer;
  /** The scopes a call of this tool needs; none for a tool that does not exist. */
  requiredScopes(name: string, args: unknown): readonly Scope[];
}

/** Written out rather than as `ExportedHandler`, whose request type no test can build. */
export interface App {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response>;
}

type Serve<Known> = (request: Request, known: Known) => Response | Promise<Response>;

interface Route {
  /** The path, in which a part that begins with a colon stands for any. */
  path: string;
  /** Answered beside `OPTIONS`, which every route answers. */
  methods: string;
  /** Whether a browser that asks for it gets a page instead. */
  forPeople?: boolean;
  /** Whether anybody's request makes it write: such requests are limited by address. */
  writes?: boolean;
  /** What answers anybody, and what an authenticated request. */
  serve:
    | { open: Serve<RequestContext> }
    | { tokensOf: readonly [ResourcePath, ...ResourcePath[]]; known: Serve<Call> };
}

const READ = "GET, HEAD";

/** The Worker's default export. */
export function createApp(product: Product): App {
  const mcp = (request: Request, call: Call) => serveMCP(product, request, call);
  const routes: readonly Route[] = [
    { path: "/health", methods: READ, serve: { open: health } },
    { path: "/mcp", methods: "POST", forPeople: true, serve: { tokensOf: ["/mcp"], known: mcp } },
    // Some clients post to the root.
    { path: "/", methods: "POST", forPeople: true, serve: { tokensOf: ["/"], known: mcp } },
    { path: "/execute", methods: "POST", serve: { tokensOf: ["/mcp", "/"], known: execute } },
    { path: "/tasks/:taskId/result", methods: READ, serve: { tokensOf: ["/mcp", "/"], known: taskResult } },
    { path: METADATA_PATH, methods: READ, serve: withOAuth(serveResourceMetadata) },
    { path: `${METADATA_PATH}/mcp`, methods: READ, serve: withOAuth(serveResourceMetadata) },
    { path: SERVER_METADATA_PATH, methods: READ, serve: withOAuth(serveAuthorizationServer) },
    { path: REGISTRATION_PATH, methods: "POST", serve: withOAuth(serveAuthorizationServer), writes: true },
    { path: TOKEN_PATH, methods: "POST", serve: withOAuth(serveAuthorizationServer), writes: true },
    { path: AUTHORIZE_PATH, methods: `${READ}, POST`, serve: withOAuth(serveAuthorize), writes: true },
    { path: GITHUB_CALLBACK_PATH, methods: READ, serve: withOAuth(serveGitHubCallback), writes: true },
  ];

  async function answer(request: Request, visit: RequestContext): Promise<Response> {
    const { config } = visit;
    if (!hostAllowed(request, config)) return refuse(visit, BAD_HOST());
    if (!originAllowed(request, config)) return refuse(visit, BAD_ORIGIN());

    const { pathname } = new URL(request.url);
    const route = routes.find(({ path }) => matches(path, pathname));
    if (!route) return json({ error: "Not found" }, 404);
    if (route.forPeople && isBrowser(request)) return landingPage(request, visit);
    const methods = `${route.methods}, OPTIONS`;
    if (request.method === "OPTIONS") return preflight(methods);
    if (!methods.split(", ").includes(request.method)) {
      return json({ error: "Method not allowed" }, 405, { allow: methods });
    }
    if ("open" in route.serve) {
      if (
        route.writes &&
        (await tooOften(visit.env.ADDRESS_LIMITER ?? PROCESS_ADDRESS_LIMITER, addressOf(request)))
      )
        return refuse(visit, rateLimited(), { route: route.path });
      return route.serve.open(request, visit);
    }

    const caller = await authenticate(request, visit, route.serve.tokensOf);
    if ("response" in caller) return refuse(visit, caller, { route: route.path });
    const call: Call = { ...visit, ...caller };
    if (await tooOften(call.env.RATE_LIMITER, call.principal.id))
      return refuse(call, rateLimited(), { route: route.path });
    return route.serve.known(request, call);
  }

  return {
    async fetch(request, env, ctx) {
      const requestID = crypto.randomUUID();
      let config: Config;
      try {
        config = parseConfig(env);
      } catch (error) {
        if (error instanceof ConfigError) return sealed(misconfigured(request, error), requestID);
        throw error;
      }
      const visit: RequestContext = { env, config, ctx, requestID };
      const response = await answer(request, visit).catch((error) => failed(visit, "app", error));
      const out = sealed(response, requestID);
      allowReading(request, config, out.headers);
      return out;
    },
  };
}

/** MCP of every revision: one stateless server for this one request. */
async function serveMCP(product: Product, request: Request, call: Call): Promise<Response> {
  const url = new URL(request.url);
  const { pathname: route } = url;
  const connection = connectionOf(url);
  if ("problem" in connection) return refuse(call, badQuery(connection.problem), { route });
  if (!isJsonContentType(request.headers.get("content-type"))) {
    const message = "Unsupported Media Type: Content-Type must be application/json";
    return refuse(call, { reason: "bad_body", response: rpcError(415, -32000, message) }, { route });
  }
  const body = await readJSON(request);
  if ("problem" in body) return refuse(call, unreadable(body.problem), { route });

  const messages = Array.isArray(body.value) ? body.value : [body.value];
  // The first was counted with the request.
  if (await tooOften(call.env.RATE_LIMITER, call.principal.id, messages.length - 1))
    return refuse(call, rateLimited(), { route });
  const calls = messages.flatMap(toolCall);
  const needed = scopesNeeded(product, calls);
  const missing = missingScopes(call.principal, needed);
  if (missing.length > 0) {
    const refusal = insufficientScope(call.principal, needed, missing, call.metadata);
    return refuse(call, refusal, { route, scope: needed.join(" ") });
  }

  let error: Error | undefined;
  const wanted = { called: calls.map(({ name }) => name), onlyCalls: calls.length === messages.length };
  const handler = createMcpHandler(() => product.createMCPServer(call, connection, wanted), {
    route,
    // The guards above are the only ones; these two switch the handler's own off.
    corsOptions: false,
    allowedOriginHostnames: "*",
    onerror: (reported) => (error = reported),
  });
  const response = await handler.fetch(request, { parsedBody: body.value });
  // A tool call is logged by the tool, once it has its answer; what the protocol refuses comes to no tool.
  if (needed.length === 0 || response.status !== 200) logUse(call, route);
  return response.status < 500 ? response : failed(call, "mcp", error, idOf(body.value));
}

interface ToolCall {
  name: string;
  args: unknown;
}

function toolCall(message: unknown): ToolCall[] {
  if (!isRecord(message) || message.method !== "tools/call" || !isRecord(message.params)) return [];
  const { name, arguments: args } = message.params;
  return typeof name === "string" ? [{ name, args }] : [];
}

/** What every call in the body needs together: a batch runs all its calls, so it is let through whole or not. */
function scopesNeeded(product: Product, calls: readonly ToolCall[]): Scope[] {
  const needed = new Set(calls.flatMap(({ name, args }) => product.requiredScopes(name, args)));
  return SCOPES.filter((scope) => needed.has(scope));
}

/** How to get in, and, where a browser's sign-in is not among the ways, why not. */
function health(request: Request, visit: RequestContext): Response {
  const { serverAuthToken, authTokens } = visit.config;
  const oauth = oauthFor(request, visit);
  const ways = [];
  if (serverAuthToken !== undefined || authTokens.length > 0) ways.push("bearer");
  if (!("off" in oauth)) ways.push("oauth");
  const auth_method = ways.join(" and ") || "none";
  return json({
    ...HEALTHY,
    auth_method: "off" in oauth ? `${auth_method} (no oauth: ${oauth.off})` : auth_method,
  });
}

/** A route of OAuth's, which is not there when OAuth is off. */
function withOAuth(serve: (request: Request, oauth: OAuth, visit: RequestContext) => Promise<Response>) {
  return {
    open: (request: Request, visit: RequestContext) => {
      const oauth = oauthFor(request, visit);
      if ("off" in oauth) return json({ error: "Not found", message: `OAuth is off: ${oauth.off}.` }, 404);
      return serve(request, oauth, visit);
    },
  };
}

function logUse({ config, requestID: request_id, principal }: Call, route: string): void {
  const scope = principal.scopes.join(" ");
  log(config, { event: "token", request_id, action: "use", ...whoIs({ principal }), scope, route });
}

function whoIs({ principal: { id, via, client } }: Pick<Call, "principal">) {
  return { principal: id, door: via, client };
}

function refuse(
  visit: RequestContext | Call,
  refusal: Refusal,
  more: { route?: string; scope?: string } = {},
): Response {
  const { reason, response } = refusal;
  log(visit.config, {
    event: "refusal",
    request_id: visit.requestID,
    status: response.status,
    reason,
    ...("principal" in visit ? whoIs(visit) : {}),
    ...more,
  });
  return response;
}

/** The answer to what nobody expected: a reference, with the detail in the log alone. */
function failed(
  visit: RequestContext,
  where: string,
  error: unknown,
  id: string | number | null = null,
): Response {
  const ref = visit.requestID;
  log(visit.config, { event: "error", ref, where, error });
  return rpcError(500, -32603, `Internal error (ref ${ref})`, id);
}

/** Nothing works until the operator has seen to it, health included, so that no deployment takes this for well. */
function misconfigured(request: Request, { problems }: ConfigError): Response {
  log({ logLevel: "error" }, { event: "config", problems });
  if (new URL(request.url).pathname === "/health")
    return json({ ...HEALTHY, status: "misconfigured", problems }, 503);
  return json({ error: "The server is misconfigured", problems }, 500);
}

/** The answer with the headers that every one of ours has. */
function sealed(response: Response, requestID: string): Response {
  const out = new Response(response.body, response);
  out.headers.set("x-content-type-options", "nosniff");
  out.headers.set("x-request-id", requestID);
  if (!out.headers.has("cache-control")) out.headers.set("cache-control", "no-store");
  return out;
}

const HEALTHY = { status: "healthy", platform: "cloudflare_sandboxes" };

const BAD_HOST = (): Refusal =>
  forbidden("bad_host", "This server does not answer to the host name of the request.");
const BAD_ORIGIN = (): Refusal =>
  forbidden("bad_origin", "Web pages of this origin may not call this server; ALLOWED_ORIGINS can name it.");

function badQuery(problem: string): Refusal {
  return { reason: "bad_query", response: rpcError(400, -32602, problem) };
}

function forbidden(reason: "bad_host" | "bad_origin", message: string): Refusal {
  return { reason, response: json({ error: "Forbidden", message }, 403) };
}

function matches(path: string, pathname: string): boolean {
  const given = pathname.split("/");
  const parts = path.split("/");
  return (
    parts.length === given.length &&
    parts.every((part, index) => (part.startsWith(":") ? given[index] !== "" : part === given[index]))
  );
}

function idOf(body: unknown): string | number | null {
  const id = isRecord(body) ? body.id : undefined;
  return typeof id === "string" || typeof id === "number" ? id : null;
}
