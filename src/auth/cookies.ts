/**
 * The cookies that bind a sign-in to its browser. Over HTTPS their names have the `__Host-` prefix, so that no other host can
 * set them. Browsers accept the prefix only over HTTPS, so on loopback, the only place with plain HTTP, the same cookies have
 * no prefix.
 */

export const COOKIE_PREFIX = "__Host-sandbox-mcp-";

const PREFIX_WITHOUT_HOST = COOKIE_PREFIX.slice("__Host-".length);

/** Whether a cookie belongs to this server or to Cloudflare. */
export function isOwnCookie(name: string): boolean {
  return name.startsWith("CF_") || name.startsWith(COOKIE_PREFIX) || name.startsWith(PREFIX_WITHOUT_HOST);
}

export function addCookiePrefix(request: Request, isSecure: boolean): Request {
  const cookies = request.headers.get("cookie");
  if (isSecure || cookies === null) return request;
  const prefixed = cookies
    .split(";")
    .map((cookie) => cookie.trim())
    .map((cookie) => (cookie.startsWith(PREFIX_WITHOUT_HOST) ? `__Host-${cookie}` : cookie));
  const headers = new Headers(request.headers);
  headers.set("cookie", prefixed.join("; "));
  return new Request(request, { headers });
}

/** Over plain HTTP, removes the prefix and `Secure`, because browsers would drop cookies that have them. */
export function removeCookiePrefix(headers: Headers, isSecure: boolean): Headers {
  if (isSecure) return headers;
  const cookies = headers.getSetCookie();
  headers.delete("set-cookie");
  for (const cookie of cookies)
    headers.append("set-cookie", cookie.replace(/^__Host-/, "").replace(/; Secure(?=;|$)/i, ""));
  return headers;
}
