/** The refusals of RFC 6750: what was wrong, and in `WWW-Authenticate` what would be right. */
import { json, type Refusal } from "../server/answers.ts";
import type { RefusalReason } from "../server/log.ts";
import type { Scope } from "./principal.ts";

const REALM = "sandbox-mcp";

/**
 * 401. The challenge names `invalid_token` only when a token came with the request: without one, RFC 6750 section 3.1
 * asks for the bare scheme, and clients take an error code as a reason to throw their token away.
 */
export function unauthorized(reason: RefusalReason, message: string): Refusal {
  const presented = reason === "invalid_token";
  const header = challenge(presented ? { error: "invalid_token", error_description: message } : {});
  return { reason, response: json({ error: "Unauthorized", message }, 401, { "www-authenticate": header }) };
}

/** 403 for a principal whose scopes do not cover `needed`; names all that the request needs, granted or not. */
export function insufficientScope(needed: readonly Scope[], missing: readonly Scope[]): Refusal {
  const scope = needed.join(" ");
  const message = `This request needs the scopes ${scope}; the token lacks ${missing.join(" ")}.`;
  const header = challenge({ error: "insufficient_scope", scope, error_description: message });
  const body = { error: "insufficient_scope", message, scope };
  return { reason: "insufficient_scope", response: json(body, 403, { "www-authenticate": header }) };
}

/** Every value is ours and free of quotes and backslashes, so a quoted string needs no escape. */
function challenge(parameters: Record<string, string>): string {
  const all = Object.entries({ realm: REALM, ...parameters });
  return `Bearer ${all.map(([name, value]) => `${name}="${value}"`).join(", ")}`;
}
