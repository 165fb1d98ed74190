/** Who is calling, and what they may do. Static and OAuth tokens both become a `Principal`. */

export const SCOPES = ["sandbox:read", "sandbox:write", "sandbox:exec", "tasks:run"] as const;

export type Scope = (typeof SCOPES)[number];

/** Where a sandbox's actor can be created: the location hints of Cloudflare's Durable Objects. */
export const REGIONS = ["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"] as const;

export type Region = (typeof REGIONS)[number];

export interface Principal {
  /** `owner`, `token:<name>`, or `<sign-in method>:<id>` such as `github:583231`. A rotation does not change the id. */
  id: string;
  scopes: readonly Scope[];
  region?: Region | undefined;
  /** How the caller signed in, for the log: `token`, `previous_token` (replaced by a rotation), or the sign-in method's name. */
  via: string;
  /** The id of the OAuth client, for the log and to recognize the panel; undefined for a static token. */
  client?: string;
}

/** The principal of the server's own token and the owner's sign-in: one person, one set of sandboxes. */
export const OWNER_ID = "owner";

export const TOKEN_NAME = /^[a-z0-9-]{1,32}$/;

/** The forms of principals' ids: `token` for static tokens, the others by the name of their sign-in method. */
export const PRINCIPAL_IDS = {
  owner: { form: "owner", pattern: /^owner$/ },
  token: { form: "token:<name>", pattern: /^token:[a-z0-9-]{1,32}$/ },
  github: { form: "github:<number>", pattern: /^github:\d+$/ },
  access: { form: "access:<subject>", pattern: /^access:.+$/ },
};

export type SignInName = Exclude<keyof typeof PRINCIPAL_IDS, "token">;

/** The rows of the sign-in methods in docs/internals/security.md, in Markdown. */
export const SIGN_IN_DOCS: Record<SignInName, { title: string; offeredWhen: string; who: string }> = {
  owner: {
    title: "the owner's token, typed in",
    offeredWhen: "`SERVER_AUTH_TOKEN` is set",
    who: "everybody who has the token",
  },
  github: {
    title: "GitHub",
    offeredWhen:
      "`GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET` of an OAuth app are set; its callback URL is `<PUBLIC_ORIGIN>/authorize/github`",
    who: "`GITHUB_ALLOWED_USERS` (logins, or `id:<number>`) and the active members of `GITHUB_ALLOWED_ORG`; one of the two must be set",
  },
  access: {
    title: "Cloudflare Access",
    offeredWhen:
      "`ACCESS_TEAM_DOMAIN` and `ACCESS_AUDIENCE` of an Access application for the path `/authorize` are set",
    who: "people whom the application's policies allow",
  },
};

export function tokenPrincipalID(name: string): string {
  return `token:${name}`;
}

export function knownScopes(names: readonly string[]): Scope[] {
  return SCOPES.filter((scope) => names.includes(scope));
}

export function missingScopes(principal: Principal, needed: Iterable<Scope>): Scope[] {
  const neededScopes = new Set(needed);
  return SCOPES.filter((scope) => neededScopes.has(scope) && !principal.scopes.includes(scope));
}
