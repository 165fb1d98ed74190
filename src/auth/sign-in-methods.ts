/** The doors: each turns what the browser brought into the principal it is, with the rule that let them in. */
import { type AuthRequest, type OAuthHelpers } from "@cloudflare/workers-oauth-provider";
import type { GitHubConfig } from "../shared/sign-in-config.ts";
import { log, type SignInRefusal } from "../shared/log.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { type AccessIdentity, accessIdentity } from "./access.ts";
import { accessRule, ownerRule } from "./grant-policy.ts";
import { addressOf, ATTEMPTS_NAME, type Attempts } from "../actors/attempts.ts";
import { isServerToken } from "./bearer.ts";
import type { OpenMethod, Problem } from "./consent-page.ts";
import { type GitHubAccount, gitHubAccount, GitHubError, gitHubRule, gitHubSignInURL } from "./github.ts";
import { plain } from "./html.ts";
import { type OAuth } from "./oauth.ts";
import { GITHUB_CALLBACK_PATH } from "./paths.ts";
import { OWNER_ID, type SignInMethod } from "../shared/principal.ts";
import { guarded } from "./store.ts";

/** Somebody who signed in. */
export interface Identity {
  principal: string;
  door: SignInMethod;
  /** What let them in; see admission.ts. */
  rule: string;
}

/** Somebody who did not, at a door that is on the page itself. */
export interface Refused {
  refused: SignInRefusal;
  door?: SignInMethod;
  problem: Problem;
}

/** The doors this visitor can use. */
export async function openMethods(request: Request, visit: RequestContext): Promise<OpenMethod[]> {
  const { config, env } = visit;
  const doors: OpenMethod[] = [];
  if (config.serverAuthToken !== undefined && env.Attempts) doors.push({ door: "owner" });
  if (config.github) doors.push({ door: "github", origin: new URL(config.github.url).origin });
  const identity = await vouchedFor(request, visit);
  if (identity) doors.push({ door: "access", who: identity.email });
  return doors;
}

/** Who the sender of the form is, by the door they chose. */
export async function identify(
  decision: string | null,
  form: URLSearchParams,
  request: Request,
  visit: RequestContext,
): Promise<Identity | Refused> {
  if (decision === "owner") return owner(form.get("token") ?? "", request, visit);
  const { access } = visit.config;
  const identity = decision === "access" && access ? await vouchedFor(request, visit) : undefined;
  // Who the page said they were is who they must be: they may have changed accounts since.
  if (access && identity && form.get("who") === identity.email) {
    return { principal: `access:${identity.subject}`, door: "access", rule: accessRule(access) };
  }
  const message = "Who you are could not be made out. Choose one of the ways below.";
  return { refused: "not_vouched_for", problem: { at: "access", message, status: 403 } };
}

async function owner(
  token: string,
  request: Request,
  { env, config }: RequestContext,
): Promise<Identity | Refused> {
  const namespace = env.Attempts as DurableObjectNamespace<Attempts> | undefined;
  const attempts = namespace?.getByName(ATTEMPTS_NAME);
  const address = addressOf(request);
  const wait = (await attempts?.take(address)) ?? Number.POSITIVE_INFINITY;
  if (wait > 0) {
    const headers = { "retry-after": String(wait) };
    const message = `Too many wrong tokens. Wait ${duration(wait)} before the next try.`;
    return {
      refused: "too_many_attempts",
      door: "owner",
      problem: { at: "owner", message, status: 429, headers },
    };
  }
  const right = await isServerToken(token, config);
  if (!right || config.serverAuthToken === undefined) {
    const message = "This is not the server's token. Nothing was approved.";
    return { refused: "wrong_token", door: "owner", problem: { at: "owner", message, status: 403 } };
  }
  await attempts?.succeeded(address);
  return { principal: OWNER_ID, door: "owner", rule: await ownerRule(config.serverAuthToken) };
}

async function vouchedFor(
  request: Request,
  { config, requestID }: RequestContext,
): Promise<AccessIdentity | undefined> {
  if (!config.access) return undefined;
  try {
    return await accessIdentity(request, config.access);
  } catch (error) {
    log(config, { event: "error", ref: requestID, where: "access", error });
    return undefined;
  }
}

/** @returns where to send the browser; `headers` get the cookie that ties the way back to it */
export async function startGitHub(
  github: GitHubConfig,
  api: OAuthHelpers,
  approved: AuthRequest,
  { issuer }: OAuth,
  headers: Headers,
): Promise<string> {
  const verifier = `${crypto.randomUUID()}${crypto.randomUUID()}`;
  const { state } = await api.beginUpstream(approved, { data: { verifier }, headers });
  return gitHubSignInURL(github, { state, verifier, redirectURI: `${issuer}${GITHUB_CALLBACK_PATH}` });
}

/** Somebody GitHub did not, or could not, say is one of those allowed; the words are for them. */
interface NotFromGitHub {
  refused: SignInRefusal;
  title: string;
  message: string;
  status: number;
}

export async function signInWithGitHub(
  github: GitHubConfig,
  { code, verifier }: { code: string; verifier: string },
  { env, config, requestID }: RequestContext,
  { issuer }: OAuth,
): Promise<Identity | NotFromGitHub> {
  let account: GitHubAccount & { token: string };
  let verdict: Awaited<ReturnType<typeof gitHubRule>>;
  try {
    const redirectURI = `${issuer}${GITHUB_CALLBACK_PATH}`;
    account = await gitHubAccount(github, { code, verifier, redirectURI });
    if (!env.OAUTH_KV) throw new GitHubError("There is nowhere to keep who a login belongs to");
    verdict = await gitHubRule(github, account, guarded(env.OAUTH_KV));
  } catch (error) {
    if (!(error instanceof GitHubError)) throw error;
    log(config, { event: "error", ref: requestID, where: "github", error });
    const message = `GitHub did not say who you are. Start again from your app (ref ${requestID}).`;
    return { refused: "door_failed", title: "GitHub did not answer", message, status: 502 };
  }
  if ("rule" in verdict) return { principal: `github:${account.id}`, door: "github", rule: verdict.rule };
  const message = `You are signed in to GitHub as ${plain(account.login)}, who may not use this server. Its owner decides who may.`;
  return { refused: verdict.refused, title: "You may not use this server", message, status: 403 };
}

function duration(seconds: number): string {
  if (seconds <= 90) return `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}
