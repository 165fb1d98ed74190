/** OAuth 2.1: the authorization server and the two resources it guards, as `@cloudflare/workers-oauth-provider` has them. */
import {
  GrantType,
  OAuthAuthorizationServer,
  OAuthError,
  type OAuthHelpers,
  OAuthResourceServer,
} from "@cloudflare/workers-oauth-provider";
import { z } from "zod";
import type { Config, Env } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { isRecord } from "../shared/is-record.ts";
import { log, logError } from "../shared/log.ts";
import { isLoopback, namedOrigin } from "../shared/origin.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { isRuleInForce } from "./grant-policy.ts";
import { COOKIE_PREFIX } from "./cookies.ts";
import { AUTHORIZE_PATH, METADATA_PATH, REGISTRATION_PATH, TOKEN_PATH } from "./paths.ts";
import { knownScopes, type Principal, SCOPES, SIGN_IN_METHODS } from "../shared/principal.ts";
import { guarded } from "./store.ts";

/** The paths that speak MCP. Each is a resource of its own: a token for one is refused at the other. */
export const RESOURCE_PATHS = ["/mcp", "/"] as const;

export type ResourcePath = (typeof RESOURCE_PATHS)[number];

const ACCESS_TOKEN_SECONDS = 3600;
/** A grant ends so long after the sign-in, however often it is refreshed. */
const GRANT_SECONDS = (30 * DAY_MS) / 1000;
const CLIENT_SECONDS = (90 * DAY_MS) / 1000;

/** What a grant holds. The provider encrypts it with a key that only the token's holder has. */
const grantSchema = z.preprocess(
  // Grants last 30 days, and those of earlier versions call the field `door`.
  (props) => (isRecord(props) ? { via: props.door, ...props } : props),
  z.object({ principal: z.string(), via: z.enum(SIGN_IN_METHODS), rule: z.string() }),
);

export type GrantProps = z.infer<typeof grantSchema>;

export interface OAuth {
  /** The origin all its URLs are under. */
  issuer: string;
  server: OAuthAuthorizationServer<ProviderEnv>;
  resources: ReadonlyMap<ResourcePath, OAuthResourceServer<ProviderEnv, Principal>>;
}

/** The bindings with the request's context beside them, since the provider hands its callbacks nothing else of a request. */
interface ProviderEnv extends Env {
  context: RequestContext;
}

/** Takes the name of a failed check from the provider's answer to the log; it never leaves the server. */
export const CHECK_HEADER = "x-failed-check";

/** On loopback the origin is whatever name the caller used, so only the last one is kept. */
const built = new WeakMap<Config, OAuth>();

/** OAuth as it is for this request, or why there is none. */
export function oauthFor(request: Request, { env, config }: RequestContext): OAuth | { off: string } {
  const last = built.get(config);
  if (last && config.publicOrigin) return last;
  if (!env.OAUTH_KV) return { off: "the KV namespace OAUTH_KV is not bound" };
  const owner = config.serverAuthToken !== undefined && env.Attempts !== undefined;
  if (!owner && !config.github && !config.access) {
    return {
      off: "there is no way to sign in: set SERVER_AUTH_TOKEN, GITHUB_CLIENT_ID or ACCESS_TEAM_DOMAIN",
    };
  }
  const url = config.publicOrigin ? new URL(config.publicOrigin) : namedOrigin(request);
  // The provider takes no name below `localhost` for the machine itself.
  const loopback = url !== undefined && isLoopback(url) && !url.hostname.endsWith(".localhost");
  if (!url || (!config.publicOrigin && !loopback)) return { off: "PUBLIC_ORIGIN is not set" };
  if (url.protocol !== "https:" && !loopback) return { off: "PUBLIC_ORIGIN is not an https origin" };
  if (last?.issuer === url.origin) return last;
  const oauth = build(url.origin, config, loopback);
  built.set(config, oauth);
  return oauth;
}

/** The URL of a resource's metadata (RFC 9728), which a challenge names. */
export function metadataURL({ issuer }: OAuth, path: ResourcePath): string {
  return `${issuer}${METADATA_PATH}${path === "/" ? "" : path}`;
}

/** Whether this server can have issued such a token: for another nothing is looked up. */
export function isTokenShaped(token: string): boolean {
  return /^[^:]{1,300}:[\w-]{16}:[\w-]{32}$/.test(token);
}

/**
 * Whose access token this is at one of `paths`; undefined when it is nobody's there, expired, revoked, or of a grant
 * whose rule no longer stands.
 * @returns `unavailable` when the token could not be looked up
 */
export async function tokenHolder(
  oauth: OAuth,
  token: string,
  paths: readonly ResourcePath[],
  context: RequestContext,
): Promise<Principal | "unavailable" | undefined> {
  for (const path of paths) {
    const request = new Request(`${oauth.issuer}${path}`, { headers: { authorization: `Bearer ${token}` } });
    const answer = await oauth.resources.get(path)?.fetch(request, providerEnv(context), context.ctx);
    if (answer?.ok) return answer.json<Principal>();
    if (answer?.status === 503) return "unavailable";
  }
  return undefined;
}

/** What an authorization page needs of the provider. */
export function oauthAPI({ server }: OAuth, context: RequestContext): OAuthHelpers {
  return server.getOAuthApi(providerEnv(context));
}

export function providerEnv(context: RequestContext): ProviderEnv {
  const { OAUTH_KV } = context.env;
  return { ...context.env, OAUTH_KV: OAUTH_KV && guarded(OAUTH_KV), context };
}

function build(issuer: string, config: Config, loopback: boolean): OAuth {
  const resource = (path: ResourcePath) => (path === "/" ? issuer : `${issuer}${path}`);
  const server = new OAuthAuthorizationServer<ProviderEnv>({
    issuer,
    resources: RESOURCE_PATHS.map(resource),
    // For clients older than resource indicators, which all connect here.
    defaultResource: resource("/mcp"),
    authorizeEndpoint: AUTHORIZE_PATH,
    tokenEndpoint: TOKEN_PATH,
    clientRegistrationEndpoint: REGISTRATION_PATH,
    scopesSupported: [...SCOPES],
    // On loopback the document would be fetched from inside the user's own network, at anybody's wish; so it would
    // from there behind a public origin, which is why the local platform's configuration switches this off.
    clientIdMetadataDocumentEnabled: config.clientMetadata ?? !loopback,
    accessTokenTTL: ACCESS_TOKEN_SECONDS,
    refreshTokenTTL: GRANT_SECONDS,
    clientRegistrationTTL: CLIENT_SECONDS,
    cookiePrefix: COOKIE_PREFIX,
    onError({ code, description, status, headers, internal }) {
      const check = `${internal.category}/${internal.reason}`;
      const body = { error: code, error_description: description };
      return Response.json(body, { status, headers: { ...headers, [CHECK_HEADER]: check } });
    },
    async tokenExchangeCallback({ grantType, clientId, requestedScope, props, env }) {
      const grant = grantSchema.parse(props);
      if (!(await isRuleInForce(config, grant.rule))) {
        throw new OAuthError("invalid_grant", {
          description: "The sign-in behind this grant no longer holds",
          internal: { category: "grant_policy", reason: "rule_gone" },
        });
      }
      log(config, {
        event: "token",
        request_id: env.context.requestID,
        action: grantType === GrantType.REFRESH_TOKEN ? "refresh" : "issue",
        principal: grant.principal,
        via: grant.via,
        client: clientId,
        scope: requestedScope.join(" "),
      });
    },
  });
  const resources = new Map(
    RESOURCE_PATHS.map((path) => [path, guard(server, config, issuer, resource(path))] as const),
  );
  return { issuer, server, resources };
}

/** The resource: publishes its metadata, and answers a request of ours with the principal behind its token. */
function guard(
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
