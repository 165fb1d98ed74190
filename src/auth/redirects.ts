/** The hosts that a redirect URI may name. */

/**
 * Whether the host is a name or an address. URLs of the web allow more in it (`a;sandbox`, `*`, `a,b`), which no name of
 * DNS has, and which would be a directive of its own in the policy of the page that lets its form lead there.
 */
export function hasPlainHost(redirectURI: string): boolean {
  const { protocol, hostname } = new URL(redirectURI);
  // Other schemes can be registered, and are sent nothing.
  return !/^https?:$/.test(protocol) || /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/.test(hostname);
}

/** Whether a registration, as it was sent, names a redirect URI whose host is none. What cannot be read is not judged here. */
export function namesOddHost(registration: string): boolean {
  let uris: unknown;
  try {
    ({ redirect_uris: uris } = JSON.parse(registration) ?? {});
  } catch {
    return false;
  }
  return (
    Array.isArray(uris) &&
    uris.some((uri) => typeof uri === "string" && URL.canParse(uri) && !hasPlainHost(uri))
  );
}
