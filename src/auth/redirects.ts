import type { Config } from "../shared/config.ts";
import { isRecord } from "../shared/is-record.ts";
import { hasLongHost } from "../shared/long-host.ts";
import { hasPlainHost } from "../shared/origin.ts";
import { previewLabel } from "../shared/preview-address.ts";

/** At most 1,000 characters of ASCII: other characters do not belong in a URI (RFC 3986). Clients use about 100. */
const SHORT_ASCII = /^[\x20-\x7e]{0,1000}$/;

/**
 * Whether parsing the redirect URI of a request takes little time. The provider parses it once for each redirect URI of the client: at most
 * 50 if the client registered, but over 1,000 in a metadata document of 5 KB.
 */
export function isShortRedirect(redirectURI: string): boolean {
  return SHORT_ASCII.test(redirectURI) && !hasLongHost(redirectURI);
}

/**
 * Whether an HTTP address has a plain host, and not the host of a preview. At a preview, code in a sandbox would receive the
 * authorization code. The consent page's CSP names the host, so characters such as `;` and `*` could add directives to it.
 */
export function hasAllowedHost(redirectURI: string, config: Config): boolean {
  const url = new URL(redirectURI);
  // Clients may register other schemes, but the provider sends no code to such addresses.
  if (!/^https?:$/.test(url.protocol)) return true;
  return hasPlainHost(url) && previewLabel(url, config) === undefined;
}

/** Whether a registration has a redirect URI with a forbidden host. The provider refuses a registration that is no object. */
export function hasForbiddenHost(registration: unknown, config: Config): boolean {
  const uris = isRecord(registration) ? registration.redirect_uris : undefined;
  return (
    Array.isArray(uris) &&
    uris.some((uri) => typeof uri === "string" && URL.canParse(uri) && !hasAllowedHost(uri, config))
  );
}
