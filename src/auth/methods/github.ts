/** Sign-in with GitHub's web application flow. GitHub's token is used once, to ask who somebody is, and is not kept. */
import { z } from "zod";
import type { Config } from "../../shared/config.ts";
import { logError } from "../../shared/log.ts";
import { markup, plain } from "../html.ts";
import { challengeOf } from "../pkce.ts";
import { guarded } from "../oauth-store.ts";
import type { SignInRedirect, RedirectMethod } from "./method.ts";

/** In lower case. Logins of managed users contain an underscore. */
const LOGIN = /^[a-z0-9][a-z0-9_-]{0,63}$/;

interface Settings {
  clientID: string;
  clientSecret: string;
  /** Who may sign in: logins in lower case, and `id:<number>` for an account whatever its login. */
  users: ReadonlySet<string>;
  /** An organisation whose active members may sign in, in lower case. */
  org: string | undefined;
  /** Where people sign in, and where the API is; without a trailing slash. */
  url: string;
  apiURL: string;
}

function settingsOf({ values }: Config): Settings | undefined {
  const { GITHUB_CLIENT_ID: clientID, GITHUB_CLIENT_SECRET: clientSecret } = values;
  if (clientID === undefined || clientSecret === undefined) return undefined;
  const { GITHUB_ALLOWED_ORG: org, GITHUB_URL: url, GITHUB_API_URL: apiURL } = values;
  return { clientID, clientSecret, users: new Set(values.GITHUB_ALLOWED_USERS), org, url, apiURL };
}

export const github: RedirectMethod = {
  name: "github",
  title: "GitHub",
  variable: "GITHUB_CLIENT_ID",
  isOn: ({ config }) => settingsOf(config) !== undefined,
  rules: (config) => {
    const { users = new Set<string>(), org } = settingsOf(config) ?? {};
    return [...Array.from(users, userRule), ...(org === undefined ? [] : [orgRule(org)])];
  },
  offer: async (_request, { config }) => ({
    origin: new URL(config.values.GITHUB_URL).origin,
    show: ({ isPanel }) =>
      markup`<button name="decision" value="github" formnovalidate>${isPanel ? "Sign in" : "Approve and sign in"} with GitHub</button>`,
  }),
  async signInURL(config, { state, verifier, redirectURI }) {
    const { url: origin, clientID, org } = required(config);
    const url = new URL(`${origin}/login/oauth/authorize`);
    url.search = new URLSearchParams({
      client_id: clientID,
      redirect_uri: redirectURI,
      state,
      // Membership of an organisation is private unless the member says otherwise.
      scope: org === undefined ? "" : "read:org",
      allow_signup: "false",
      code_challenge: await challengeOf(verifier),
      code_challenge_method: "S256",
    }).toString();
    return url.href;
  },
  async identify(code, passage, context) {
    const { config, env, requestID } = context;
    try {
      const settings = required(config);
      const account = await accountOf(settings, code, passage);
      if (!env.OAUTH_KV) throw new GitHubError("There is nowhere to keep who a login belongs to");
      const verdict = await ruleOf(settings, account, guarded(env.OAUTH_KV));
      if ("rule" in verdict) return { principal: `github:${account.id}`, rule: verdict.rule };
      const message = `You are signed in to GitHub as ${plain(account.login)}. This account may not use the server. Ask the server's owner for access.`;
      return { refused: verdict.refused, title: "You may not use this server", message, status: 403 };
    } catch (error) {
      if (!(error instanceof GitHubError)) throw error;
      logError(context, "github", error);
      const message = `GitHub did not identify you. Start again from your app (ref ${requestID}).`;
      return { refused: "github_failed", title: "GitHub did not answer", message, status: 502 };
    }
  },
};

function required(config: Config): Settings {
  const settings = settingsOf(config);
  if (!settings) throw new GitHubError("GitHub is not set up");
  return settings;
}

/** The rule of an entry of `GITHUB_ALLOWED_USERS`, which a login and an `id:` share without meeting. */
function userRule(entry: string): string {
  return `github:user:${entry}`;
}

function orgRule(org: string): string {
  return `github:org:${org}`;
}

/** For each request to GitHub. */
const TIMEOUT_MS = 10_000;

/** GitHub did not answer, or its answer cannot be used. */
class GitHubError extends Error {
  override readonly name = "GitHubError";
}

interface Account {
  /** Stays the same when the login changes; another account can then take the old login. */
  id: number;
  login: string;
}

/** Exchanges the code and asks whose it is. @throws {GitHubError} */
async function accountOf(
  settings: Settings,
  code: string,
  { verifier, redirectURI }: SignInRedirect,
): Promise<Account & { token: string }> {
  const body = new URLSearchParams({
    client_id: settings.clientID,
    client_secret: settings.clientSecret,
    code,
    redirect_uri: redirectURI,
    code_verifier: verifier,
  });
  // GitHub reports errors with status 200, too. A token must fit into a header.
  const response = await fetchGitHub(`${settings.url}/login/oauth/access_token`, { method: "POST", body });
  const granted = await read(response, z.object({ access_token: z.string().regex(/^[\x21-\x7e]+$/) }));
  const user = await fetchGitHub(`${settings.apiURL}/user`, {}, granted.access_token);
  const account = await read(user, z.object({ id: z.int().positive(), login: z.string().min(1) }));
  return { ...account, token: granted.access_token };
}

/**
 * The rule of the configuration by which the account may sign in, or why there is none. A login on the list stands for the
 * account that first signed in with it, which `pinned` stores: GitHub gives a login away once it is free.
 * @throws {GitHubError}
 */
async function ruleOf(
  settings: Settings,
  account: Account & { token: string },
  pinned: Pick<KVNamespace, "get" | "put">,
): Promise<{ rule: string } | { refused: "not_allowed" | "login_reassigned" }> {
  const byID = `id:${account.id}`;
  if (settings.users.has(byID)) return { rule: userRule(byID) };
  const login = account.login.toLowerCase();
  let reassigned = false;
  // The list has `id:<number>` entries too.
  if (LOGIN.test(login) && settings.users.has(login)) {
    const key = `github-login:${login}`;
    const owner = await pinned.get(key);
    if (owner === null) await pinned.put(key, String(account.id));
    if (owner === null || owner === String(account.id)) return { rule: userRule(login) };
    reassigned = true;
  }
  if (settings.org !== undefined && (await isMember(settings, settings.org, account.token))) {
    return { rule: orgRule(settings.org) };
  }
  return { refused: reassigned ? "login_reassigned" : "not_allowed" };
}

/** Whether the account is an active member. An invitation that was not accepted is a membership in state `pending`. */
async function isMember(settings: Settings, org: string, token: string): Promise<boolean> {
  const response = await fetchGitHub(`${settings.apiURL}/user/memberships/orgs/${org}`, {}, token);
  // 403 also stands for an organisation that has not approved this OAuth app.
  if (response.status === 404 || response.status === 403) return false;
  return (await read(response, z.object({ state: z.string() }))).state === "active";
}

async function fetchGitHub(url: string, init: RequestInit, token?: string): Promise<Response> {
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
