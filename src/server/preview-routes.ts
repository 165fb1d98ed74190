/**
 * Previews: requests to a host name that belongs to a program in a sandbox. The host name is the only credential. This server's
 * own tokens and cookies are not passed on to the sandbox, and linked pages do not learn the host name. Programs in the sandbox
 * see the host `localhost`, so that their own host checks accept the requests.
 */
import { isOwnAuthorization } from "../auth/bearer.ts";
import { isOwnCookie } from "../auth/cookies.ts";
import { markup } from "../auth/html.ts";
import { page } from "../auth/page.ts";
import { succeeds } from "../../container/sandboxd/file-error.ts";
import { PREVIEW_RESPONSE_MS } from "../../container/sandboxd/protocol.ts";
import { waitForStart } from "../actors/actor-starts.ts";
import { sandboxActor } from "../actors/sandbox-client.ts";
import type { Config } from "../shared/config.ts";
import { ProcessLimiter, isRateLimited } from "../shared/limiter.ts";
import { linkKeys } from "../actors/link-keys.ts";
import { countFor, mayWait, paceOpenRequest } from "../shared/open-requests.ts";
import { type ActorName, principalOf } from "../shared/names.ts";
import { PREVIEW_STATE, PREVIEW_TOKEN, type PreviewState, readLabel } from "../shared/preview-address.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { RequestTurns } from "../shared/request-turns.ts";
import { CALL_MS } from "../shared/timers.ts";
import { type TakesTurns, Turns, TurnsByID, takeAll } from "../shared/turns.ts";
import { isBrowser } from "./landing.ts";
import { PREVIEW_TEXTS } from "./texts.ts";

/** Requests per minute to one sandbox. A page of a development server can request a thousand modules at once. */
const limiter = new ProcessLimiter(6000);

/** The requests to a sandbox, and to all sandboxes of a principal, that wait for a turn of all previews. */
const waitingOfSandbox = new TurnsByID(() => new Turns(8));
const waitingOfPrincipal = new TurnsByID(() => new Turns(8));

/**
 * The most requests that wait for these, or for a response: of a sandbox, as many as four browsers usually send at once over HTTP/2,
 * and of all sandboxes of a principal. The runtime does not notice that a visitor has disconnected before its response begins.
 * Measured without these limits: 8,000 such requests in four seconds occupied 17,000 file descriptors and 600 MB for a minute, and
 * workerd ended at 20,000. With only that of a sandbox, and programs that never respond, ten sandboxes occupied 11,800 and 580 MB.
 */
const OPEN_AT_ONCE = 512;
const OPEN_TOGETHER = 768;
/** A request waits for the sandbox's start, for its turn, and for its response. */
const LONGEST_MS = PREVIEW_RESPONSE_MS + 4 * CALL_MS;
const openOfSandbox = new TurnsByID(() => new Turns(OPEN_AT_ONCE), LONGEST_MS);
const openOfPrincipal = new TurnsByID(() => new Turns(OPEN_TOGETHER), LONGEST_MS);

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
  const end = await takeTurn(preview.actor, request.signal);
  if (!end) return notice(request, "limited");
  // Asynchronous, so that an error of the request's constructor ends the turn too.
  const pass = async () =>
    await sandboxActor(env, preview.actor).fetch(
      new Request(new Request(inside + pathname + search, request), { headers, redirect: "manual" }),
    );
  const incoming = await pass().finally(end);
  const state = incoming.headers.get(PREVIEW_STATE);
  if (state !== null && state in NOTICES) return notice(request, state as PreviewState);
  const { status, statusText, webSocket } = incoming;
  if (status > 599) return notice(request, "badStatus");
  const responseHeaders = headersOutside(incoming.headers, { outside: address.origin, port: preview.port });
  return new Response(incoming.body, { status, statusText, headers: responseHeaders, webSocket });
}

/**
 * Waits until the server may pass on a request. A turn is one of all previews, so that calls are served before most of their
 * requests; but only a few requests of a sandbox, and of a principal, wait for it, so that other previews need not wait for all of
 * them.
 * @returns the function to call when the response begins; undefined if too many wait, that takes too long, or the client disconnects
 */
async function takeTurn(actor: ActorName, client: AbortSignal): Promise<(() => void) | undefined> {
  const principal = principalOf(actor);
  const sender = `previews of ${principal}`;
  countFor(client, sender);
  if (!mayWait(sender)) return undefined;
  const open: TakesTurns["take"][] = [
    (ms) => openOfSandbox.take(actor, ms, client),
    (ms) => openOfPrincipal.take(principal, ms, client),
  ];
  const close = await takeAll(open, 0);
  if (!close) return undefined;
  const isStarted = await succeeds(waitForStart(actor, "link"));
  const leaveSandbox = isStarted ? await waitingOfSandbox.take(actor, CALL_MS, client) : undefined;
  const leavePrincipal = leaveSandbox && (await waitingOfPrincipal.take(principal, CALL_MS, client));
  const turns = new RequestTurns("previews", client);
  const hasBegun = leavePrincipal && (await turns.begin());
  leavePrincipal?.();
  leaveSandbox?.();
  if (!hasBegun) return void close();
  return () => {
    turns.end();
    close();
  };
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
  await paceOpenRequest(request.signal);
  const { status, refresh } = NOTICES[kind];
  const { title, message } = PREVIEW_TEXTS[kind];
  const headers = new Headers({ "cache-control": "no-store", "x-robots-tag": "noindex, nofollow" });
  if (refresh !== undefined) headers.set("retry-after", String(refresh));
  if (!isBrowser(request)) return new Response(`${title}. ${message}\n`, { status, headers });
  if (refresh !== undefined) headers.set("refresh", String(refresh));
  return page(title, markup`<h1>${title}</h1>\n<p>${message}</p>`, { status, headers });
}
