/**
 * The cookies that bind a sign-in to its browser. Over HTTPS they carry the `__Host-` prefix, so that no other host can
 * plant one. Browsers keep such a cookie for HTTPS alone, so on loopback over plain HTTP the same cookie goes by its
 * name without the prefix: what stands between is the machine itself.
 */

/** What the names of our cookies begin with. */
export const COOKIE_PREFIX = "__Host-sandbox-mcp-";

const BARE_PREFIX = COOKIE_PREFIX.slice("__Host-".length);

/** Whether a cookie of this name is the server's own, or that of Cloudflare Access before it. */
export function isOwnCookie(name: string): boolean {
  return name.startsWith("CF_") || name.startsWith(COOKIE_PREFIX) || name.startsWith(BARE_PREFIX);
}

/** The request with its cookies under the names the OAuth provider knows. */
export function withPrefixedCookies(request: Request, secure: boolean): Request {
  const cookies = request.headers.get("cookie");
  if (secure || cookies === null) return request;
  const prefixed = cookies
    .split(";")
    .map((cookie) => cookie.trim())
    .map((cookie) => (cookie.startsWith(BARE_PREFIX) ? `__Host-${cookie}` : cookie));
  const headers = new Headers(request.headers);
  headers.set("cookie", prefixed.join("; "));
  return new Request(request, { headers });
}

/** The headers with their cookies in a form the browser keeps. */
export function withKeptCookies(headers: Headers, secure: boolean): Headers {
  if (secure) return headers;
  const cookies = headers.getSetCookie();
  headers.delete("set-cookie");
  for (const cookie of cookies) {
    headers.append("set-cookie", cookie.replace(/^__Host-/, "").replace(/; Secure(?=;|$)/i, ""));
  }
  return headers;
}
