/** Sign-in with GitHub's web application flow. GitHub's token is used once, to ask who somebody is, and is not kept. */
import { z } from "zod";
import { GITHUB_LOGIN, type GitHubConfig } from "../shared/sign-in-config.ts";
import { gitHubOrgRule, gitHubUserRule } from "./grant-policy.ts";
import { challengeOf } from "./pkce.ts";

/** For each request to GitHub. */
const TIMEOUT_MS = 10_000;

/** GitHub did not answer, or its answer cannot be used. */
export class GitHubError extends Error {
  override readonly name = "GitHubError";
}

export interface GitHubAccount {
  /** Stays the same when the login changes; another account can then take the old login. */
  id: number;
  login: string;
}

/** The URL at which the person signs in. `state` and the verifier bind the callback to this browser and this server. */
export async function gitHubSignInURL(
  github: GitHubConfig,
  { state, verifier, redirectURI }: { state: string; verifier: string; redirectURI: string },
): Promise<string> {
  const url = new URL(`${github.url}/login/oauth/authorize`);
  url.search = new URLSearchParams({
    client_id: github.clientID,
    redirect_uri: redirectURI,
    state,
    // Membership of an organisation is private unless the member says otherwise.
    scope: github.org === undefined ? "" : "read:org",
    allow_signup: "false",
    code_challenge: await challengeOf(verifier),
    code_challenge_method: "S256",
  }).toString();
  return url.href;
}

/** Exchanges the code and asks whose it is. @throws {GitHubError} */
export async function gitHubAccount(
  github: GitHubConfig,
  { code, verifier, redirectURI }: { code: string; verifier: string; redirectURI: string },
): Promise<GitHubAccount & { token: string }> {
  const body = new URLSearchParams({
    client_id: github.clientID,
    client_secret: github.clientSecret,
    code,
    redirect_uri: redirectURI,
    code_verifier: verifier,
  });
  // GitHub reports errors with status 200, too. A token must fit into a header.
  const response = await ask(`${github.url}/login/oauth/access_token`, { method: "POST", body });
  const granted = await read(response, z.object({ access_token: z.string().regex(/^[\x21-\x7e]+$/) }));
  const user = await ask(`${github.apiURL}/user`, {}, granted.access_token);
  const account = await read(user, z.object({ id: z.int().positive(), login: z.string().min(1) }));
  return { ...account, token: granted.access_token };
}

/**
 * The rule of the configuration by which the account may sign in, or why there is none. A login on the list stands for the
 * account that first signed in with it, which `pinned` stores: GitHub gives a login away once it is free.
 * @throws {GitHubError}
 */
export async function gitHubRule(
  github: GitHubConfig,
  account: GitHubAccount & { token: string },
  pinned: Pick<KVNamespace, "get" | "put">,
): Promise<{ rule: string } | { refused: "not_allowed" | "login_reassigned" }> {
  const byID = `id:${account.id}`;
  if (github.users.has(byID)) return { rule: gitHubUserRule(byID) };
  const login = account.login.toLowerCase();
  let reassigned = false;
  // The list has `id:<number>` entries too.
  if (GITHUB_LOGIN.test(login) && github.users.has(login)) {
    const key = `github-login:${login}`;
    const owner = await pinned.get(key);
    if (owner === null) await pinned.put(key, String(account.id));
    if (owner === null || owner === String(account.id)) return { rule: gitHubUserRule(login) };
    reassigned = true;
  }
  if (github.org !== undefined && (await isMember(github, github.org, account.token))) {
    return { rule: gitHubOrgRule(github.org) };
  }
  return { refused: reassigned ? "login_reassigned" : "not_allowed" };
}

/** Whether the account is an active member. An invitation that was not accepted is a membership in state `pending`. */
async function isMember(github: GitHubConfig, org: string, token: string): Promise<boolean> {
  const response = await ask(`${github.apiURL}/user/memberships/orgs/${org}`, {}, token);
  // 403 also stands for an organisation that has not approved this OAuth app.
  if (response.status === 404 || response.status === 403) return false;
  return (await read(response, z.object({ state: z.string() }))).state === "active";
}

async function ask(url: string, init: RequestInit, token?: string): Promise<Response> {
  const headers = new Headers({
    accept: url.endsWith("/access_token") ? "application/json" : "application/vnd.github+json",
    // GitHub refuses requests without one.
    "user-agent": "sandbox-mcp",
  });
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  try {
    return await fetch(url, {
      ...init,
      headers,
      redirect: "manual",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new GitHubError("GitHub cannot be reached", { cause: error });
  }
}

async function read<T>(response: Response, schema: z.ZodType<T>): Promise<T> {
  const parsed = schema.safeParse(await response.json().catch(() => undefined));
  if (response.status === 200 && parsed.success) return parsed.data;
  throw new GitHubError(`GitHub answered ${response.status}, which is no use here`);
}
