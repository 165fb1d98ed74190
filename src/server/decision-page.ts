/** The page for decisions about network access. Only the sandbox's principal can decide. */
import { linkKeys } from "../actors/link-keys.ts";
import { callSandbox, sandboxActor } from "../actors/sandbox-client.ts";
import { messagePage } from "../auth/consent-page.ts";
import { markup } from "../auth/html.ts";
import type { OAuth } from "../auth/oauth.ts";
import { approvalButton, OWN_WINDOW, page } from "../auth/page.ts";
import { isFromPanel, panelSession } from "../auth/panel-session.ts";
import { PANEL_PATH, PANEL_SIGN_IN_PATH } from "../auth/paths.ts";
import { ToolError } from "../shared/errors.ts";
import { readToken } from "../shared/link-token.ts";
import { actorName } from "../shared/names.ts";
import { missingScopes } from "../shared/principal.ts";
import type { CallerContext, RequestContext } from "../shared/request-context.ts";
import { recordCall } from "../tools/define.ts";
import { DECISION_TEXTS, OPEN_PANEL } from "./texts.ts";
import { type PageMessage, SIGN_IN } from "../auth/texts.ts";

export const DECISION_SCOPES = ["sandbox:exec"] as const;

export async function decisionPage(request: Request, oauth: OAuth, context: RequestContext) {
  const { pathname, searchParams } = new URL(request.url);
  const token = pathname.slice(pathname.lastIndexOf("/") + 1);
  const link = await readToken(token, await linkKeys(context));
  if (!link) return gonePage();
  const caller = await identifyVisitor(request, oauth, context, DECISION_TEXTS.signIn);
  if (caller instanceof Response) return caller;
  const { principal } = caller;
  const question = await sandboxActor(context.env, link.actor).networkQuestion(link.id);
  // The actor's name contains a hash of the principal.
  if (question && (await actorName(question.sandbox, principal.id)) !== link.actor)
    return messagePage(DECISION_TEXTS.otherPerson, { status: 403 });
  if (!question) return gonePage();
  const refusal = await refuseVisitor(request, oauth, caller);
  if (refusal) return refusal;
  if (request.method !== "POST") return questionPage(question);
  const isAllowed = searchParams.get("decision") === "allow";
  const { sandbox } = question;
  const owner = { principalID: principal.id, sandbox, scopes: principal.scopes };
  const done = await recordCall(caller, { tool: "decision", scopes: DECISION_SCOPES, sandbox }, () =>
    callSandbox(context.env, owner, (actor, who) => actor.decideNetwork(who, link.id, isAllowed)),
  );
  if (done instanceof ToolError)
    return messagePage(DECISION_TEXTS.failed(done.text), { status: 403, link: TO_PANEL });
  if (!done) return gonePage();
  return messagePage(isAllowed ? DECISION_TEXTS.allowed(sandbox) : DECISION_TEXTS.refused, { status: 200 });
}

export const TO_PANEL = { href: PANEL_PATH, label: OPEN_PANEL };

/**
 * The signed-in visitor of a page, or the page to show instead. @param signInText the text of the page that asks a visitor to
 * sign in
 */
export async function identifyVisitor(
  request: Request,
  oauth: OAuth,
  context: RequestContext,
  signInText: PageMessage,
): Promise<CallerContext | Response> {
  const { pathname, searchParams } = new URL(request.url);
  // Browsers send the session's cookie only from this server's own pages, so after a link from another site the page reloads
  // once.
  const hasReloaded = searchParams.has("again");
  const session = await panelSession(request, oauth, context);
  if ("response" in session) {
    if (session.response.status !== 401) return session.response;
    const headers = new Headers(hasReloaded ? {} : { refresh: `0; url=${pathname}?again` });
    return messagePage(signInText, { status: hasReloaded ? 401 : 200, headers, link: signIn(pathname) });
  }
  return { ...context, ...session, client: request.signal };
}

/**
 * The page for a visitor who may not use the form; undefined if the visitor may. The session must be allowed to run code, and
 * only this server's own page may send the form.
 */
export function refuseVisitor(request: Request, oauth: OAuth, { principal }: CallerContext) {
  if (missingScopes(principal, DECISION_SCOPES).length > 0)
    return messagePage(DECISION_TEXTS.noScope, { status: 403, link: signIn(new URL(request.url).pathname) });
  if (request.method === "POST" && !isFromPanel(request, oauth))
    return messagePage(DECISION_TEXTS.otherSite, { status: 403 });
  return undefined;
}

function signIn(pathname: string) {
  return { href: `${PANEL_SIGN_IN_PATH}?to=${encodeURIComponent(pathname)}`, label: SIGN_IN };
}

function gonePage(): Promise<Response> {
  return messagePage(DECISION_TEXTS.gone, { status: 404 });
}

function questionPage({ sandbox, added }: { sandbox: string; added: readonly string[] }): Promise<Response> {
  const reached = added.length > 0 ? added : [DECISION_TEXTS.everything];
  const hosts = reached.map(
    (host) => markup`<div><dt>${DECISION_TEXTS.host}</dt><dd><strong>${host}</strong></dd></div>\n`,
  );
  const { title, explanation } = DECISION_TEXTS;
  const body = markup`<h1>${title}</h1>
<p class="soft">${explanation}</p>
<dl>
<div><dt>${DECISION_TEXTS.sandbox}</dt><dd><strong>${sandbox}</strong></dd></div>
${hosts}</dl>
<form method="post" action="?decision=allow">${approvalButton(markup`<button>${DECISION_TEXTS.allow}</button>`)}</form>
<form method="post" action="?decision=refuse"><button class="plain">${DECISION_TEXTS.refuse}</button></form>`;
  return page(title, body, { headers: new Headers(OWN_WINDOW) });
}
