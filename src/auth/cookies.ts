/** `__Host-` cookies cannot be set by another host. Browsers accept them only over HTTPS, so on loopback the prefix is missing. */

export const COOKIE_PREFIX = "__Host-sandbox-mcp-";

const PREFIX_WITHOUT_HOST = COOKIE_PREFIX.slice("__Host-".length);

/** Cookies of this server and of Cloudflare. */
export function isOwnCookie(name: string): boolean {
  return name.startsWith("CF_") || name.startsWith(COOKIE_PREFIX) || name.startsWith(PREFIX_WITHOUT_HOST);
}

export function addCookiePrefix(request: Request, secure: boolean): Request {
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

/** Over plain HTTP, browsers would drop cookies with the prefix and `Secure`. */
export function removeCookiePrefix(headers: Headers, secure: boolean): Headers {
  if (secure) return headers;
  const cookies = headers.getSetCookie();
  headers.delete("set-cookie");
  for (const cookie of cookies)
    headers.append("set-cookie", cookie.replace(/^__Host-/, "").replace(/; Secure(?=;|$)/i, ""));
  return headers;
}
