/** The page on which a person signs in to and out of git hosts for their sandboxes. It never shows a token. */
import { accountOf } from "../actors/account-of.ts";
import { messagePage } from "../auth/consent-page.ts";
import { markup } from "../auth/html.ts";
import type { OAuth } from "../auth/oauth.ts";
import { OWN_WINDOW, page } from "../auth/page.ts";
import { ToolError } from "../shared/errors.ts";
import { GIT_PATH } from "../shared/link-token.ts";
import { gitCredential, gitHost } from "../shared/git-credential.ts";
import { networkLimits } from "../shared/network-limits.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { readForm } from "../shared/stream-bytes.ts";
import { recordCall } from "../tools/define.ts";
import { DECISION_SCOPES, refuseVisitor, TO_PANEL, identifyVisitor } from "./decision-page.ts";
import { DECISION_TEXTS, GIT_TEXTS } from "./texts.ts";

const FORM_BOUNDS = { maxBytes: 16 * 1024, drainBytes: 64 * 1024, ms: 30_000 };

export async function gitPage(request: Request, oauth: OAuth, context: RequestContext): Promise<Response> {
  const { config, env } = context;
  const requestedHost = new URL(request.url).pathname.slice(GIT_PATH.length + 1);
  if (!config.gitSignIn) return messagePage(GIT_TEXTS.off, { status: 404, link: TO_PANEL });
  const caller = await identifyVisitor(request, oauth, context, GIT_TEXTS.signInFirst);
  if (caller instanceof Response) return caller;
  const refusal = await refuseVisitor(request, oauth, caller);
  if (refusal) return refusal;
  const { id } = caller.principal;
  const account = accountOf(env, id);
  const show = async (host: string, problem?: string) =>
    gitHostsPage(await account.gitHosts(), host, problem);
  const limits = networkLimits(config, id);
  if (request.method !== "POST") return show(gitHost(requestedHost, limits) ?? "");
  const form = await readForm(request, FORM_BOUNDS);
  if (form === undefined) return messagePage(GIT_TEXTS.unreadable, { link: TO_PANEL });
  const typed = form.get("host") ?? "";
  let host = typed;
  let work = async (): Promise<void> => account.signOutOfGit(typed);
  if (!form.has("remove")) {
    const canonical = gitHost(typed, limits);
    if (canonical === undefined) return show(typed, GIT_TEXTS.wrongHost);
    const credential = gitCredential(form.get("user") ?? "", form.get("token") ?? "");
    if (!credential) return show(canonical, GIT_TEXTS.wrongToken);
    host = canonical;
    work = () => account.signInToGit(id, canonical, credential);
  }
  const outcome = await recordCall(caller, { tool: "git_sign_in", scopes: DECISION_SCOPES }, work);
  if (outcome instanceof ToolError)
    return messagePage(DECISION_TEXTS.failed(outcome.text), { status: 503, link: TO_PANEL });
  const message = form.has("remove") ? GIT_TEXTS.removed(host) : GIT_TEXTS.signedIn(host);
  return messagePage(message, { status: 200, link: TO_PANEL });
}

function gitHostsPage(
  hosts: readonly { host: string; signedInAt: number }[],
  requestedHost: string,
  problem?: string,
): Promise<Response> {
  const rows = hosts.map(({ host, signedInAt }) => {
    const since = GIT_TEXTS.since(new Date(signedInAt).toISOString().slice(0, 10));
    return markup`<div><dt>${since}</dt><dd><strong>${host}</strong>
<form method="post"><input type="hidden" name="host" value="${host}">
<button class="plain" name="remove" aria-label="${GIT_TEXTS.remove} ${host}">${GIT_TEXTS.remove}</button></form></dd></div>
`;
  });
  const list = markup`<p class="soft">${GIT_TEXTS.listed}</p>\n<dl>\n${rows}</dl>`;
  const body = markup`<h1>${requestedHost ? GIT_TEXTS.signInTo : GIT_TEXTS.title}</h1>
<p class="soft">${GIT_TEXTS.about}</p>
${problem && markup`<p class="note error" role="alert">${problem}</p>`}
<form method="post">
${requestedHost && markup`<p class="note warn">${GIT_TEXTS.warning}</p>`}
<p><label class="field">${GIT_TEXTS.host}
<input type="text" name="host" value="${requestedHost}" required maxlength="253" placeholder="github.com" autocomplete="off"></label></p>
<p><label class="field">${GIT_TEXTS.token}
<input type="password" name="token" required minlength="16" maxlength="1000" autocomplete="off"></label></p>
<p><label class="field">${GIT_TEXTS.user}
<input type="text" name="user" maxlength="100" autocomplete="off"></label></p>
<p class="soft">${GIT_TEXTS.rights}</p>
<p class="soft">${GIT_TEXTS.risk}</p>
<button>${GIT_TEXTS.signIn}</button></form>
${rows.length > 0 && list}`;
  const headers = new Headers(OWN_WINDOW);
  return page(GIT_TEXTS.title, body, { status: problem === undefined ? 200 : 400, headers });
}
