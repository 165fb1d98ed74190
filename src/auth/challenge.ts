/** The refusals of RFC 6750, with their challenge in `WWW-Authenticate`. */
import { json, type Refusal } from "../shared/responses.ts";
import type { RefusalReason } from "../shared/log.ts";
import { missingScopes, type Scope, SCOPES } from "../shared/principal.ts";
import type { Caller } from "../shared/request-context.ts";
import { CALLER_TEXTS } from "./texts.ts";

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
  return { reason: "insufficient_scope", response: json(body, 403, { "www-authenticate": header }) };
}

/** Status 503: the token could not be looked up. After another status, the client would discard its token. */
export function tokenUnchecked(): Refusal {
  const body = { error: "Service Unavailable", message: CALLER_TEXTS.unchecked };
  const response = json(body, 503, { "retry-after": "5" });
  return { reason: "token_check_failed", response };
}

/** Values never contain quotes or backslashes, so they need no escaping. */
function challenge(parameters: Record<string, string | undefined>): string {
  const all = Object.entries({ realm: REALM, ...parameters }).filter(([, value]) => value !== undefined);
  return `Bearer ${all.map(([name, value]) => `${name}="${value}"`).join(", ")}`;
}
