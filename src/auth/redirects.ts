import type { Config } from "../shared/config.ts";
import { isRecord } from "../shared/is-record.ts";
import { previewLabel } from "../shared/preview-address.ts";

/**
 * Whether an HTTP address has a DNS name or an IP address as its host, and not the host of a preview. At a preview, code in a
 * sandbox would receive the authorization code. The URL standard allows more characters in a host (`a;sandbox`, `*`, `a,b`). The
 * consent page's CSP names the host, so such characters could add directives to it.
 */
export function hasAllowedHost(redirectURI: string, config: Config): boolean {
  const url = new URL(redirectURI);
  // Clients may register other schemes, but the provider sends no code to such addresses.
  if (!/^https?:$/.test(url.protocol)) return true;
  return /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/.test(url.hostname) && previewLabel(url, config) === undefined;
}

/** Whether a registration has a redirect URI with a forbidden host. The provider refuses a registration that is no object. */
export function hasForbiddenHost(registration: unknown, config: Config): boolean {
  const uris = isRecord(registration) ? registration.redirect_uris : undefined;
  return (
    Array.isArray(uris) &&
    uris.some((uri) => typeof uri === "string" && URL.canParse(uri) && !hasAllowedHost(uri, config))
  );
}
