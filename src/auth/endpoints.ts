/** The endpoints that OAuth clients call directly: metadata, registration, tokens, revocation. */
import * as z from "zod";
import { parseJSON } from "../shared/bounded.ts";
import { isRecord } from "../shared/is-record.ts";
import { readBody } from "../shared/stream-bytes.ts";
import { json } from "../shared/responses.ts";
import { log } from "../shared/log.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { addressOf, registrationsOf } from "../actors/attempts.ts";
import { CHECK_HEADER, type OAuth, providerEnv } from "./oauth.ts";
import { METADATA_PATH, REGISTRATION_PATH, TOKEN_PATH } from "./paths.ts";
import { isShortRedirect, redirectProblem } from "./redirects.ts";
import { keepRepeatedRefreshes } from "./repeated-refresh.ts";
import { watchRevocations } from "./revocation.ts";
import { bytesOf, unlessStoreFails } from "./oauth-store.ts";
import { STORAGE_SILENT, ENDPOINT_TEXTS } from "./texts.ts";

/** The store keeps a whole registration. */
const MAX_BODY_BYTES = 16 * 1024;

/** How long a body may take, in milliseconds: strangers can send bodies. */
export const BODY_MS = 10_000;

/** The most parameters of a form. Clients send about ten, and the provider's time grows with the square of their number. */
const MAX_PARAMETERS = 100;
/** The most redirect URIs of a client: the provider compares each of them with the one of a request. Clients register a few. */
const MAX_REDIRECT_URIS = 50;

/**
 * Parameters that become part of a store key, which may have at most 512 bytes. The server's own values have a third of
 * MAX_KEY_PART_BYTES.
 */
const KEY_PARTS = ["code", "refresh_token", "token", "client_id"];
const MAX_KEY_PART_BYTES = 360;

const MAX_CLIENT_URL_BYTES = 2048;

/**
 * How clients with a metadata document can authenticate with keys (RFC 7523). The provider fetches these keys from an address in the
 * document, and parses 64 KiB of JSON: with 5,000 strings of digits that collide (bounded.ts), a request without a token took the thread
 * 0.8 to 2 s. It also keeps what it parsed for 256 addresses. So clients authenticate by PKCE alone, as almost all do.
 */
const ASSERTION = ["client_assertion", "client_assertion_type"];

/** What a client with a known grant sends: a refresh has some hundred bytes, with the address of a metadata document up to 3,000. It sends them at once. */
const MAX_KNOWN_BYTES = 4096;
const KNOWN_BODY_MS = 1000;

/**
 * The refresh token of a request to the token endpoint, or the token that it revokes; undefined if a short body without one arrived, or
 * none arrived soon. The request's own body can still be read.
 */
export async function presentedGrantToken(request: Request): Promise<string | undefined> {
  const bounds = { maxBytes: MAX_KNOWN_BYTES, ms: KNOWN_BODY_MS };
  const read = await readBody(request.clone(), bounds).catch(() => undefined);
  const text = read && "bytes" in read ? new TextDecoder().decode(read.bytes) : "";
  // Only this parameter is parsed.
  const [parameter] = /(?<=^|&)(?:refresh_)?token=[^&]*/.exec(text) ?? [];
  return parameter && [...new URLSearchParams(parameter).values()][0];
}

/** The request with the public origin in its URL. Behind a proxy, the request may have arrived with another origin. */
export function moveToIssuer(request: Request, { issuer }: OAuth): Request {
  const { pathname, search, origin } = new URL(request.url);
  return origin === issuer ? request : new Request(`${issuer}${pathname}${search}`, request);
}

export async function serveResourceMetadata(request: Request, oauth: OAuth, context: RequestContext) {
  const suffix = new URL(request.url).pathname.slice(METADATA_PATH.length);
  const resource = oauth.resources.get(suffix === "/mcp" ? "/mcp" : "/");
  const response = await resource?.fetch(moveToIssuer(request, oauth), providerEnv(context), context.ctx);
  return response ?? json({ error: "Not found" }, 404);
}

/** The metadata of the authorization server, without the provider's support for client assertions. */
export async function serveServerMetadata(request: Request, oauth: OAuth, context: RequestContext) {
  // A response to HEAD has no body to change.
  const get = new Request(moveToIssuer(request, oauth).url);
  const response = await oauth.server.fetch(get, providerEnv(context), context.ctx);
  const { token_endpoint_auth_signing_alg_values_supported: _, ...metadata } = serverMetadata.parse(
    JSON.parse(await response.text()),
  );
  const methods = metadata.token_endpoint_auth_methods_supported.filter((name) => name !== "private_key_jwt");
  return json({ ...metadata, token_endpoint_auth_methods_supported: methods });
}

const serverMetadata = z.looseObject({ token_endpoint_auth_methods_supported: z.array(z.string()) });

export async function serveAuthorizationServer(request: Request, oauth: OAuth, context: RequestContext) {
  const route = new URL(request.url).pathname;
  const read =
    request.method === "POST"
      ? // `readBody` fails for malformed chunks, and if the client disconnects.
        await readBody(request, { maxBytes: MAX_BODY_BYTES, ms: BODY_MS }).catch(() => ({
          problem: "broken" as const,
        }))
      : { bytes: undefined };
  if ("problem" in read) {
    const [status, error_description] = UNREADABLE[read.problem];
    return json({ error: "invalid_request", error_description }, status);
  }
  const body = read.bytes && new TextDecoder().decode(read.bytes);
  if (route === TOKEN_PATH && (body?.split("&").length ?? 0) > MAX_PARAMETERS)
    return json({ error: "invalid_request", error_description: ENDPOINT_TEXTS.manyParameters }, 400);
  const form = new URLSearchParams(route === TOKEN_PATH ? body : undefined);
  // An empty parameter counts as absent.
  if (ASSERTION.some((name) => form.getAll(name).some(Boolean)))
    return json({ error: "invalid_client", error_description: ENDPOINT_TEXTS.noAssertions }, 401);
  if (
    KEY_PARTS.some((name) => form.getAll(name).some((value) => isTooLong(name, value))) ||
    !form.getAll("redirect_uri").every(isShortRedirect)
  )
    return json({ error: "invalid_request", error_description: ENDPOINT_TEXTS.parameterTooLong }, 400);
  const registration = route === REGISTRATION_PATH ? parseJSON(body ?? "") : undefined;
  const redirectURIs = isRecord(registration) ? registration.redirect_uris : undefined;
  if (Array.isArray(redirectURIs) && redirectURIs.length > MAX_REDIRECT_URIS)
    return json({ error: "invalid_redirect_uri", error_description: ENDPOINT_TEXTS.manyRedirects }, 400);
  const problem = redirectProblem(registration, context.config);
  if (problem !== undefined) return json({ error: "invalid_redirect_uri", error_description: problem }, 400);
  const passed = new Request(moveToIssuer(new Request(request.url), oauth).url, {
    method: request.method,
    headers: request.headers,
    body,
  });
  const env = providerEnv(context);
  const revocation = form.get("token") && !form.get("grant_type");
  const watch = revocation && env.OAUTH_KV ? watchRevocations(env.OAUTH_KV) : undefined;
  const work = unlessStoreFails(context, "oauth", async () => {
    const store = watch?.store ?? env.OAUTH_KV;
    const token = form.get("refresh_token") ?? form.get("token");
    const OAUTH_KV = store && token ? keepRepeatedRefreshes(store, token) : store;
    const response = await oauth.server.fetch(passed, { ...env, OAUTH_KV }, context.ctx);
    const revoked = await watch?.findRevoked();
    if (route === REGISTRATION_PATH && response.status === 201)
      await boundClients(response.clone(), addressOf(request), context);
    return { response, revoked };
  });
  // If the client disconnects, the platform would end the request between two writes. The client
  // would be stored, and would not count in MAX_UNAPPROVED.
  context.ctx.waitUntil(work.catch(() => undefined));
  const result = await work;
  if (!result) {
    const unavailable = { error: "temporarily_unavailable", error_description: STORAGE_SILENT };
    return json(unavailable, 503, { "retry-after": "5" });
  }
  const { response, revoked } = result;
  const check = response.headers.get(CHECK_HEADER);
  if (check !== null) {
    const refusal = { event: "refusal", reason: "oauth_error", check, route } as const;
    log(context.config, { ...refusal, status: response.status, request_id: context.requestID });
  }
  const request_id = context.requestID;
  if (revoked) log(context.config, { event: "token", request_id, action: "revoke", ...revoked, route });
  const publicResponse = new Response(response.body, response);
  publicResponse.headers.delete(CHECK_HEADER);
  return publicResponse;
}

/** Limits the number of unapproved clients, because anybody can register clients. */
async function boundClients(registration: Response, address: string, context: RequestContext): Promise<void> {
  const { client_id } = JSON.parse(await registration.text()) as { client_id: string };
  const { OAUTH_KV } = providerEnv(context);
  // An unapproved client has no grants or tokens to delete.
  const remove = (client: string) => OAUTH_KV?.delete(`client:${client}`);
  try {
    const surplus = (await registrationsOf(context.env)?.registered(client_id, address)) ?? [];
    await Promise.all(surplus.map(remove));
  } catch (error) {
    await remove(client_id);
    throw error;
  }
}

/** A client id that is a metadata document's URL does not become part of a key. */
function isTooLong(name: string, value: string): boolean {
  return (
    bytesOf(value) >
    (name === "client_id" && value.startsWith("https://") ? MAX_CLIENT_URL_BYTES : MAX_KEY_PART_BYTES)
  );
}

const UNREADABLE = {
  broken: [400, ENDPOINT_TEXTS.broken],
  // `readBody` returns this only for callers with a principal.
  no_room: [429, ENDPOINT_TEXTS.tooLarge],
  too_large: [413, ENDPOINT_TEXTS.tooLarge],
  too_slow: [408, ENDPOINT_TEXTS.tooSlow],
} as const;
