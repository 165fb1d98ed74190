/** The refusals of RFC 6750: what was wrong, and in `WWW-Authenticate` what would be right. */
import { json, type Refusal } from "../shared/responses.ts";
import type { RefusalReason } from "../shared/log.ts";
import { missingScopes, type Scope, SCOPES } from "../shared/principal.ts";
import type { Caller } from "../shared/request-context.ts";

const REALM = "sandbox-mcp";

/**
 * 401. The challenge names `invalid_token` only when a token came with the request: without one, RFC 6750 section 3.1
 * asks for the bare scheme, and clients take an error code as a reason to throw their token away.
 * @param metadata where the way to a token is described (RFC 9728 section 5.1); undefined when OAuth is off
 */
export function unauthorized(reason: RefusalReason, message: string, metadata?: string): Refusal {
  const presented = reason === "invalid_token";
  const header = challenge({
    ...(presented ? { error: "invalid_token", error_description: message } : {}),
    resource_metadata: metadata,
  });
  return { reason, response: json({ error: "Unauthorized", message }, 401, { "www-authenticate": header }) };
}

/**
 * 403 for a principal whose scopes do not cover `needed`; undefined when they do. The message names all that the request
 * needs. The challenge names what the principal has as well, because a client that signs in again asks for exactly the
 * scopes it names.
 */
export function insufficientScope(
  { principal, metadata }: Caller,
  needed: readonly Scope[],
): Refusal | undefined {
  const missing = missingScopes(principal, needed);
  if (missing.length === 0) return undefined;
  const scope = SCOPES.filter((name) => needed.includes(name) || principal.scopes.includes(name)).join(" ");
  const message = `This request needs the scopes ${needed.join(" ")}; the token lacks ${missing.join(" ")}.`;
  const header = challenge({
    error: "insufficient_scope",
    scope,
    error_description: message,
    resource_metadata: metadata,
  });
  const body = { error: "insufficient_scope", message, scope: needed.join(" ") };
  return { reason: "insufficient_scope", response: json(body, 403, { "www-authenticate": header }) };
}

/** 503: whether the token is good could not be found out, so the client keeps it and comes back. */
export function tokenUnchecked(): Refusal {
  const message = "The token could not be checked just now. Try again in a few seconds.";
  const response = json({ error: "Service Unavailable", message }, 503, { "retry-after": "5" });
  return { reason: "token_check_failed", response };
}

/** Every value is ours and free of quotes and backslashes, so a quoted string needs no escape. */
function challenge(parameters: Record<string, string | undefined>): string {
  const all = Object.entries({ realm: REALM, ...parameters }).filter(([, value]) => value !== undefined);
  return `Bearer ${all.map(([name, value]) => `${name}="${value}"`).join(", ")}`;
}
