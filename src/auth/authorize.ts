/** `/authorize`: people sign in, and approve or deny an OAuth client's request. */
import {
  AuthorizationError,
  authorizationErrorRedirect,
  type AuthRequest,
  CimdFetchError,
  type OAuthHelpers,
} from "@cloudflare/workers-oauth-provider";
import { log, logError, type SignInEvent } from "../shared/log.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { registrationsOf } from "../actors/attempts.ts";
import { consentPage, messagePage, clientErrorLink, siteOffer } from "./consent-page.ts";
import { adaptCookies, removeCookiePrefix } from "./cookies.ts";
import { METHODS } from "./methods/index.ts";
import { makePlain } from "./html.ts";
import { type Identity, type Offer, type Problem, type RedirectMethod, SiteError } from "./methods/method.ts";
import { BODY_MS, moveToIssuer } from "./endpoints.ts";
import { readForm } from "../shared/stream-bytes.ts";
import { type GrantProps, type OAuth, oauthAPI } from "./oauth.ts";
import { PANEL_CLIENT_ID, panelCallback } from "./panel-client.ts";
import { AUTHORIZE_PATH } from "./paths.ts";
import { canRunTasks, type Config } from "../shared/config.ts";
import { knownScopes, type Scope, SCOPES } from "../shared/principal.ts";
import { isAllowedRedirect, isPrivateUse, isShortRedirect } from "./redirects.ts";
import { bytesOf, methodStore, StoreError } from "./oauth-store.ts";
import { previewLabel } from "../shared/preview-address.ts";
import { messageOf } from "../shared/text.ts";
import * as texts from "./texts.ts";

const MAX_SEARCH_CHARACTERS = 8192;
const MAX_FORM_BYTES = 16 * 1024;

/** The longest client id that is not a URL. It becomes part of a store key of at most 512 bytes. */
const MAX_CLIENT_ID_BYTES = 256;

interface PageContext extends RequestContext {
  /** The request in the form that the OAuth provider expects: addressed to the issuer, with the provider's cookie names. */
  request: Request;
  oauth: OAuth;
}

export function serveAuthorize(request: Request, oauth: OAuth, context: RequestContext): Promise<Response> {
  return respond(request, oauth, context, request.method === "POST" ? decide : show);
}

export function callbackPath({ name }: RedirectMethod): string {
  return `${AUTHORIZE_PATH}/${name}`;
}

export function serveCallback(method: RedirectMethod) {
  return (request: Request, oauth: OAuth, context: RequestContext) =>
    respond(request, oauth, context, (page) => finish(method, page));
}

async function respond(
  sent: Request,
  oauth: OAuth,
  requestContext: RequestContext,
  handle: (context: PageContext) => Promise<Response>,
): Promise<Response> {
  const isSecure = oauth.issuer.startsWith("https:");
  const request = adaptCookies(moveToIssuer(sent, oauth), isSecure);
  const context: PageContext = { ...requestContext, oauth, request };
  const response = await handle(context).catch((error) => errorPage(context, error));
  return new Response(response.body, {
    status: response.status,
    headers: removeCookiePrefix(new Headers(response.headers), isSecure),
  });
}

async function show(context: PageContext): Promise<Response> {
  const { request, oauth } = context;
  const { search, searchParams } = new URL(request.url);
  checkQuery(search, searchParams);
  // The page would show this server's name as the name of the app's publisher. But a file's link or a preview shows what a sandbox has.
  const document = URL.parse(searchParams.get("client_id") ?? "");
  if (document && isOwnHost(document, context))
    throw new AuthorizationError("invalid_request", { description: texts.REQUEST_PROBLEMS.unknownClient });
  const api = oauthAPI(oauth, context);
  const authRequest = await api.parseAuthRequest(request);
  const { clientId, redirectUri } = authRequest;
  // A program on another port of this machine could receive the code. Only this server's own page may look like the panel's sign-in.
  const isForged = clientId === PANEL_CLIENT_ID && redirectUri !== panelCallback(oauth);
  // A client with a metadata document never registers, so its redirect URI is checked here.
  if (
    isForged ||
    !isAllowedRedirect(redirectUri, context.config) ||
    (isPrivateUse(redirectUri) && !(await isOwnScheme(authRequest, api)))
  )
    throw new AuthorizationError("invalid_request", { description: texts.REQUEST_PROBLEMS.badRedirect });
  checkChallenge(authRequest);
  if (document) await checkClientAuthentication(authRequest, api);
  if (offeredScopes(authRequest, context.config).length === 0)
    throw refusal(authRequest, "invalid_scope", texts.REQUEST_PROBLEMS.noScope);
  return consent(context, authRequest, offeredScopes(authRequest, context.config), new Headers());
}

/** Whether a URL has this server's name or a preview's. The page shows no port, and a name with a final dot is the same host. */
function isOwnHost(url: URL, { oauth, config }: PageContext): boolean {
  const isServer = url.hostname.replace(/\.$/, "") === new URL(oauth.issuer).hostname;
  return isServer || previewLabel(url, config) !== undefined;
}

/** Shows the consent page. Its form has a new handle, which works only once and only in this browser. */
async function consent(
  context: PageContext,
  authRequest: AuthRequest,
  ticked: readonly Scope[],
  headers: Headers,
  problem?: Problem,
): Promise<Response> {
  const { request, oauth } = context;
  const offers = new Map<string, Offer>();
  for (const method of METHODS.filter((candidate) => candidate.isOn(context))) {
    const offer =
      "origin" in method ? siteOffer(method, context.config) : await method.offer(request, context);
    if (offer) offers.set(method.name, offer);
  }
  if (offers.size === 0) {
    const absent = METHODS.find((method) => method.isOn(context) && "gateway" in method);
    const client = authRequest.clientId;
    logSignIn(context, { outcome: "refused", via: absent?.name, reason: "not_identified", client });
    const gateway = absent && "gateway" in absent ? absent.gateway : undefined;
    const message = gateway === undefined ? texts.NO_METHOD : texts.gatewaySilent(gateway);
    return messagePage(message, { status: 403, headers });
  }
  const api = oauthAPI(oauth, context);
  const description = await api.describeConsent(authRequest);
  const begun = await api.beginConsent(authRequest);
  for (const cookie of begun.headers.getSetCookie()) headers.append("set-cookie", cookie);
  const { search } = new URL(request.url);
  const offered = offeredScopes(authRequest, context.config);
  const page = { description, issuer: oauth.issuer, search, handle: begun.handle, headers };
  const mayFocus = mayFocusField(request);
  return consentPage({ ...page, offeredScopes: offered, ticked, signInMethods: offers, mayFocus, problem });
}

/**
 * Whether a field may have the focus before the person clicks it. On a phone the focus opens the keyboard, which covers the
 * client's name. A page of another site that asks a person to hold the Enter key could open this page, and the key would send the
 * form with a token that the browser has filled in.
 */
function mayFocusField({ headers }: Request): boolean {
  const isOnPhone = /\bMobi/i.test(headers.get("user-agent") ?? "");
  return !isOnPhone && /^(?:none|same-origin)$/.test(headers.get("sec-fetch-site") ?? "none");
}

async function decide(context: PageContext): Promise<Response> {
  const { request, oauth } = context;
  const origin = request.headers.get("origin");
  if (origin !== null && origin !== oauth.issuer) {
    logSignIn(context, { outcome: "refused", reason: "bad_origin" });
    return messagePage(texts.OTHER_SITES_FORM, { status: 403 });
  }
  const form = await requireForm(request);
  const api = oauthAPI(oauth, context);
  const handle = form.get("handle") ?? "";
  const decision = form.get("decision");
  if (decision === "deny") {
    const { headers, redirectTo, request: denied } = await api.denyConsent(request, handle);
    logSignIn(context, { outcome: "denied", client: denied.clientId });
    return seeOther(redirectTo, headers);
  }
  const { request: authRequest, headers } = await api.approveConsent(request, handle);
  const formScopes = form.getAll("scope");
  const ticked = offeredScopes(authRequest, context.config).filter((scope) => formScopes.includes(scope));
  if (ticked.length === 0) {
    logSignIn(context, { outcome: "refused", reason: "no_scope", client: authRequest.clientId });
    return consent(context, authRequest, ticked, headers, NO_SCOPE);
  }
  const method = METHODS.find((candidate) => candidate.name === decision && candidate.isOn(context));
  if (method && "signInURL" in method) {
    const verifier = `${crypto.randomUUID()}${crypto.randomUUID()}`;
    const data: PendingSignIn = { verifier, via: method.name };
    const { state } = await api.beginUpstream({ ...authRequest, scope: ticked }, { data, headers });
    const redirectURI = oauth.issuer + callbackPath(method);
    return seeOther(await method.signInURL(context.config, { state, verifier, redirectURI }), headers);
  }
  const found = (await method?.identify(form, request, context)) ?? NOT_IDENTIFIED;
  if (method && !("refused" in found))
    return complete(context, authRequest, ticked, method.name, found, headers);
  const { refused: reason, problem } = "refused" in found ? found : NOT_IDENTIFIED;
  logSignIn(context, { outcome: "refused", reason, via: method?.name, client: authRequest.clientId });
  return consent(context, authRequest, ticked, headers, problem);
}

interface PendingSignIn {
  verifier: string;
  /** The sign-in method: an authorization code of one site is not valid for another. */
  via: string;
}

async function finish(method: RedirectMethod, context: PageContext): Promise<Response> {
  const { request, oauth } = context;
  const api = oauthAPI(oauth, context);
  const { request: authRequest, data, headers } = await api.finishUpstream<PendingSignIn>(request);
  const about = { via: method.name, client: authRequest.clientId };
  const back = clientErrorLink(authorizationErrorRedirect(authRequest, "access_denied"));
  const code = new URL(request.url).searchParams.get("code");
  if (code === null || data.via !== method.name || !method.isOn(context)) {
    logSignIn(context, { ...about, outcome: "denied" });
    return messagePage(texts.notConfirmed(method.title), { headers, link: back });
  }
  const redirect = { verifier: data.verifier, redirectURI: oauth.issuer + callbackPath(method) };
  try {
    const found = await method.identify(code, redirect, context.config, methodStore(context.env));
    if (!("refused" in found))
      return await complete(
        context,
        authRequest,
        knownScopes(authRequest.scope),
        method.name,
        found,
        headers,
      );
    logSignIn(context, { ...about, outcome: "refused", reason: found.refused });
    const message = texts.userRefused(method.title, makePlain(found.login));
    return await messagePage(message, { status: 403, headers, link: back });
  } catch (error) {
    if (!(error instanceof SiteError)) throw error;
    logError(context, method.name, error);
    logSignIn(context, { ...about, outcome: "refused", reason: `${method.name}_failed` });
    const message = texts.siteFailed(method.title, context.requestID);
    return messagePage(message, { status: 502, headers, link: back });
  }
}

async function complete(
  context: PageContext,
  authRequest: AuthRequest,
  scopes: readonly Scope[],
  via: string,
  { principal, rule }: Identity,
  headers: Headers,
): Promise<Response> {
  const props: GrantProps = { principal, via, rule };
  await registrationsOf(context.env)?.approved(authRequest.clientId);
  const { redirectTo } = await oauthAPI(context.oauth, context).completeAuthorization({
    request: authRequest,
    // Encoded, because the provider separates the parts of its keys with colons.
    userId: encodeURIComponent(principal),
    metadata: { via },
    scope: [...scopes],
    props,
    // A person may use the panel in several browsers. For other clients, a new grant replaces the old one.
    revokeExistingGrants: authRequest.clientId !== PANEL_CLIENT_ID,
  });
  const about = { via, principal, client: authRequest.clientId, scope: scopes.join(" ") };
  logSignIn(context, { ...about, outcome: "approved" });
  return seeOther(redirectTo, headers);
}

/**
 * The known scopes that the client requested; all scopes if it requested none. `offline_access` is ignored. `tasks:run` is
 * offered only if the server has a model.
 */
function offeredScopes({ scope }: AuthRequest, config: Config): readonly Scope[] {
  const requested = scope.filter((name) => name !== "offline_access");
  const known = requested.length === 0 ? SCOPES : knownScopes(requested);
  return canRunTasks(config) ? known : known.filter((name) => name !== "tasks:run");
}

/** RFC 6749 section 3.1 forbids repeated parameters: otherwise a check could read one value and the handler another. */
function checkQuery(search: string, parameters: URLSearchParams): void {
  const names = Array.from(parameters.keys()).filter((name) => name !== "resource");
  const client = parameters.get("client_id") ?? "";
  const problem =
    (search.length > MAX_SEARCH_CHARACTERS && texts.REQUEST_PROBLEMS.tooLong) ||
    (!isShortRedirect(parameters.get("redirect_uri") ?? "") && texts.REQUEST_PROBLEMS.badRedirect) ||
    (new Set(names).size < names.length && texts.REQUEST_PROBLEMS.repeated) ||
    (!client.startsWith("https://") &&
      bytesOf(client) > MAX_CLIENT_ID_BYTES &&
      texts.REQUEST_PROBLEMS.unknownClient);
  if (problem) throw new AuthorizationError("invalid_request", { description: problem });
}

/** Requires PKCE of every client. The provider itself does not require it of confidential clients. */
function checkChallenge(authRequest: AuthRequest): void {
  if (/^[\w-]{43}$/.test(authRequest.codeChallenge ?? "")) return;
  throw refusal(authRequest, "invalid_request", texts.REQUEST_PROBLEMS.noChallenge);
}

/** Whether a public client registered exactly this address. The provider ignores the port of `localhost` in any scheme. */
async function isOwnScheme({ clientId, redirectUri }: AuthRequest, api: OAuthHelpers): Promise<boolean> {
  const client = await api.lookupClient(clientId);
  return client?.tokenEndpointAuthMethod === "none" && client.redirectUris.includes(redirectUri);
}

/** The token endpoint refuses a client whose metadata document allows only assertions (endpoints.ts). The person learns it here. */
async function checkClientAuthentication(authRequest: AuthRequest, api: OAuthHelpers): Promise<void> {
  const client = await api.lookupClient(authRequest.clientId);
  // The provider prefers `none` if the document allows both.
  if (client?.tokenEndpointAuthMethod === "private_key_jwt")
    throw refusal(authRequest, "unauthorized_client", texts.REQUEST_PROBLEMS.onlyAssertions);
}

function refusal(
  authRequest: AuthRequest,
  code: "invalid_request" | "invalid_scope" | "unauthorized_client",
  description: string,
) {
  const { redirectUri, state, issuer } = authRequest;
  return new AuthorizationError(code, { description, redirectUri, state: state || undefined, issuer });
}

/**
 * Shows an error to the person, and does not redirect to the client. Anybody can register a client, so a redirect would make the
 * server an open redirect.
 */
function errorPage(context: PageContext, error: unknown): Promise<Response> {
  const retryURL = new URL(context.request.url);
  if (error instanceof CimdFetchError) {
    logSignIn(context, { outcome: "refused", reason: "bad_request" });
    return messagePage(texts.APP_NOT_VERIFIED);
  }
  if (error instanceof StoreError) {
    logError(context, "authorize", error);
    const headers = new Headers({ "retry-after": "5" });
    return messagePage(texts.STORAGE_SILENT_PAGE, { status: 503, headers });
  }
  // The provider throws this if the client was removed while its page was open. The server limits unapproved registrations.
  if (messageOf(error).startsWith("Invalid redirect URI. ")) {
    logSignIn(context, { outcome: "refused", reason: "bad_request" });
    return messagePage(texts.APP_NOT_REGISTERED);
  }
  if (!(error instanceof AuthorizationError)) {
    logError(context, "authorize", error);
    return messagePage(texts.unexpected(context.requestID), { status: 500 });
  }
  const hasBegun = context.request.method === "POST" || retryURL.pathname !== AUTHORIZE_PATH;
  logSignIn(context, { outcome: "refused", reason: hasBegun ? "bad_handle" : "bad_request" });
  if (hasBegun) {
    const link = { href: `${AUTHORIZE_PATH}${retryURL.search}`, label: texts.START_AGAIN };
    const hasRequest = retryURL.searchParams.has("client_id");
    return messagePage(texts.PAGE_EXPIRED, { link: hasRequest ? link : undefined });
  }
  if (error.description.includes("client_id")) return messagePage(texts.APP_NOT_REGISTERED);
  const link = error.redirectTo === undefined ? undefined : clientErrorLink(error.redirectTo);
  const [, problem] = PROVIDER_PROBLEMS.find(([word]) => error.description.includes(word)) ?? [];
  return messagePage(texts.badRequest(problem ?? error.description, link !== undefined), { link });
}

async function requireForm(request: Request): Promise<URLSearchParams> {
  const form = await readForm(request, { maxBytes: MAX_FORM_BYTES, ms: BODY_MS });
  if (form) return form;
  throw new AuthorizationError("invalid_request", { description: texts.REQUEST_PROBLEMS.badForm });
}

function seeOther(location: string, headers: Headers): Response {
  headers.set("location", location);
  headers.set("cache-control", "no-store");
  headers.set("referrer-policy", "no-referrer");
  return new Response(null, { status: 303, headers });
}

function logSignIn(context: PageContext, event: Omit<SignInEvent, "event" | "request_id">): void {
  log(context.config, { event: "sign_in", request_id: context.requestID, ...event });
}

/** Words in the provider's errors, and what the page says instead of these errors. */
const PROVIDER_PROBLEMS = [
  ["PKCE", texts.REQUEST_PROBLEMS.noChallenge],
  ["redirect URI", texts.REQUEST_PROBLEMS.badRedirect],
  ["response_type", texts.REQUEST_PROBLEMS.badResponseType],
  ["resource", texts.REQUEST_PROBLEMS.badResource],
] as const;

const NO_SCOPE: Problem = { at: "scopes", message: texts.NO_SCOPE_TICKED, status: 400 };

const NOT_IDENTIFIED = {
  refused: "not_identified",
  problem: { at: "top", message: texts.NOT_IDENTIFIED_TEXT, status: 403 },
} as const;
