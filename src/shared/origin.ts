/**
 * Which host a request may name, and which web pages may send requests.
 *
 * Both checks protect against web pages. A web page must not reach a server on the machine of the page's user. The check of
 * Origin prevents direct requests. The check of Host prevents DNS rebinding, which points the page's own host name at 127.0.0.1.
 * Programs can send any header and need a token.
 */
import type { Config } from "./config.ts";
import { previewLabel } from "./preview-address.ts";

/** The request headers of MCP clients of every revision, and of scripts. */
const REQUEST_HEADERS =
  "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id, traceparent, tracestate, if-none-match";

/** The response headers that a page may read, in addition to the headers that CORS always allows. */
const RESPONSE_HEADERS =
  "www-authenticate, mcp-session-id, mcp-protocol-version, retry-after, x-request-id, content-disposition, etag";

/** How long browsers cache a preflight, in seconds: the most that Chromium accepts. */
const PREFLIGHT_MAX_AGE = "7200";

/**
 * Whether the server accepts the host the request names:
 * - a loopback name always: no web page can own one, and Cloudflare's edge routes none to a Worker;
 * - `PUBLIC_ORIGIN`'s host and port;
 * - without `PUBLIC_ORIGIN`, any host over HTTPS: the owner of the certificate has chosen to serve this server under that name.
 *   Over plain HTTP, an unknown name is refused, because it may be DNS rebinding.
 */
export function isHostAllowed(request: Request, config: Config): boolean {
  const named = namedOrigin(request);
  if (!named) return false;
  if (isLoopback(named)) return true;
  if (config.publicOrigin) return named.host === new URL(config.publicOrigin).host;
  return named.protocol === "https:";
}

/** The request's origin by its Host header; undefined if invalid. */
export function namedOrigin(request: Request): URL | undefined {
  // Two Host headers arrive as one invalid host.
  const url = URL.parse(request.url);
  return url ? parse(`${url.protocol}//${request.headers.get("host") ?? url.host}`) : undefined;
}

/**
 * Whether requests from the request's `Origin` are accepted:
 * - no `Origin`: the sender is not a web page, or is one of our own pages, or a page of another site loads the URL as a link, an
 *   image or a frame. Without an `Origin`, that page cannot read the response;
 * - `PUBLIC_ORIGIN` and the origins of `ALLOWED_ORIGINS`;
 * - a loopback origin, on any port, while the request itself is served on loopback.
 *
 * Everything else is refused: `null` (a sandboxed frame, a file), unreadable values, and previews, because their pages come
 * from sandboxes.
 */
export function isOriginAllowed(request: Request, config: Config): boolean {
  const header = request.headers.get("origin");
  if (header === null) return true;
  const origin = parse(header);
  if (!origin) return config.allowedOrigins.has(header.toLowerCase());
  if (previewLabel(origin, config) !== undefined) return false;
  if (origin.origin === config.publicOrigin || config.allowedOrigins.has(origin.origin)) return true;
  const url = isLoopback(origin) ? URL.parse(request.url) : null;
  return url !== null && isLoopback(url);
}

export function preflight(methods: string, isPublic: boolean): Response {
  return new Response(null, {
    status: 204,
    headers: {
      allow: methods,
      "access-control-allow-methods": methods,
      "access-control-allow-headers": REQUEST_HEADERS,
      "access-control-max-age": PREFLIGHT_MAX_AGE,
      ...(isPublic && { "access-control-allow-origin": "*" }),
    },
  });
}

export function allowReading(request: Request, config: Config, headers: Headers): void {
  if (headers.get("access-control-allow-origin") === "*") return;
  headers.append("vary", "Origin");
  const origin = request.headers.get("origin");
  if (origin === null || !isOriginAllowed(request, config)) return;
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-expose-headers", RESPONSE_HEADERS);
}

/** A normalized http(s) origin: lower case, punycode, no default port, no final dot. */
function parse(text: string): URL | undefined {
  const url = /^https?:\/\/[^/?#@\\\s,]+$/i.test(text) ? URL.parse(text) : undefined;
  if (!url || !hasPlainHost(url)) return undefined;
  if (url.hostname.endsWith(".")) url.hostname = url.hostname.slice(0, -1);
  return url;
}

/**
 * Whether the host is a DNS name or an IP address. The URL standard allows more characters, such as `;` and `$`. The landing page shows
 * the host in shell commands, and the consent page's CSP names the host of a redirect URI.
 */
export function hasPlainHost({ hostname }: URL): boolean {
  return /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/.test(hostname);
}

/** Names below `localhost` belong to the machine (RFC 6761), and so does 127.0.0.0/8 (RFC 1122). */
export function isLoopback({ hostname }: URL): boolean {
  const name = hostname.replace(/\.$/, "");
  return (
    name === "localhost" || name.endsWith(".localhost") || name === "[::1]" || /^127(\.\d+){3}$/.test(name)
  );
}
