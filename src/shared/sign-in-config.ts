/** What the variables say of the sign-in methods other than the owner's token. */
import type { Values } from "./variables.ts";

/** Signing in with GitHub. */
export interface GitHubConfig {
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

/** Signing in with Cloudflare Access, which stands before `/authorize` and vouches for people by a signed header. */
export interface AccessConfig {
  /** The team's origin, which is the issuer of its assertions. */
  issuer: string;
  /** The application's audience tag. */
  audience: string;
  certsURL: string;
}

/** In lower case. Logins of managed users contain an underscore. */
export const GITHUB_LOGIN = /^[a-z0-9][a-z0-9_-]{0,63}$/;

export function gitHubOf(values: Values): GitHubConfig | undefined {
  const { GITHUB_CLIENT_ID: clientID, GITHUB_CLIENT_SECRET: clientSecret } = values;
  if (clientID === undefined || clientSecret === undefined) return undefined;
  const users = new Set(values.GITHUB_ALLOWED_USERS);
  const { GITHUB_ALLOWED_ORG: org, GITHUB_URL: url, GITHUB_API_URL: apiURL } = values;
  return { clientID, clientSecret, users, org, url, apiURL };
}

export function accessOf(values: Values): AccessConfig | undefined {
  const { ACCESS_TEAM_DOMAIN: issuer, ACCESS_AUDIENCE: audience } = values;
  if (issuer === undefined || audience === undefined) return undefined;
  return { issuer, audience, certsURL: values.ACCESS_CERTS_URL ?? `${issuer}/cdn-cgi/access/certs` };
}
