/**
 * The cookies that bind a sign-in to its browser. Over HTTPS their names have the `__Host-` prefix, so that no other host
 * can set one. Browsers accept that prefix over HTTPS only, so over plain HTTP, which is served on loopback alone, the
 * same cookies are sent without it.
 */

/** What the names of our cookies begin with. */
export const COOKIE_PREFIX = "__Host-sandbox-mcp-";

const PREFIX_WITHOUT_HOST = COOKIE_PREFIX.slice("__Host-".length);

/** Whether a cookie of this name is the server's own, or that of Cloudflare Access before it. */
export function isOwnCookie(name: string): boolean {
  return name.startsWith("CF_") || name.startsWith(COOKIE_PREFIX) || name.startsWith(PREFIX_WITHOUT_HOST);
}

/** The request with the cookie names that the OAuth provider expects. */
export function withPrefixedCookies(request: Request, secure: boolean): Request {
  const cookies = request.headers.get("cookie");
  if (secure || cookies === null) return request;
  const prefixed = cookies
    .split(";")
    .map((cookie) => cookie.trim())
    .map((cookie) => (cookie.startsWith(PREFIX_WITHOUT_HOST) ? `__Host-${cookie}` : cookie));
  const headers = new Headers(request.headers);
  headers.set("cookie", prefixed.join("; "));
  return new Request(request, { headers });
}

/** The headers with cookies that the browser accepts. */
export function withKeptCookies(headers: Headers, secure: boolean): Headers {
  if (secure) return headers;
  const cookies = headers.getSetCookie();
  headers.delete("set-cookie");
  for (const cookie of cookies) {
    headers.append("set-cookie", cookie.replace(/^__Host-/, "").replace(/; Secure(?=;|$)/i, ""));
  }
  return headers;
}
