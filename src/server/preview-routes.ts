/**
 * Previews: requests to a host name that belongs to a program in a sandbox. The host name is the only credential. This server's
 * own tokens and cookies are not passed on to the sandbox, and linked pages do not learn the host name. Programs in the sandbox
 * see the host `localhost`, so that their own host checks accept the requests.
 */
import { isOwnAuthorization } from "../auth/bearer.ts";
import { isOwnCookie } from "../auth/cookies.ts";
import { markup } from "../auth/html.ts";
import { page } from "../auth/page.ts";
import { sandboxActor } from "../actors/sandbox-client.ts";
import type { Config } from "../shared/config.ts";
import { ProcessLimiter, isRateLimited } from "../shared/limits.ts";
import { linkKeys } from "../actors/link-keys.ts";
import { PREVIEW_STATE, PREVIEW_TOKEN, type PreviewState, readLabel } from "../shared/preview-address.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { isBrowser } from "./landing.ts";
import { PREVIEW_TEXTS } from "./texts.ts";

/** Requests per minute to one sandbox. A page of a development server can request a thousand modules at once. */
const limiter = new ProcessLimiter(6000);

const NOTICES: Record<
  PreviewState | "unknown" | "badStatus" | "limited",
  { status: number; refresh?: number }
> = {
  unknown: { status: 404 },
  ended: { status: 410 },
  stopped: { status: 503, refresh: 10 },
  waiting: { status: 503, refresh: 1 },
  silent: { status: 502, refresh: 1 },
  tls: { status: 502, refresh: 1 },
  foreign: { status: 502, refresh: 1 },
  badStatus: { status: 502 },
  limited: { status: 429, refresh: 60 },
};

export async function servePreview(
  request: Request,
  address: { label: string; origin: string },
  { env, config }: RequestContext,
): Promise<Response> {
  const preview = await readLabel(address.label, await linkKeys({ config, env }));
  if (!preview) return notice(request, "unknown");
  if (await isRateLimited(limiter, preview.actor)) return notice(request, "limited");
  const { pathname, search } = new URL(request.url);
  const inside = `http://localhost:${preview.port}`;
  const headers = await headersInside(request, { outside: address.origin, inside }, config);
  headers.set(PREVIEW_TOKEN, preview.token);
  const incoming = await sandboxActor(env, preview.actor).fetch(
    new Request(new Request(inside + pathname + search, request), { headers, redirect: "manual" }),
  );
  const state = incoming.headers.get(PREVIEW_STATE);
  if (state !== null && state in NOTICES) return notice(request, state as PreviewState);
  const { status, statusText, webSocket } = incoming;
  if (status > 599) return notice(request, "badStatus");
  const responseHeaders = headersOutside(incoming.headers, { outside: address.origin, port: preview.port });
  return new Response(incoming.body, { status, statusText, headers: responseHeaders, webSocket });
}

async function headersInside(
  { headers: given }: Request,
  { outside, inside }: { outside: string; inside: string },
  config: Config,
): Promise<Headers> {
  const headers = new Headers(given);
  for (const name of given.keys()) if (name.startsWith("cf-access-")) headers.delete(name);
  headers.delete("host");
  const authorization = headers.get("authorization");
  if (authorization !== null && (await isOwnAuthorization(authorization, config)))
    headers.delete("authorization");
  // Several Cookie headers arrive joined by commas. Cookies cannot contain commas.
  const cookies = (headers.get("cookie") ?? "").split(/[;,]/).map((cookie) => cookie.trim());
  const passedCookies = cookies.filter((cookie) => cookie !== "" && !isOwnCookie(cookie));
  if (passedCookies.length > 0) headers.set("cookie", passedCookies.join("; "));
  else headers.delete("cookie");
  if (headers.get("origin") === outside) headers.set("origin", inside);
  const referrer = headers.get("referer");
  if (referrer?.startsWith(`${outside}/`)) headers.set("referer", inside + referrer.slice(outside.length));
  const { host, protocol } = new URL(outside);
  headers.set("x-forwarded-host", host);
  headers.set("x-forwarded-proto", protocol.slice(0, -1));
  return headers;
}

/** Response headers that could affect other hosts of the same domain, or how the browser reaches them. */
const WITHHELD = ["alt-svc", "clear-site-data", "strict-transport-security", PREVIEW_STATE];

function headersOutside(given: Headers, { outside, port }: { outside: string; port: number }): Headers {
  const headers = new Headers(given);
  for (const name of WITHHELD) headers.delete(name);
  const cookies = headers.getSetCookie();
  headers.delete("set-cookie");
  // Cookies apply to this host only, even if the program names another domain.
  for (const cookie of cookies) headers.append("set-cookie", cookie.replace(/;\s*domain\s*=[^;]*/gi, ""));
  const location = headers.get("location");
  const ownOrigin =
    location && /^https?:\/\/(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d+)(?=[/?#]|$)/i.exec(location);
  if (ownOrigin && Number(ownOrigin[1]) === port)
    headers.set("location", outside + location.slice(ownOrigin[0].length));
  headers.set("x-robots-tag", "noindex, nofollow");
  // The host name is the credential, so pages on other sites must not see it as a referrer.
  if (headers.get("referrer-policy") !== "no-referrer") headers.set("referrer-policy", "same-origin");
  return headers;
}

async function notice(request: Request, kind: keyof typeof NOTICES): Promise<Response> {
  const { status, refresh } = NOTICES[kind];
  const { title, message } = PREVIEW_TEXTS[kind];
  const headers = new Headers({ "cache-control": "no-store", "x-robots-tag": "noindex, nofollow" });
  if (refresh !== undefined) headers.set("retry-after", String(refresh));
  if (!isBrowser(request)) return new Response(`${title}. ${message}\n`, { status, headers });
  if (refresh !== undefined) headers.set("refresh", String(refresh));
  return page(title, markup`<h1>${title}</h1>\n<p>${message}</p>`, { status, headers });
}
