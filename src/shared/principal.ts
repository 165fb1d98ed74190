/** Who is calling and what they may do. A static token and an OAuth token both end in a `Principal`; nothing behind it asks which it was. */

/** All scopes. The tools name those that they need. */
export const SCOPES = ["sandbox:read", "sandbox:write", "sandbox:exec", "tasks:run"] as const;

export type Scope = (typeof SCOPES)[number];

/** Where a sandbox's actor can be made: the location hints of Cloudflare's Durable Objects. */
export const REGIONS = ["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"] as const;

export type Region = (typeof REGIONS)[number];

export interface Principal {
  /** `owner`, `token:<name>`, or `<sign-in method>:<id>` such as `github:583231`. Survives the rotation of its token. */
  id: string;
  scopes: readonly Scope[];
  /** Where their sandboxes are made unless they say otherwise; DEFAULT_REGION where undefined. */
  region?: Region | undefined;
  /**
   * `token`, `previous_token` (one that a rotation has replaced), or the name of the sign-in method. For the log only: no decision
   * depends on it.
   */
  via: string;
  /** The id of the OAuth client that acts for them, for the logs only; absent for a static token. */
  client?: string;
}

/** The principal behind the server's own token and the owner's sign-in: one person, one set of sandboxes. */
export const OWNER_ID = "owner";

/** The name of a static token. It is part of the principal id, which therefore survives a change of the token. */
export const TOKEN_NAME = /^[a-z0-9-]{1,32}$/;

/** The principal id of the static token called `name`; the prefix keeps it apart from every other kind. */
export function tokenPrincipalID(name: string): string {
  return `token:${name}`;
}

/** The scopes among `names`, in the order of `SCOPES` and without repetition; anything else is left out. */
export function knownScopes(names: readonly string[]): Scope[] {
  return SCOPES.filter((scope) => names.includes(scope));
}

/** The scopes of `needed` that `principal` was not granted, in the order of `SCOPES` and without repetition. */
export function missingScopes(principal: Principal, needed: Iterable<Scope>): Scope[] {
  const wanted = new Set(needed);
  return SCOPES.filter((scope) => wanted.has(scope) && !principal.scopes.includes(scope));
}
