/** The consent page: which client asks for which scopes, where the browser goes next, and how to sign in. */
import type { ConsentDescription } from "@cloudflare/workers-oauth-provider";
import { markup, makePlain } from "./html.ts";
import { PANEL_CLIENT_ID } from "./panel-client.ts";
import { AUTHORIZE_PATH } from "./paths.ts";
import { isPrivateUse } from "./redirects.ts";
import { approvalButton, page } from "./page.ts";
import type { Scope } from "../shared/principal.ts";
import type { Config } from "../shared/config.ts";
import type { Offer, Problem, RedirectMethod } from "./methods/method.ts";
import { type PageMessage, SCOPE_TEXTS, CONSENT_TEXTS, SIGN_IN, backTo, siteButton } from "./texts.ts";

interface Consent {
  description: ConsentDescription;
  issuer: string;
  /** The query of the authorization request, with `?`. The form sends it, so that an error page can offer a new start. */
  search: string;
  handle: string;
  headers: Headers;
  offeredScopes: readonly Scope[];
  ticked: readonly Scope[];
  signInMethods: ReadonlyMap<string, Offer>;
  /** Whether a field gets the focus. After an error, one gets it in any case. */
  mayFocus: boolean;
  problem?: Problem | undefined;
}

export function siteOffer({ origin, title }: RedirectMethod, config: Config): Offer {
  return {
    origin: origin(config),
    isOneClick: true,
    show: ({ button, isPanel }) =>
      markup`<button ${button} formnovalidate>${siteButton(title, isPanel)}</button>`,
  };
}

export function consentPage(consent: Consent): Promise<Response> {
  const {
    description,
    issuer,
    search,
    handle,
    headers,
    offeredScopes,
    ticked,
    signInMethods,
    mayFocus,
    problem,
  } = consent;
  const name = makePlain(description.clientName) || CONSENT_TEXTS.unnamed;
  const isPanel = description.clientId === PANEL_CLIENT_ID;
  const host = hostOf(description.redirectUri);
  const isOnThisComputer = description.redirectIsLoopback || isPrivateUse(description.redirectUri);
  for (const [header, value] of Object.entries(problem?.headers ?? {})) headers.set(header, value);
  const terms = description.clientDomain
    ? CONSENT_TEXTS.publishedBy(markup`<strong>${description.clientDomain}</strong>`)
    : CONSENT_TEXTS.unverified;
  const alert = problem && markup`<p class="note error" role="alert" id="problem">${problem.message}</p>\n`;
  const focusPlace =
    problem && (signInMethods.has(problem.at) || problem.at === "scopes") ? problem.at : "top";
  const boxes = offeredScopes.map((scope, index) => {
    const checked = ticked.includes(scope) && markup` checked`;
    const focus = focusPlace === "scopes" && index === 0 && markup` autofocus`;
    return markup`<label class="scope"><input type="checkbox" name="scope" value="${scope}"${checked}${focus}>
<span>${SCOPE_TEXTS[scope]}<code>${scope}</code></span></label>
`;
  });
  const heading = isPanel ? CONSENT_TEXTS.panel : CONSENT_TEXTS.asks(markup`<bdi>${name}</bdi>`);
  const appearance = {
    verb: isPanel ? SIGN_IN : CONSENT_TEXTS.approve,
    isPanel,
    isAlone: signInMethods.size === 1,
    isFocused: !problem && mayFocus,
  };
  const body = markup`<h1>${heading}</h1>
${focusPlace === "top" && alert}<p class="soft">${isPanel ? CONSENT_TEXTS.panelTerms : terms}</p>
<dl>
<div><dt>${CONSENT_TEXTS.server}</dt><dd>${new URL(issuer).host}</dd></div>
<div><dt>${CONSENT_TEXTS.returnTo}</dt><dd><strong>${host}</strong>${isOnThisComputer && !isPanel && CONSENT_TEXTS.onThisComputer}</dd></div>
</dl>
<form method="post" action="${AUTHORIZE_PATH}${search}">
<input type="hidden" name="handle" value="${handle}">
<fieldset${focusPlace === "scopes" && markup` aria-describedby="problem"`}>
<legend>${isPanel ? CONSENT_TEXTS.panelScopes : CONSENT_TEXTS.scopes}</legend>
${focusPlace === "scopes" && alert}${boxes}</fieldset>
<div>
${[...signInMethods].map(([method, offer], index) => {
  const shown = offer.show({
    ...appearance,
    button: markup`name="decision" value="${method}"`,
    alert: focusPlace === method && alert,
  });
  return [
    index > 0 && markup`<p class="or">${CONSENT_TEXTS.or}</p>\n`,
    offer.isOneClick ? approvalButton(shown) : shown,
  ];
})}
<button class="plain" name="decision" value="deny" formnovalidate>${isPanel ? CONSENT_TEXTS.panelCancel : CONSENT_TEXTS.deny}</button>
</div>
</form>`;
  const formTargets = [
    ...[...signInMethods.values()].flatMap(({ origin }) => origin ?? []),
    formTarget(description.redirectUri),
  ];
  const title = isPanel ? CONSENT_TEXTS.panel : CONSENT_TEXTS.title(name);
  const shownTitle = problem ? CONSENT_TEXTS.titleOfError(title) : title;
  return page(shownTitle, body, { status: problem?.status, formTargets, headers, wide: true });
}

export function messagePage(
  { title, message }: PageMessage,
  {
    status = 400,
    headers = new Headers(),
    link = undefined as { href: string; label: string } | undefined,
  } = {},
): Promise<Response> {
  const body = markup`<h1>${title}</h1>
<p>${message}</p>
${link && markup`<p><a class="button plain" href="${link.href}" rel="noreferrer">${link.label}</a></p>`}`;
  return page(title, body, { status, headers });
}

/** A link back to the client with an error. The server itself never redirects there. */
export function clientErrorLink(redirectTo: string): { href: string; label: string } {
  return { href: redirectTo, label: backTo(hostOf(redirectTo)) };
}

/** With the scheme if it is an app's own, because such an address can have any host, also that of a known site. */
function hostOf(uri: string): string {
  const { protocol, host } = new URL(uri);
  return isPrivateUse(uri) ? `${protocol}//${host}` : host;
}

/**
 * The CSP source for a redirect URI. CSP cannot express IPv6 addresses, and an app's own scheme allows any characters in a host, so
 * the source for such an address is only the scheme.
 */
function formTarget(redirectURI: string): string {
  const { protocol, host, hostname } = new URL(redirectURI);
  return isPrivateUse(redirectURI) || hostname.startsWith("[") ? protocol : `${protocol}//${host}`;
}
