/** Sign-in with GitHub's web application flow. GitHub's token is used once to identify the person, and not stored. */
import * as z from "zod";
import type { MethodStore } from "../oauth-store.ts";
import { parseJSON } from "../../shared/bounded.ts";
import { base64url } from "../../shared/link-token.ts";
import { sha256 } from "../../shared/sha256.ts";
import {
  type MethodConfig,
  type RedirectMethod,
  type Rule,
  type SignInRedirect,
  SiteError,
  fetchSite,
} from "./method.ts";

const NAME = "github";

/** A login in lower case. Logins of managed users contain an underscore. */
const LOGIN = /^[a-z0-9][a-z0-9_-]{0,63}$/;

interface Settings {
  clientID: string;
  clientSecret: string;
  /** Who may sign in: lower-case logins, and `id:<number>` for an account regardless of its login. */
  users: ReadonlySet<string>;
  org: string | undefined;
  url: string;
  apiURL: string;
}

function settingsOf({ values }: MethodConfig<typeof NAME>): Settings | undefined {
  const { GITHUB_CLIENT_ID: clientID, GITHUB_CLIENT_SECRET: clientSecret } = values;
  if (clientID === undefined || clientSecret === undefined) return undefined;
  const { GITHUB_ALLOWED_ORG: org, GITHUB_URL: url, GITHUB_API_URL: apiURL } = values;
  return { clientID, clientSecret, users: new Set(values.GITHUB_ALLOWED_USERS), org, url, apiURL };
}

export const github: RedirectMethod<typeof NAME> = {
  name: NAME,
  title: "GitHub",
  variable: "GITHUB_CLIENT_ID",
  isOn: ({ config }) => settingsOf(config) !== undefined,
  rules: (config) => {
    const { users = new Set<string>(), org } = settingsOf(config) ?? {};
    return [...Array.from(users, userRule), ...(org === undefined ? [] : [orgRule(org)])];
  },
  origin: ({ values }) => new URL(values.GITHUB_URL).origin,
  async signInURL(config, { state, verifier, redirectURI }) {
    const { url: origin, clientID, org } = requireSettings(config);
    const url = new URL(`${origin}/login/oauth/authorize`);
    url.search = new URLSearchParams({
      client_id: clientID,
      redirect_uri: redirectURI,
      state,
      // Membership is private by default, so reading it needs a scope.
      scope: org === undefined ? "" : "read:org",
      allow_signup: "false",
      code_challenge: base64url(await sha256(verifier)),
      code_challenge_method: "S256",
    }).toString();
    return url.href;
  },
  async identify(code, redirect, config, store) {
    const settings = requireSettings(config);
    const account = await accountOf(settings, code, redirect);
    const verdict = await ruleOf(settings, account, store);
    if ("rule" in verdict) return { principal: `${NAME}:${account.id}`, rule: verdict.rule };
    return { refused: verdict.refused, login: account.login };
  },
};

function requireSettings(config: MethodConfig<typeof NAME>): Settings {
  const settings = settingsOf(config);
  if (!settings) throw new SiteError("GitHub is not set up");
  return settings;
}

/** The rule for an entry of `GITHUB_ALLOWED_USERS`: a login or `id:<number>`. They always differ: no login has a colon. */
function userRule(entry: string): Rule<typeof NAME> {
  return `${NAME}:user:${entry}`;
}

function orgRule(org: string): Rule<typeof NAME> {
  return `${NAME}:org:${org}`;
}

interface Account {
  /** Unlike the login, the id never changes. Another account may take over a login that is free again. */
  id: number;
  login: string;
}

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
  // GitHub reports errors with status 200 too. A token must fit into a header.
  const response = await fetchGitHub(`${settings.url}/login/oauth/access_token`, { method: "POST", body });
  const granted = await read(response, z.object({ access_token: z.string().regex(/^[\x21-\x7e]+$/) }));
  const user = await fetchGitHub(`${settings.apiURL}/user`, {}, granted.access_token);
  const account = await read(user, z.object({ id: z.int().positive(), login: z.string().min(1) }));
  return { ...account, token: granted.access_token };
}

/**
 * The configuration rule that lets the account sign in, or the reason for refusing it. A listed login belongs to the account
 * that first used it, because GitHub reassigns free logins. `store` keeps that account.
 * @throws {SiteError}
 */
async function ruleOf(
  settings: Settings,
  account: Account & { token: string },
  store: MethodStore<typeof NAME>,
): Promise<{ rule: Rule<typeof NAME> } | { refused: "not_allowed" | "login_reassigned" }> {
  const byID = `id:${account.id}`;
  if (settings.users.has(byID)) return { rule: userRule(byID) };
  const login = account.login.toLowerCase();
  let isReassigned = false;
  // The list also has `id:<number>` entries, which no login may match.
  if (LOGIN.test(login) && settings.users.has(login)) {
    const owner = await store.get("github-login", login);
    if (owner === null) await store.put("github-login", login, String(account.id));
    if (owner === null || owner === String(account.id)) return { rule: userRule(login) };
    isReassigned = true;
  }
  if (settings.org !== undefined && (await isMember(settings, settings.org, account.token)))
    return { rule: orgRule(settings.org) };
  return { refused: isReassigned ? "login_reassigned" : "not_allowed" };
}

/** Open invitations have the state `pending`. */
async function isMember(settings: Settings, org: string, token: string): Promise<boolean> {
  const response = await fetchGitHub(`${settings.apiURL}/user/memberships/orgs/${org}`, {}, token);
  // 403 can also mean that the organization has not approved this OAuth app.
  if (response.status === 404 || response.status === 403) return false;
  return (await read(response, z.object({ state: z.string() }))).state === "active";
}

async function fetchGitHub(url: string, init: RequestInit, token?: string): Promise<Response> {
  const headers = new Headers({
    accept: url.endsWith("/access_token") ? "application/json" : "application/vnd.github+json",
    // GitHub requires a user agent.
    "user-agent": "sandbox-mcp",
  });
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  return await fetchSite("GitHub", url, { ...init, headers });
}

async function read<T>(response: Response, schema: z.ZodType<T>): Promise<T> {
  const parsed = schema.safeParse(parseJSON(await response.text().catch(() => "")));
  if (response.status === 200 && parsed.success) return parsed.data;
  throw new SiteError(`GitHub responded with the unexpected status ${response.status}`);
}
