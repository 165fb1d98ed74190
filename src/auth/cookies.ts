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

/**
 * The cookies of a request. Leaves out those that begin with another character than visible ASCII: `trim`, and so the OAuth
 * provider, removes characters such as U+2000. The browser does not, so another host of the domain may set a cookie whose name is
 * such a character and then a name with the prefix.
 */
export function cookiesOf({ headers }: Request): string[] {
  const cookies = (headers.get("cookie") ?? "").split(";").map((cookie) => cookie.replace(/^[ \t]+/, ""));
  return cookies.filter((cookie) => /^[!-~]/.test(cookie));
}

/** The request with its cookies as the OAuth provider expects them: only those of `cookiesOf`, with the prefix. */
export function adaptCookies(request: Request, isSecure: boolean): Request {
  if (!request.headers.has("cookie")) return request;
  const prefixed = cookiesOf(request).map((cookie) =>
    !isSecure && cookie.startsWith(PREFIX_WITHOUT_HOST) ? `__Host-${cookie}` : cookie,
  );
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
