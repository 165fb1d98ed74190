/**
 * Authentication by the Authorization header, with static tokens or OAuth access tokens. Refusals have the challenges of RFC 6750
 * in `WWW-Authenticate`.
 */
import { json, type Refusal } from "../shared/responses.ts";
import type { RefusalReason } from "../shared/log.ts";
import type { Config } from "../shared/config.ts";
import type { PreviousToken } from "../shared/static-tokens.ts";
import { sha256 } from "../shared/sha256.ts";
import {
  isRateLimited,
  PROCESS_GRANT_LIMITER,
  PROCESS_LOOKUP_LIMITER,
  rateLimited,
} from "../shared/limits.ts";
import type { Caller, CallerContext, RequestContext } from "../shared/request-context.ts";
import { elapsedMs } from "../shared/timers.ts";
import { addressOf } from "../actors/attempts.ts";
import { grantOf } from "./known-grants.ts";
import { isTokenShaped, metadataURL, type OAuth, oauthFor, type ResourcePath, tokenHolder } from "./oauth.ts";
import {
  missingScopes,
  OWNER_ID,
  type Principal,
  type Scope,
  SCOPES,
  tokenPrincipalID,
} from "../shared/principal.ts";
import { CALLER_TEXTS } from "./texts.ts";

interface Candidate {
  sha256: Uint8Array;
  principal: Principal;
  /** When a replaced token stops working, in milliseconds since the epoch. */
  until?: number;
}

/**
 * Identifies the caller by the `Authorization: Bearer` header only. Tokens in URLs and bodies are ignored, because URLs end up in
 * logs; RFC 6750 makes both optional (sections 2.2 and 2.3). Only a token in the OAuth format is looked up in the store.
 * @param paths the resources whose OAuth tokens are accepted. A challenge names the metadata of the first resource
 */
export async function authenticate(
  request: Request,
  context: RequestContext,
  paths: readonly [ResourcePath, ...ResourcePath[]],
): Promise<Caller | Refusal> {
  const { config } = context;
  const candidates = await candidatesOf(config);
  const oauth = oauthFor(request, context);
  const metadata = "off" in oauth ? undefined : metadataURL(oauth, paths[0]);
  if (candidates.length === 0 && "off" in oauth)
    return unauthorized("no_token_configured", CALLER_TEXTS.noTokenConfigured, metadata);
  const token = presentedToken(request.headers.get("authorization"));
  if (token === undefined) return unauthorized("no_token", CALLER_TEXTS.noToken, metadata);
  let holder = token === "" ? undefined : await principalOf(token, candidates);
  if (!holder && token !== "" && !("off" in oauth)) {
    const found = await lookUpToken(token, oauth, paths, request, context);
    if (found && "response" in found) return found;
    holder = found;
  }
  if (holder) return { principal: holder, metadata };
  return unauthorized("invalid_token", CALLER_TEXTS.invalidToken, metadata);
}

/** How long a token counts as valid without another look-up: as long as the store takes to show a revocation. */
const TOKEN_CHECK_MS = 60_000;

/** Returns a function that tells whether the token of a long request is still valid. It looks the token up once a minute at most. */
export function tokenCheck({ isSignedIn }: Pick<CallerContext, "isSignedIn">): () => Promise<boolean> {
  let checkedAt = Date.now();
  return async () => {
    if (elapsedMs(checkedAt) < TOKEN_CHECK_MS) return true;
    checkedAt = Date.now();
    return (await isSignedIn?.()) ?? true;
  };
}

/** The longest `Authorization` header, in characters, and the most words, that are compared with tokens. Others count as a token. */
const MAX_COMPARED = 16_384;
const MAX_WORDS = 20;

/**
 * Whether an `Authorization` header contains a token of this server, or text in the format of one. Does not read the store. Also
 * searches malformed headers, because they leak tokens too.
 */
export async function isOwnAuthorization(header: string, config: Config): Promise<boolean> {
  if (header.length > MAX_COMPARED) return true;
  const words = new Set([header, ...header.split(/\s+/), ...header.split(/[\s,;:="]+/)]);
  const encoded = new Set(header.split(/[\s,]+/));
  if (words.size > MAX_WORDS || encoded.size > MAX_WORDS) return true;
  for (const word of encoded) for (const part of basicParts(word)) words.add(part);
  if (words.size > MAX_WORDS) return true;
  const candidates = await candidatesOf(config);
  for (const word of words)
    if (isTokenShaped(word) || (await principalOf(word, candidates)) !== undefined) return true;
  return false;
}

/** The user and password of the Basic scheme (RFC 7617); empty for invalid base64. */
function basicParts(word: string): string[] {
  try {
    const text = atob(word);
    const colon = text.indexOf(":");
    return colon < 0 ? [text] : [text.slice(0, colon), text.slice(colon + 1)];
  } catch {
    return [];
  }
}

/**
 * Returns the principal of an OAuth token. A lookup reads the store, which costs money, so each address has a limit per minute.
 * Grants whose last token was valid are exempt, so that a flood of guesses does not lock out signed-in clients.
 */
export async function lookUpToken(
  token: string,
  oauth: OAuth,
  paths: readonly ResourcePath[],
  request: Request,
  context: RequestContext,
): Promise<Principal | Refusal | undefined> {
  if (!isTokenShaped(token)) return undefined;
  const { RATE_LIMITER: limiter } = context.env;
  const grant = grantOf(token);
  if (
    !grant.isValid &&
    (await isRateLimited(limiter ?? PROCESS_LOOKUP_LIMITER, `address:${addressOf(request)}`))
  )
    return rateLimited();
  const holder = await tokenHolder(oauth, token, paths, context);
  if (holder === "unavailable") return tokenUnchecked();
  if (holder) grant.noteValid();
  else grant.noteInvalid();
  return holder;
}

/**
 * Whether a refresh or revocation exceeds a limit of its own; undefined if this process does not know the token's grant. The store is not
 * read for that, so strangers can neither use up this limit nor cause work.
 */
export async function isKnownGrantLimited(token: string, { env }: RequestContext) {
  const grant = grantOf(token);
  if (!grant.isKnown) return undefined;
  return isRateLimited(env.ADDRESS_LIMITER ?? PROCESS_GRANT_LIMITER, `grant:${grant.id}`);
}

/**
 * The token in an `Authorization` header; undefined without the Bearer scheme or without text after it, "" if that text is not
 * one token. The scheme is case-insensitive and may be followed by any number of spaces (RFC 9110 section 11.4). Two headers
 * arrive joined by ", ", so they are never one token.
 */
function presentedToken(header: string | null): string | undefined {
  const credentials = /^bearer(?: +(.*))?$/is.exec(header ?? "");
  if (!credentials?.[1]) return undefined;
  return /^[\x21-\x7e]+$/.test(credentials[1]) ? credentials[1] : "";
}

/** Compares the token with every candidate, by digest and in constant time. */
async function principalOf(token: string, candidates: readonly Candidate[]): Promise<Principal | undefined> {
  const digest = await sha256(token);
  let match: Principal | undefined;
  for (const { sha256: own, principal, until = Infinity } of candidates) {
    const isEqual = crypto.subtle.timingSafeEqual(digest, own);
    match = isEqual && Date.now() < until ? (match ?? principal) : match;
  }
  return match;
}

const candidatesByConfig = new WeakMap<Config, Promise<Candidate[]>>();

function candidatesOf(config: Config): Promise<Candidate[]> {
  const candidates = candidatesByConfig.get(config) ?? digestTokens(config);
  candidatesByConfig.set(config, candidates);
  return candidates;
}

async function digestTokens(config: Config): Promise<Candidate[]> {
  const { serverAuthToken, previousToken, authTokens } = config;
  const owner: Principal = { id: OWNER_ID, scopes: SCOPES, via: "token" };
  const candidates: Candidate[] = [];
  if (serverAuthToken !== undefined) {
    candidates.push({ sha256: await sha256(serverAuthToken), principal: owner });
    if (previousToken)
      candidates.push(previousCandidate(await sha256(previousToken.value), owner, previousToken));
  }
  for (const { name, sha256: hex, scopes, region, previous } of authTokens) {
    const principal: Principal = { id: tokenPrincipalID(name), scopes, region, via: "token" };
    candidates.push({ sha256: Uint8Array.fromHex(hex), principal });
    if (previous) candidates.push(previousCandidate(Uint8Array.fromHex(previous.value), principal, previous));
  }
  return candidates;
}

function previousCandidate(
  digest: Candidate["sha256"],
  principal: Principal,
  { until }: PreviousToken,
): Candidate {
  return { sha256: digest, principal: { ...principal, via: "previous_token" }, until };
}

const REALM = "sandbox-mcp";

/**
 * Status 401. The challenge has the error `invalid_token` only if the request has a token. For a request without a token, RFC
 * 6750 section 3.1 requires a challenge without an error. An error would make a client discard its token.
 * @param metadata the URL of the resource's metadata (RFC 9728 section 5.1); undefined for the panel, and if OAuth is off
 */
export function unauthorized(reason: RefusalReason, message: string, metadata?: string): Refusal {
  const error = reason === "invalid_token" && { error: "invalid_token", error_description: message };
  const header = challenge({ ...error, resource_metadata: metadata });
  return { reason, response: json({ error: "Unauthorized", message }, 401, { "www-authenticate": header }) };
}

/**
 * Status 403 if the principal lacks a scope of `needed`, else undefined. The message names all required scopes. The challenge
 * also names the principal's current scopes, because a client signs in again with exactly the scopes of the challenge.
 */
export function insufficientScope(
  { principal, metadata }: Caller,
  needed: readonly Scope[],
): Refusal | undefined {
  const missing = missingScopes(principal, needed);
  if (missing.length === 0) return undefined;
  const scope = SCOPES.filter((name) => needed.includes(name) || principal.scopes.includes(name)).join(" ");
  const message = CALLER_TEXTS.needsScopes(needed, missing);
  const header = challenge({
    error: "insufficient_scope",
    scope,
    error_description: message,
    resource_metadata: metadata,
  });
  const body = { error: "insufficient_scope", message, scope: needed.join(" ") };
  const response = json(body, 403, { "www-authenticate": header });
  return { reason: "insufficient_scope", response, scope: body.scope };
}

/** Status 503: the token could not be looked up. After another status, the client would discard its token. */
function tokenUnchecked(): Refusal {
  const body = { error: "Service Unavailable", message: CALLER_TEXTS.unchecked };
  const response = json(body, 503, { "retry-after": "5" });
  return { reason: "token_check_failed", response };
}

/** Values never contain quotes or backslashes, so they need no escaping. */
function challenge(parameters: Record<string, string | undefined>): string {
  const all = Object.entries({ realm: REALM, ...parameters }).filter(([, value]) => value !== undefined);
  return `Bearer ${all.map(([name, value]) => `${name}="${value}"`).join(", ")}`;
}
