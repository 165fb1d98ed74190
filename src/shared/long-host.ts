/**
 * The longest authority (user, host and port) of a URL that is parsed, in characters. DNS names have at most 253, and a sandbox's name
 * in `sandbox://` at most 384. A host's time to parse grows with the square of its length: 5,000 different characters take 35 ms, of a
 * thread that all principals share.
 */
const MAX_AUTHORITY = 400;

/** Whether a URL's host is too long to be parsed. The URL may be relative or invalid. */
export function hasLongHost(url: string): boolean {
  // The URL parser accepts any number of slashes and backslashes before the authority, and ignores tabs and line ends.
  const [, authority = ""] = /^[^:/\\?#]*:[/\\\t\n\r]*([^/\\?#]*)/.exec(url) ?? [];
  return authority.length > MAX_AUTHORITY;
}

/** Parses an absolute URL. Returns undefined if it is invalid or its host is too long. */
export function parseURL(url: string): URL | undefined {
  return hasLongHost(url) ? undefined : (URL.parse(url) ?? undefined);
}
