/** Handles a request in this order: host and origin, route, token, turn, rate limit, scopes, handler. */
import { addressOf } from "../actors/attempts.ts";
import { serveAuthorize, callbackPath, serveCallback } from "../auth/authorize.ts";
import { authenticate, insufficientScope, isKnownGrantLimited } from "../auth/bearer.ts";
import { messagePage } from "../auth/consent-page.ts";
import {
  presentedGrantToken,
  serveAuthorizationServer,
  serveResourceMetadata,
  serveServerMetadata,
} from "../auth/endpoints.ts";
import { type OAuth, oauthFor, type ResourcePath } from "../auth/oauth.ts";
import { REDIRECT_METHODS } from "../auth/methods/index.ts";
import { finishPanelSignIn, panelCaller, signOutOfPanel, startPanelSignIn } from "../auth/panel-session.ts";
import * as paths from "../auth/paths.ts";
import type { Scope } from "../shared/principal.ts";
import { internalErrorResponse, json, refuse, type Refusal } from "../shared/responses.ts";
import { type Config, ConfigError, type Env, parseConfig } from "../shared/config.ts";
import { decisionPage } from "./decision-page.ts";
import { mcpEndpoint, type MCPParts } from "./mcp-endpoint.ts";
import { DECISION_PATH, GIT_PATH } from "../shared/link-token.ts";
import { FILES_PATH, serveFiles, serveLink } from "./file-routes.ts";
import { gitPage } from "./git-page.ts";
import { ICON } from "./icon.ts";
import { acceptsAnything, isBrowser, landingPage } from "./landing.ts";
import {
  areTooManyOpen,
  isRateLimited,
  openRequest,
  PROCESS_ADDRESS_LIMITER,
  rateLimited,
} from "../shared/limits.ts";
import { log } from "../shared/log.ts";
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
import { servePreview } from "./preview-routes.ts";
import { execute, TASK_SCOPES, taskResult } from "./rest.ts";
import { CARD_PATH, CATALOG_PATH, catalog, serverCard } from "./server-card.ts";
import type { Caller, CallerContext, RequestContext } from "../shared/request-context.ts";
import { traceOfHeaders } from "../shared/trace.ts";
import * as texts from "./texts.ts";

/** Used instead of `ExportedHandler`, because tests cannot construct that type's requests. */
interface App {
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
  causesWrites?: boolean;
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

/** The most characters of a header: Node's own limit for a whole head. The server parses some headers, and errors repeat others. */
const MAX_HEADER = 16_384;
/** The most characters of an `Origin`, which the server reads several times. A DNS name has at most 253. */
const MAX_ORIGIN = 2048;
/** The most characters of all headers. Access proxies send up to 30,000. */
const MAX_HEAD = 65_536;
/** The most different headers. Clients and proxies send some dozens. */
const MAX_HEADERS = 1000;

/** The longest address of a request. A path in a sandbox has at most 4,096 bytes, which take three characters each if escaped. */
const MAX_ADDRESS = 16_384;

/** Why a request's head is too large; undefined if it is not. */
function headProblem({ url, headers }: Request): string | undefined {
  if (url.length > MAX_ADDRESS) return texts.longAddressText(MAX_ADDRESS);
  if ([...headers.keys()].length > MAX_HEADERS) return texts.manyHeadersText(MAX_HEADERS);
  const maxOf = (name: string) => (name === "origin" ? MAX_ORIGIN : MAX_HEADER);
  let chars = 0;
  for (const [name, value] of headers) {
    if (value.length > maxOf(name)) return texts.longHeaderText(name, maxOf(name));
    chars += value.length;
    if (chars > MAX_HEAD) return texts.longHeadText(MAX_HEAD);
  }
  return undefined;
}

const READ = "GET, HEAD";
const FORM = `${READ}, POST`;

export function createApp(parts: MCPParts): App {
  const mcp = mcpEndpoint(parts);
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
      path: FILES_PATH,
      methods: `${READ}, PUT, DELETE`,
      serve: { authenticate: authenticateFor("/mcp", "/"), handle: serveFiles },
    },
    { path: paths.PANEL_PATH, methods: READ, serve: { open: panelPage } },
    { path: `${paths.PANEL_PATH}/`, methods: READ, serve: { open: redirectToPanel } },
    { path: `${paths.PANEL_ASSETS_PATH}/:name`, methods: READ, serve: { open: panelAsset } },
    { path: paths.PANEL_MCP_PATH, methods: "POST", serve: { authenticate: panelCaller, handle: mcp } },
    writingRoute(paths.PANEL_SIGN_IN_PATH, READ, startPanelSignIn),
    writingRoute(paths.PANEL_CALLBACK_PATH, READ, finishPanelSignIn),
    writingRoute(paths.PANEL_SIGN_OUT_PATH, "POST", signOutOfPanel),
    writingRoute(`${DECISION_PATH}/:token`, FORM, decisionPage),
    writingRoute(GIT_PATH, FORM, gitPage),
    writingRoute(`${GIT_PATH}/:host`, FORM, gitPage),
    { path: paths.METADATA_PATH, methods: READ, serve: requireOAuth(serveResourceMetadata) },
    { path: `${paths.METADATA_PATH}/mcp`, methods: READ, serve: requireOAuth(serveResourceMetadata) },
    { path: paths.SERVER_METADATA_PATH, methods: READ, serve: requireOAuth(serveServerMetadata) },
    writingRoute(paths.REGISTRATION_PATH, "POST", serveAuthorizationServer),
    writingRoute(paths.TOKEN_PATH, "POST", serveAuthorizationServer),
    writingRoute(paths.AUTHORIZE_PATH, FORM, serveAuthorize),
    ...REDIRECT_METHODS.map((method) => writingRoute(callbackPath(method), READ, serveCallback(method))),
  ];

  async function respond(request: Request, context: RequestContext): Promise<Response> {
    const url = URL.parse(request.url) ?? undefined;
    const segments = url?.pathname.split("/") ?? [];
    const route = routes.find(({ path }) => matchesRoute(path, segments));
    const isPublic = url !== undefined && route?.isPublic === true && !isLoopback(url);
    const problem = senderProblem(request, context.config, isPublic);
    const isAccepted = route !== undefined && route.methods.split(", ").includes(request.method);
    const guarded = !problem && isAccepted && "authenticate" in route.serve ? route.serve : undefined;
    const sender = await guarded?.authenticate(request, context);
    if (guarded && sender && "principal" in sender) {
      const isSignedIn = async () => {
        const again = await guarded.authenticate(request, context);
        return "principal" in again || again.response.status !== 401;
      };
      if (areTooManyOpen(true, context.config.openFiles)) return tooManyOpen();
      const caller = { ...context, ...sender, isSignedIn, client: request.signal };
      const refusal = (await isRateLimited(caller.env.RATE_LIMITER, caller.principal.id))
        ? rateLimited()
        : insufficientScope(caller, guarded.scopes ?? []);
      return refusal ? refuse(caller, refusal, route?.path) : guarded.handle(request, caller);
    }

    if (sender && "reason" in sender) return refuse(context, sender, route?.path);
    if (problem) return refuse(context, problem);
    if (!route) return notFound(request);
    if (route.hasLandingPage && (isBrowser(request) || (route.path === "/" && acceptsAnything(request))))
      return landingPage(request, context);
    const methods = `${route.methods}, OPTIONS`;
    if (request.method === "OPTIONS") return preflight(methods, isPublic);
    if (!isAccepted || !("open" in route.serve))
      return json({ error: "Method not allowed" }, 405, { allow: methods });
    if (areTooManyOpen(false, context.config.openFiles)) return tooManyOpen();
    if (route.causesWrites && isEmbedded(request))
      return refuse(context, forbidden("bad_origin", texts.EMBEDDED_TEXT), route.path);
    if (route.causesWrites && (await isWriteLimited(request, context, route.path)))
      return refuse(context, rateLimited(), route.path);
    return route.serve.open(request, context);
  }

  async function serve(request: Request, context: RequestContext): Promise<Response> {
    const { config, requestID } = context;
    const message = headProblem(request);
    if (message !== undefined) {
      const response = json({ error: "Request head too large", message }, 431);
      return withStandardHeaders(refuse(context, { reason: "large_head", response }), requestID);
    }
    const named = namedOrigin(request);
    const trace = traceOfHeaders(request.headers);
    const known = { ...context, origin: named?.origin, trace };
    const label = named && previewLabel(named, config);
    if (named && label !== undefined && areTooManyOpen(false, config.openFiles)) return tooManyOpen();
    if (named && label !== undefined)
      return servePreview(request, { label, origin: named.origin }, known).catch((error) =>
        internalErrorResponse(known, "preview", error),
      );
    const response = await respond(request, known).catch((error) =>
      internalErrorResponse(known, "app", error),
    );
    const out = withStandardHeaders(response, requestID);
    allowReading(request, config, out.headers);
    return out;
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
      const end = openRequest(request.signal);
      try {
        return await serve(request, { env, config, ctx, origin: undefined, arrivedAt, requestID });
      } finally {
        end();
      }
    },
  };
}

function tooManyOpen(): Response {
  return json({ error: texts.TOO_MANY_OPEN }, 503, { "retry-after": "5" });
}

/** @param isPublic whether pages of any origin may read the response */
function senderProblem(request: Request, config: Config, isPublic: boolean): Refusal | undefined {
  if (!isHostAllowed(request, config)) return forbidden("bad_host", texts.BAD_HOST_TEXT);
  if (!isPublic && !isOriginAllowed(request, config)) return forbidden("bad_origin", texts.BAD_ORIGIN_TEXT);
  return undefined;
}

/**
 * Whether a page loads another page as an image, a frame or the like, or in advance. The browser sets these headers. A page of
 * another site could use up the limit of its visitor's address by such requests: with 700 images, nobody at this address could
 * sign in or refresh a token for a minute.
 */
function isEmbedded({ method, headers }: Request): boolean {
  const isPage = (headers.get("sec-fetch-dest") ?? "document") === "document" && !headers.has("sec-purpose");
  return !isPage && (method === "GET" || method === "HEAD");
}

/** Refreshes and revocations of known grants have limits of their own, which strangers cannot use up. */
async function isWriteLimited(request: Request, context: RequestContext, path: string): Promise<boolean> {
  const token = path === paths.TOKEN_PATH ? await presentedGrantToken(request) : undefined;
  const isLimited = token ? await isKnownGrantLimited(token, context) : undefined;
  if (isLimited !== undefined) return isLimited;
  return isRateLimited(context.env.ADDRESS_LIMITER ?? PROCESS_ADDRESS_LIMITER, limitedSender(request));
}

/**
 * Who a request counts for. A window that another origin's page, such as a preview, has opened could use up the limit of its
 * visitor's address in the same way, so it has a limit of its own.
 */
function limitedSender(request: Request): string {
  const { headers } = request;
  const isSentByPage =
    /^(?:cross|same)-site$/.test(headers.get("sec-fetch-site") ?? "") &&
    // The server has checked an Origin. So a web client that the operator allows has sent the request.
    !headers.has("origin") &&
    !headers.has("sec-fetch-user");
  return `${isSentByPage ? "cross-origin " : ""}${addressOf(request)}`;
}

function notFound(request: Request): Response | Promise<Response> {
  if (!isBrowser(request)) return json({ error: "Not found" }, 404);
  return messagePage(texts.NOT_FOUND_PAGE, {
    status: 404,
    link: { href: "/", label: texts.NOT_FOUND_PAGE.link },
  });
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
  return { path, methods, serve: requireOAuth(serve), causesWrites: true };
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

/** Until the operator corrects the configuration, every route fails. `/health` fails too, so that deployments notice. */
function misconfiguredResponse(request: Request, { problems }: ConfigError): Response {
  log({ logLevel: "error" }, { event: "config", problems });
  if (URL.parse(request.url)?.pathname === "/health")
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
