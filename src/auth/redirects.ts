/** The hosts that a redirect URI may name. */
import type { Config } from "../shared/config.ts";
import { previewLabel } from "../shared/preview-address.ts";

/**
 * Whether the host is a name or an address, and no preview's: what runs in a sandbox is to get no token. URLs of the web
 * allow more in a host (`a;sandbox`, `*`, `a,b`), which no name of DNS has, and which would be a directive of its own in
 * the policy of the page that lets its form lead there.
 */
export function hasGoodHost(redirectURI: string, config: Config): boolean {
  const url = new URL(redirectURI);
  // Other schemes can be registered, and are sent nothing.
  if (!/^https?:$/.test(url.protocol)) return true;
  return /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/.test(url.hostname) && previewLabel(url, config) === undefined;
}

/** Whether a registration, as it was sent, names a redirect URI with another host. What cannot be read is not judged here. */
export function namesOddHost(registration: string, config: Config): boolean {
  let uris: unknown;
  try {
    ({ redirect_uris: uris } = JSON.parse(registration) ?? {});
  } catch {
    return false;
  }
  return (
    Array.isArray(uris) &&
    uris.some((uri) => typeof uri === "string" && URL.canParse(uri) && !hasGoodHost(uri, config))
  );
}
