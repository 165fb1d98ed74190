/** The sign-in methods: each turns what the browser sent into a principal, and names the rule that allows the sign-in. */
import { type AuthRequest, type OAuthHelpers } from "@cloudflare/workers-oauth-provider";
import type { GitHubConfig } from "../shared/sign-in-config.ts";
import { logError, type SignInRefusal } from "../shared/log.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { type AccessIdentity, accessIdentity } from "./access.ts";
import { accessRule, ownerRule } from "./grant-policy.ts";
import { ATTEMPTS_NAME, addressOf, attemptsOf } from "../actors/attempts.ts";
import { isOwnerToken } from "./bearer.ts";
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
  via: SignInMethod;
  /** The rule that allowed it; see grant-policy.ts. */
  rule: string;
}

/** Somebody who did not, by a method that is on the page itself. */
export interface Refused {
  refused: SignInRefusal;
  via?: SignInMethod;
  problem: Problem;
}

/** The methods that this browser can use. */
export async function openMethods(request: Request, context: RequestContext): Promise<OpenMethod[]> {
  const { config, env } = context;
  const methods: OpenMethod[] = [];
  if (config.serverAuthToken !== undefined && env.Attempts) methods.push({ method: "owner" });
  if (config.github) methods.push({ method: "github", origin: new URL(config.github.url).origin });
  const identity = await vouchedFor(request, context);
  if (identity) methods.push({ method: "access", who: identity.email });
  return methods;
}

/** Who the sender of the form is, by the method they chose. */
export async function identify(
  decision: string | null,
  form: URLSearchParams,
  request: Request,
  context: RequestContext,
): Promise<Identity | Refused> {
  if (decision === "owner") return owner(form.get("token") ?? "", request, context);
  const { access } = context.config;
  const identity = decision === "access" && access ? await vouchedFor(request, context) : undefined;
  // The person may have changed accounts since the page told them who they are.
  if (access && identity && form.get("who") === identity.email) {
    return { principal: `access:${identity.subject}`, via: "access", rule: accessRule(access) };
  }
  const message = "Who you are could not be made out. Choose one of the ways below.";
  return { refused: "not_vouched_for", problem: { at: "access", message, status: 403 } };
}

async function owner(
  token: string,
  request: Request,
  { env, config }: RequestContext,
): Promise<Identity | Refused> {
  const attempts = attemptsOf(env, ATTEMPTS_NAME);
  const address = addressOf(request);
  const wait = (await attempts?.take(address)) ?? Number.POSITIVE_INFINITY;
  if (wait > 0) {
    const headers = { "retry-after": String(wait) };
    const message = `Too many wrong tokens. Wait ${duration(wait)} before the next try.`;
    return {
      refused: "too_many_attempts",
      via: "owner",
      problem: { at: "owner", message, status: 429, headers },
    };
  }
  if (!(await isOwnerToken(token, config))) {
    const message = "This is not the server's token. Nothing was approved.";
    return { refused: "wrong_token", via: "owner", problem: { at: "owner", message, status: 403 } };
  }
  await attempts?.succeeded(address);
  return { principal: OWNER_ID, via: "owner", rule: await ownerRule(token) };
}

async function vouchedFor(request: Request, context: RequestContext): Promise<AccessIdentity | undefined> {
  const { access } = context.config;
  if (!access) return undefined;
  try {
    return await accessIdentity(request, access);
  } catch (error) {
    logError(context, "access", error);
    return undefined;
  }
}

/** @returns the URL to send the browser to; the cookie that binds the callback to this browser is added to `headers` */
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

/** Somebody whom GitHub did not name, or who is not allowed; the texts are for them. */
interface NotFromGitHub {
  refused: SignInRefusal;
  title: string;
  message: string;
  status: number;
}

export async function signInWithGitHub(
  github: GitHubConfig,
  { code, verifier }: { code: string; verifier: string },
  context: RequestContext,
  { issuer }: OAuth,
): Promise<Identity | NotFromGitHub> {
  const { env, requestID } = context;
  let account: GitHubAccount & { token: string };
  let verdict: Awaited<ReturnType<typeof gitHubRule>>;
  try {
    const redirectURI = `${issuer}${GITHUB_CALLBACK_PATH}`;
    account = await gitHubAccount(github, { code, verifier, redirectURI });
    if (!env.OAUTH_KV) throw new GitHubError("There is nowhere to keep who a login belongs to");
    verdict = await gitHubRule(github, account, guarded(env.OAUTH_KV));
  } catch (error) {
    if (!(error instanceof GitHubError)) throw error;
    logError(context, "github", error);
    const message = `GitHub did not say who you are. Start again from your app (ref ${requestID}).`;
    return { refused: "github_failed", title: "GitHub did not answer", message, status: 502 };
  }
  if ("rule" in verdict) return { principal: `github:${account.id}`, via: "github", rule: verdict.rule };
  const message = `You are signed in to GitHub as ${plain(account.login)}, who may not use this server. Its owner decides who may.`;
  return { refused: verdict.refused, title: "You may not use this server", message, status: 403 };
}

function duration(seconds: number): string {
  if (seconds <= 90) return `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}
