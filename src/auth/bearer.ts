/** Tokens in the Authorization header: the static ones of the configuration, and those that OAuth clients were given. */
import type { Refusal } from "../shared/responses.ts";
import type { Config } from "../shared/config.ts";
import { PROCESS_LOOKUP_LIMITER, rateLimited, tooOften } from "../shared/limiter.ts";
import type { Caller, RequestContext } from "../shared/request-context.ts";
import { addressOf } from "../actors/attempts.ts";
import { tokenUnchecked, unauthorized } from "./challenge.ts";
import { isTokenShaped, metadataURL, type OAuth, oauthFor, type ResourcePath, tokenHolder } from "./oauth.ts";
import { OWNER_ID, type Principal, SCOPES, tokenPrincipalID } from "../shared/principal.ts";

/** A token that would be accepted: the digest to compare with, and who it makes of the caller. */
interface Candidate {
  sha256: ArrayBuffer | Uint8Array;
  principal: Principal;
}

/**
 * Who sent the request, by its `Authorization: Bearer` header and nothing else: a token in the URL or in the body is
 * not looked at (RFC 6750 sections 2.2 and 2.3 are optional, and URLs end up in logs). A static token is settled here
 * and costs no look-up; only what an OAuth client could have been given is looked up.
 * @param paths the resources whose OAuth tokens count, the one to be named in a challenge first
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
  if (candidates.length === 0 && "off" in oauth) {
    return unauthorized(
      "no_token_configured",
      "No token is configured on this server, so it lets nobody in.",
      metadata,
    );
  }
  const token = presentedToken(request.headers.get("authorization"));
  if (token === undefined) {
    return unauthorized("no_token", "Send a token in the Authorization header: Bearer <token>.", metadata);
  }
  let holder = token === "" ? undefined : await principalOf(token, candidates);
  if (!holder && token !== "" && !("off" in oauth)) {
    const found = await lookedUp(token, oauth, paths, request, context);
    if (found && "response" in found) return found;
    holder = found;
  }
  if (holder) return { principal: holder, metadata };
  return unauthorized("invalid_token", "The token is not valid here.", metadata);
}

/** Whether an `Authorization` header holds a token of this server's, as far as can be told without looking it up. */
export async function isOwnAuthorization(header: string, config: Config): Promise<boolean> {
  const token = presentedToken(header);
  if (token === undefined) return false;
  return isTokenShaped(token) || (await principalOf(token, await candidatesOf(config))) !== undefined;
}

/** OAuth tokens that were good a moment ago, and until when (milliseconds since the epoch) that is worth something. */
const goodLately = new Map<string, number>();
const LATELY_MS = 600_000;
const MOST_GOOD = 1000;

/**
 * The holder of an OAuth token. Each look-up reads the store, which costs: an address has so many a minute, beside those
 * of tokens that are known to be good, so that a flood of guesses keeps nobody out who is in.
 */
async function lookedUp(
  token: string,
  oauth: OAuth,
  paths: readonly ResourcePath[],
  request: Request,
  context: RequestContext,
): Promise<Principal | Refusal | undefined> {
  if (!isTokenShaped(token)) return undefined;
  const limiter = context.env.RATE_LIMITER ?? PROCESS_LOOKUP_LIMITER;
  const isKnown = (goodLately.get(token) ?? 0) > Date.now();
  if (!isKnown && (await tooOften(limiter, `address:${addressOf(request)}`))) return rateLimited();
  const holder = await tokenHolder(oauth, token, paths, context);
  if (holder === "unavailable") return tokenUnchecked();
  goodLately.delete(token);
  if (!holder) return undefined;
  if (goodLately.size >= MOST_GOOD) goodLately.clear();
  goodLately.set(token, Date.now() + LATELY_MS);
  return holder;
}

/** Whether `token` is the server's own, in time that does not depend on how much of it is right. */
export async function isServerToken(token: string, config: Config): Promise<boolean> {
  const { serverAuthToken } = config;
  if (serverAuthToken === undefined) return false;
  return crypto.subtle.timingSafeEqual(await sha256(token), await sha256(serverAuthToken));
}

/**
 * The token in an `Authorization` header; undefined when there is none of the Bearer scheme, and "" when what follows
 * the scheme is not one token. The scheme is case-insensitive and any number of spaces may follow it (RFC 9110 section
 * 11.4). Two headers arrive joined by ", " and are therefore never one token.
 */
function presentedToken(header: string | null): string | undefined {
  const credentials = /^bearer(?: +(.*))?$/is.exec(header ?? "");
  if (!credentials?.[1]) return undefined;
  return /^[\x21-\x7e]+$/.test(credentials[1]) ? credentials[1] : "";
}

/** Every candidate is compared, by digest, in time that depends on their number alone. */
async function principalOf(token: string, candidates: readonly Candidate[]): Promise<Principal | undefined> {
  const digest = await sha256(token);
  let match: Principal | undefined;
  for (const candidate of candidates) {
    const equal = crypto.subtle.timingSafeEqual(digest, candidate.sha256);
    match = equal ? (match ?? candidate.principal) : match;
  }
  return match;
}

const known = new WeakMap<Config, Promise<Candidate[]>>();

/** Worked out once per configuration: it is on the path of every request. */
function candidatesOf(config: Config): Promise<Candidate[]> {
  const candidates = known.get(config) ?? digestTokens(config);
  known.set(config, candidates);
  return candidates;
}

async function digestTokens(config: Config): Promise<Candidate[]> {
  const named = config.authTokens.map(({ name, sha256: hex, scopes }): Candidate => {
    return { sha256: fromHex(hex), principal: { id: tokenPrincipalID(name), scopes, via: "token" } };
  });
  if (config.serverAuthToken === undefined) return named;
  const owner: Principal = { id: OWNER_ID, scopes: SCOPES, via: "token" };
  return [{ sha256: await sha256(config.serverAuthToken), principal: owner }, ...named];
}

function sha256(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
