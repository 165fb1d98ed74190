/**
 * A panel session in a browser: a panel access token in a cookie. Scripts cannot read the cookie, and browsers send it only with
 * requests from pages of this site. A request that changes something must come from a page of this server (`isFromPanel`). The
 * session ends with its grant, or when the person's sign-in rule is removed.
 */
import { parseJSON } from "../shared/bounded.ts";
import * as z from "zod";
import type { Caller, RequestContext } from "../shared/request-context.ts";
import { base64url, DECISION_PATH, GIT_PATH } from "../shared/link-token.ts";
import { json, type Refusal } from "../shared/responses.ts";
import { callerFields, log } from "../shared/log.ts";
import { sha256 } from "../shared/sha256.ts";
import { lookUpToken, unauthorized } from "./bearer.ts";
import { messagePage } from "./consent-page.ts";
import { COOKIE_PREFIX, cookiesOf, removeCookiePrefix } from "./cookies.ts";
import { type OAuth, oauthAPI, oauthFor, providerEnv } from "./oauth.ts";
import { PANEL_CLIENT_ID, PANEL_SESSION_SECONDS, panelCallback } from "./panel-client.ts";
import { AUTHORIZE_PATH, PANEL_PATH, PANEL_SIGN_IN_PATH, TOKEN_PATH } from "./paths.ts";
import { bytesOf, unlessStoreFails } from "./oauth-store.ts";
import * as texts from "./texts.ts";

const SESSION_COOKIE = "panel";

/** The cookie that binds a sign-in to its browser. It has the state, the code verifier and the page to return to. */
const SIGN_IN_COOKIE = "panel-sign-in";

/** Pages besides the panel that a sign-in may return to: for a network decision (with its token), and for git hosts. */
const RETURN_PATHS = new RegExp(`^(?:${DECISION_PATH}/[\\w.-]{1,200}|${GIT_PATH}(?:/[\\w.-]{1,253})?)$`);

/** The time limit of a sign-in, the same as on the consent page. */
const SIGN_IN_SECONDS = 600;

/** The longest code that is looked up. The server's codes are a third as long. */
const MAX_CODE_BYTES = 360;

export async function startPanelSignIn(request: Request, oauth: OAuth): Promise<Response> {
  const [to = ""] = RETURN_PATHS.exec(new URL(request.url).searchParams.get("to") ?? "") ?? [];
  const state = random();
  const verifier = random();
  const url = new URL(AUTHORIZE_PATH, oauth.issuer);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: PANEL_CLIENT_ID,
    redirect_uri: panelCallback(oauth),
    // A separate resource, so that the cookie's value is not a token for `/mcp`.
    resource: `${oauth.issuer}${PANEL_PATH}`,
    state,
    code_challenge: base64url(await sha256(verifier)),
    code_challenge_method: "S256",
  }).toString();
  // Lax, because the cookie must be sent when GitHub redirects the browser back.
  return seeOther(url.href, oauth, [
    cookie(oauth, SIGN_IN_COOKIE, `${state}.${verifier}.${to}`, SIGN_IN_SECONDS, "Lax"),
  ]);
}

export async function finishPanelSignIn(request: Request, oauth: OAuth, context: RequestContext) {
  const { searchParams } = new URL(request.url);
  const [state, verifier, ...rest] = cookieOf(request, SIGN_IN_COOKIE, oauth)?.split(".") ?? [];
  const [to = PANEL_PATH] = RETURN_PATHS.exec(rest.join(".")) ?? [];
  const code = searchParams.get("code") ?? "";
  if (!state || !verifier || searchParams.get("state") !== state)
    return notSignedIn(oauth, texts.SIGN_IN_EXPIRED);
  if (code === "" || bytesOf(code) > MAX_CODE_BYTES) return notSignedIn(oauth, texts.NOT_APPROVED);
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    client_id: PANEL_CLIENT_ID,
    redirect_uri: panelCallback(oauth),
    code,
    code_verifier: verifier,
  });
  const exchange = new Request(`${oauth.issuer}${TOKEN_PATH}`, { method: "POST", body });
  const response = await unlessStoreFails(context, "panel", () =>
    oauth.server.fetch(exchange, providerEnv(context), context.ctx),
  );
  if (!response) return notSignedIn(oauth, texts.STORAGE_SILENT, 503);
  const issued = tokens.safeParse(parseJSON(await response.text().catch(() => ""))).data;
  if (!response.ok || !issued) return notSignedIn(oauth, texts.SIGN_IN_EXPIRED);
  return seeOther(oauth.issuer + to, oauth, [
    cookie(oauth, SESSION_COOKIE, issued.access_token, PANEL_SESSION_SECONDS, "Strict"),
    cookie(oauth, SIGN_IN_COOKIE, "", 0, "Lax"),
  ]);
}

/** The caller of a request from one of this server's pages. Requests from other pages are refused by their `Origin` header. */
export async function panelCaller(request: Request, context: RequestContext): Promise<Caller | Refusal> {
  const oauth = oauthFor(request, context);
  if ("off" in oauth) return unauthorized("no_token", texts.CALLER_TEXTS.panelOff(oauth.off));
  if (isFromPanel(request, oauth)) return panelSession(request, oauth, context);
  const response = json({ error: "Forbidden", message: texts.CALLER_TEXTS.notFromPanel }, 403);
  return { reason: "bad_origin", response };
}

/**
 * The caller of the browser's session, for requests that only show data. Does not check which page sent the request, so a request
 * that changes something needs `panelCaller`.
 */
export async function panelSession(
  request: Request,
  oauth: OAuth,
  context: RequestContext,
): Promise<Caller | Refusal> {
  const token = cookieOf(request, SESSION_COOKIE, oauth);
  if (token === undefined) return unauthorized("no_token", texts.CALLER_TEXTS.panelSignIn);
  const holder = await lookUpToken(token, oauth, [PANEL_PATH], request, context);
  if (holder && "response" in holder) return holder;
  if (holder?.client === PANEL_CLIENT_ID)
    return { principal: holder, metadata: undefined, takesNotice: false };
  return unauthorized("invalid_token", texts.CALLER_TEXTS.panelSessionEnded);
}

export function signOutOfPanel(request: Request, oauth: OAuth, context: RequestContext): Promise<Response> {
  const response = signOut(request, oauth, context);
  // If the browser disconnects, for example because its tab is closed, the platform would end the request before the session ends.
  context.ctx.waitUntil(response.catch(() => undefined));
  return response;
}

async function signOut(request: Request, oauth: OAuth, context: RequestContext): Promise<Response> {
  const caller = await panelCaller(request, context);
  if ("response" in caller && caller.response.status !== 401) return caller.response;
  const headers = new Headers();
  headers.append("set-cookie", cookie(oauth, SESSION_COOKIE, "", 0, "Strict"));
  if ("principal" in caller) {
    const [user = "", grant = ""] = cookieOf(request, SESSION_COOKIE, oauth)?.split(":") ?? [];
    const revoked = await unlessStoreFails(context, "panel", async () => {
      await oauthAPI(oauth, context).revokeGrant(grant, user);
      return true;
    });
    if (!revoked)
      return json({ error: "Service Unavailable", message: texts.STORAGE_SILENT }, 503, {
        "retry-after": "5",
      });
    const { principal } = caller;
    const fields = callerFields({ ...context, principal });
    log(context.config, { event: "token", action: "revoke", ...fields, scope: principal.scopes.join(" ") });
  }
  return new Response(null, { status: 204, headers: removeCookiePrefix(headers, isSecure(oauth)) });
}

const tokens = z.object({ access_token: z.string() });

/** Browsers send `Origin` with every POST request, and pages cannot choose it. */
export function isFromPanel(request: Request, { issuer }: OAuth): boolean {
  return request.headers.get("origin") === issuer;
}

/** The value of a cookie; undefined if there are two of its name, because one could be forged. */
function cookieOf(request: Request, name: string, oauth: OAuth): string | undefined {
  const fullName = cookieName(name, oauth);
  const start = `${isSecure(oauth) ? fullName : fullName.replace(/^__Host-/, "")}=`;
  const values = cookiesOf(request)
    .filter((pair) => pair.startsWith(start))
    .map((pair) => pair.slice(start.length).trim());
  return values.length === 1 ? values[0] || undefined : undefined;
}

/** Over plain HTTP the name has the port, because browsers send a host's cookies to servers on all its ports. */
function cookieName(name: string, oauth: OAuth): string {
  return `${COOKIE_PREFIX}${name}${isSecure(oauth) ? "" : `-${new URL(oauth.issuer).port || 80}`}`;
}

/** @param value a text in which all characters are allowed in cookies, for example a token */
function cookie(oauth: OAuth, name: string, value: string, seconds: number, sameSite: "Lax" | "Strict") {
  return `${cookieName(name, oauth)}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=${sameSite}; Secure`;
}

function isSecure({ issuer }: OAuth): boolean {
  return issuer.startsWith("https:");
}

function seeOther(location: string, oauth: OAuth, cookies: readonly string[]): Response {
  const headers = new Headers({ location, "cache-control": "no-store", "referrer-policy": "no-referrer" });
  for (const setCookie of cookies) headers.append("set-cookie", setCookie);
  return new Response(null, { status: 303, headers: removeCookiePrefix(headers, isSecure(oauth)) });
}

function notSignedIn(oauth: OAuth, message: string, status = 400): Promise<Response> {
  const headers = new Headers();
  headers.append("set-cookie", cookie(oauth, SIGN_IN_COOKIE, "", 0, "Lax"));
  const link = { href: PANEL_SIGN_IN_PATH, label: texts.SIGN_IN };
  const adapted = removeCookiePrefix(headers, isSecure(oauth));
  return messagePage({ title: texts.NOT_SIGNED_IN, message }, { status, headers: adapted, link });
}

function random(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}
