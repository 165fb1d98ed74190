import type { Config } from "../shared/config.ts";
import { isRecord } from "../shared/is-record.ts";
import { hasPlainHost } from "../shared/origin.ts";
import { previewLabel } from "../shared/preview-address.ts";
import { ENDPOINT_TEXTS } from "./texts.ts";

/** At most 1,000 characters of ASCII: other characters do not belong in a URI (RFC 3986). Clients use about 100. */
const SHORT_ASCII = /^[\x20-\x7e]{0,1000}$/;

/** Whether a redirect URI is plain. The provider parses it once for each redirect URI of the client. */
export function isShortRedirect(redirectURI: string): boolean {
  return SHORT_ASCII.test(redirectURI);
}

/** Schemes that browsers serve themselves. No app receives a code there, and some run code in the browser. */
const BROWSER_SCHEMES =
  /^(?:about|blob|data|file|filesystem|ftp|javascript|mailto|vbscript|view-source|wss?):$/;

/** Whether an app on the person's machine receives the code, by a scheme of its own (RFC 8252, 7.1). */
export function isPrivateUse(redirectURI: string): boolean {
  return !/^https?:$/.test(new URL(redirectURI).protocol);
}

/**
 * Whether an HTTP address has a plain host, and not the host of a preview. At a preview, code in a sandbox would receive the
 * authorization code. The consent page's CSP names the host, so characters such as `;` and `*` could add directives to it. Another
 * address must have the scheme of an app.
 */
export function isAllowedRedirect(redirectURI: string, config: Config): boolean {
  const url = new URL(redirectURI);
  if (isPrivateUse(redirectURI)) return !BROWSER_SCHEMES.test(url.protocol);
  return hasPlainHost(url) && previewLabel(url, config) === undefined;
}

/** Why a registration's redirect URIs are refused. The provider refuses a registration that is no object, and invalid URIs. */
export function redirectProblem(registration: unknown, config: Config): string | undefined {
  if (!isRecord(registration) || !Array.isArray(registration.redirect_uris)) return undefined;
  const uris = registration.redirect_uris.filter((uri) => typeof uri === "string" && URL.canParse(uri));
  if (!uris.every((uri) => isAllowedRedirect(uri, config))) return ENDPOINT_TEXTS.forbiddenRedirect;
  const isPublic = registration.token_endpoint_auth_method === "none";
  return !isPublic && uris.length > 0 && uris.every(isPrivateUse)
    ? ENDPOINT_TEXTS.privateUseWithSecret
    : undefined;
}
