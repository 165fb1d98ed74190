/** The refusals of RFC 6750, with their challenge in `WWW-Authenticate`. */
import { json, type Refusal } from "../shared/responses.ts";
import type { RefusalReason } from "../shared/log.ts";
import { missingScopes, type Scope, SCOPES } from "../shared/principal.ts";
import type { Caller } from "../shared/request-context.ts";

const REALM = "sandbox-mcp";

/**
 * 401. The challenge names `invalid_token` only when the request carried a token. Without one, RFC 6750 section 3.1 asks
 * for a challenge without an error code, and a client that sees one throws its token away.
 * @param metadata the URL of the resource's metadata (RFC 9728 section 5.1); undefined when OAuth is off
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

/** 503: the token could not be looked up. Any other status would make the client throw it away. */
export function tokenUnchecked(): Refusal {
  const message = "The token could not be checked just now. Try again in a few seconds.";
  const response = json({ error: "Service Unavailable", message }, 503, { "retry-after": "5" });
  return { reason: "token_check_failed", response };
}

/** No value contains a quote or a backslash, so none needs escaping. */
function challenge(parameters: Record<string, string | undefined>): string {
  const all = Object.entries({ realm: REALM, ...parameters }).filter(([, value]) => value !== undefined);
  return `Bearer ${all.map(([name, value]) => `${name}="${value}"`).join(", ")}`;
}
