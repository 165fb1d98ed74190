/** OAuth 2.1: the authorization server and its resources, built on `@cloudflare/workers-oauth-provider`. */
import {
  GrantType,
  OAuthAuthorizationServer,
  OAuthError,
  type OAuthHelpers,
  OAuthResourceServer,
} from "@cloudflare/workers-oauth-provider";
import * as z from "zod";
import type { Config, Env } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { log, logError } from "../shared/log.ts";
import { isLoopback, namedOrigin } from "../shared/origin.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { json } from "../shared/responses.ts";
import { grantOf } from "./known-grants.ts";
import { isRuleInForce, METHODS } from "./methods/index.ts";
import { COOKIE_PREFIX } from "./cookies.ts";
import { AUTHORIZE_PATH, METADATA_PATH, PANEL_PATH, REGISTRATION_PATH, TOKEN_PATH } from "./paths.ts";
import { knownScopes, type Principal, SCOPES } from "../shared/principal.ts";
import { PANEL_CLIENT_ID, PANEL_SESSION_SECONDS, addPanelClient } from "./panel-client.ts";
import { guardStore } from "./oauth-store.ts";
import { isRevoked, rememberRevocations } from "./revocation.ts";
import { ENDPOINT_TEXTS, OAUTH_OFF } from "./texts.ts";

/** The MCP paths and the panel. Each is a separate resource: its tokens are refused at the others. */
const RESOURCE_PATHS = ["/mcp", "/", PANEL_PATH] as const;

export type ResourcePath = (typeof RESOURCE_PATHS)[number];

const ACCESS_TOKEN_SECONDS = 3600;
/** A grant ends this long after the sign-in, however often it is refreshed. */
const GRANT_SECONDS = (30 * DAY_MS) / 1000;
const SESSION = { accessTokenTTL: PANEL_SESSION_SECONDS, refreshTokenTTL: 0 };
const CLIENT_SECONDS = (90 * DAY_MS) / 1000;

/** The content of a grant. The provider encrypts it with a key that only the token's holder has. */
const grantSchema = z.object({ principal: z.string(), via: z.string(), rule: z.string() });

export type GrantProps = z.infer<typeof grantSchema>;

export interface OAuth {
  issuer: string;
  server: OAuthAuthorizationServer<ProviderEnv>;
  resources: ReadonlyMap<ResourcePath, OAuthResourceServer<ProviderEnv, Principal>>;
}

/** The bindings with the request's context, because the provider passes nothing else to its callbacks. */
interface ProviderEnv extends Env {
  context: RequestContext;
}

/** A response header that passes the name of a failed check to the log. Removed before the response is sent. */
export const CHECK_HEADER = "x-failed-check";

/** The last `OAuth` built for a configuration. On loopback the origin depends on the request's host. */
const built = new WeakMap<Config, OAuth>();

export function oauthFor(request: Request, { env, config }: RequestContext): OAuth | { off: string } {
  const last = built.get(config);
  if (last && config.publicOrigin) return last;
  if (!env.OAUTH_KV) return { off: OAUTH_OFF.noStore };
  if (!METHODS.some((method) => method.isOn({ config, env })))
    return { off: OAUTH_OFF.noMethod(METHODS.map(({ variable }) => variable)) };
  const url = config.publicOrigin ? new URL(config.publicOrigin) : namedOrigin(request);
  // The provider does not treat names below `localhost` as loopback.
  const isOnLoopback = url !== undefined && isLoopback(url) && !url.hostname.endsWith(".localhost");
  if (!url || (!config.publicOrigin && !isOnLoopback)) return { off: OAUTH_OFF.noOrigin };
  if (url.protocol !== "https:" && !isOnLoopback) return { off: OAUTH_OFF.notHTTPS };
  if (last?.issuer === url.origin) return last;
  const oauth = build(url.origin, config, isOnLoopback);
  built.set(config, oauth);
  return oauth;
}

export function metadataURL({ issuer }: OAuth, path: ResourcePath): string {
  return `${issuer}${METADATA_PATH}${path === "/" ? "" : path}`;
}

/** Whether the token has this server's format. Other tokens are not looked up. */
export function isTokenShaped(token: string): boolean {
  return /^[^:]{1,300}:[\w-]{16}:[\w-]{32}$/.test(token);
}

/** The principal of an access token for one of `paths`; undefined if it is invalid, `unavailable` if the lookup failed. */
export async function tokenHolder(
  oauth: OAuth,
  token: string,
  paths: readonly ResourcePath[],
  context: RequestContext,
): Promise<Principal | "unavailable" | undefined> {
  for (const path of paths) {
    const request = new Request(`${oauth.issuer}${path}`, { headers: { authorization: `Bearer ${token}` } });
    const response = await oauth.resources.get(path)?.fetch(request, providerEnv(context), context.ctx);
    if (response?.ok) return JSON.parse(await response.text()) as Principal;
    if (response?.status === 503) return "unavailable";
  }
  return undefined;
}

export function oauthAPI({ server }: OAuth, context: RequestContext): OAuthHelpers {
  return server.getOAuthApi(providerEnv(context));
}

export function providerEnv(context: RequestContext): ProviderEnv {
  const { OAUTH_KV } = context.env;
  const issuer = context.config.publicOrigin ?? context.origin;
  const store = OAUTH_KV && guardStore(rememberRevocations(OAUTH_KV, context));
  return { ...context.env, OAUTH_KV: store && issuer ? addPanelClient(store, issuer) : store, context };
}

function build(issuer: string, config: Config, isOnLoopback: boolean): OAuth {
  const resource = (path: ResourcePath) => (path === "/" ? issuer : `${issuer}${path}`);
  const server = new OAuthAuthorizationServer<ProviderEnv>({
    issuer,
    resources: RESOURCE_PATHS.map(resource),
    // For clients that send no resource indicator (RFC 8707).
    defaultResource: resource("/mcp"),
    authorizeEndpoint: AUTHORIZE_PATH,
    tokenEndpoint: TOKEN_PATH,
    clientRegistrationEndpoint: REGISTRATION_PATH,
    scopesSupported: [...SCOPES],
    // With metadata documents, anybody can make the server fetch a URL without signing in. On loopback that request would come
    // from inside the user's network, so metadata documents are off on loopback. The local platform turns them off even if it has
    // a public origin.
    clientIdMetadataDocumentEnabled: config.clientMetadata ?? !isOnLoopback,
    accessTokenTTL: ACCESS_TOKEN_SECONDS,
    refreshTokenTTL: GRANT_SECONDS,
    clientRegistrationTTL: CLIENT_SECONDS,
    // Desktop apps such as Cursor get the code by a scheme of their own. `redirects.ts` limits these addresses.
    allowPrivateUseRedirectUris: true,
    cookiePrefix: COOKIE_PREFIX,
    onError({ code, description, status, headers, internal }) {
      const check = `${internal.category}/${internal.reason}`;
      // After the provider's `invalid_client`, clients would forget their tokens, so the person would have to sign in again.
      if (internal.category === "client-id-metadata-document") {
        const body = { error: "temporarily_unavailable", error_description: ENDPOINT_TEXTS.noDocument };
        return json(body, 503, { "retry-after": "30", [CHECK_HEADER]: check });
      }
      const body = { error: code, error_description: description };
      return Response.json(body, { status, headers: { ...headers, [CHECK_HEADER]: check } });
    },
    async tokenExchangeCallback({ grantType, clientId, userId, grantId, requestedScope, props, env }) {
      const grant = grantSchema.parse(props);
      const hasRule = await isRuleInForce(config, grant.rule);
      // The provider may have read an old copy of the grant, and would store it again.
      if (!hasRule || (await isRevoked(env, userId, grantId)))
        throw new OAuthError("invalid_grant", {
          description: ENDPOINT_TEXTS.grantEnded,
          internal: { category: "grant_policy", reason: hasRule ? "revoked" : "rule_gone" },
        });
      // The new access token has the same grant. Its first look-up must not wait for those of strangers.
      grantOf(`${userId}:${grantId}:`).noteValid();
      const session = clientId === PANEL_CLIENT_ID ? SESSION : undefined;
      log(config, {
        event: "token",
        request_id: env.context.requestID,
        action: grantType === GrantType.REFRESH_TOKEN ? "refresh" : "issue",
        principal: grant.principal,
        via: grant.via,
        client: clientId,
        scope: requestedScope.join(" "),
      });
      return session;
    },
  });
  const resources = new Map(
    RESOURCE_PATHS.map((path) => [path, protectedResource(server, config, issuer, resource(path))] as const),
  );
  return { issuer, server, resources };
}

/** Builds the server of one resource. Its handler responds with the token's principal, for `tokenHolder`. */
function protectedResource(
  server: OAuthAuthorizationServer<ProviderEnv>,
  config: Config,
  issuer: string,
  resource: string,
) {
  return new OAuthResourceServer<ProviderEnv, Principal>({
    resourceMetadata: { resource, authorization_servers: [issuer], resource_name: "sandbox-mcp" },
    requiredScopes: [...SCOPES],
    validateToken: (env) => async (audience, token) => {
      try {
        const valid = await server.validateToken<unknown>(audience, token, env);
        const grant = grantSchema.safeParse(valid?.props);
        if (!valid || !grant.success || !(await isRuleInForce(config, grant.data.rule))) return null;
        const { principal: id, via } = grant.data;
        const props: Principal = { id, scopes: knownScopes(valid.scope), via, client: valid.clientId };
        return { ...valid, props };
      } catch (error) {
        logError(env.context, "oauth", error);
        throw error;
      }
    },
    handler: { fetch: (_request, _env, { props }) => Response.json(props) },
  });
}
