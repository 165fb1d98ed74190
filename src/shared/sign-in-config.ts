/** The variables of the sign-in methods other than the owner's token. */
import { z } from "zod";
import { baseURL, list, variable, webOrigin } from "./env-fields.ts";

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
const GITHUB_USER = /^(?:[a-z0-9][a-z0-9_-]{0,63}|id:[1-9][0-9]{0,18})$/;

export const signInVariables = {
  OAUTH_CLIENT_METADATA: variable(
    z
      .string()
      .toLowerCase()
      .pipe(z.enum(["on", "off"], "must be on or off")),
  ),
  GITHUB_CLIENT_ID: variable(z.string().regex(/^[\x21-\x7e]+$/, "must be visible ASCII characters")),
  GITHUB_CLIENT_SECRET: variable(z.string().regex(/^[\x21-\x7e]+$/, "must be visible ASCII characters")),
  GITHUB_ALLOWED_USERS: variable(
    list(z.string().toLowerCase().regex(GITHUB_USER, "must be a login or id:<number>")),
  ),
  GITHUB_ALLOWED_ORG: variable(
    z.string().toLowerCase().regex(GITHUB_LOGIN, "must be the login of an organisation"),
  ),
  GITHUB_URL: variable(z.string().transform(baseURL)),
  GITHUB_API_URL: variable(z.string().transform(baseURL)),
  ACCESS_TEAM_DOMAIN: variable(
    z
      .string()
      .transform((domain) => (domain.includes("://") ? domain : `https://${domain}`))
      .transform(webOrigin),
  ),
  ACCESS_AUDIENCE: variable(z.string().regex(/^[\x21-\x7e]+$/, "must be the application's audience tag")),
  ACCESS_CERTS_URL: variable(z.string().transform(baseURL)),
};

type Variables = { [name in keyof typeof signInVariables]?: z.output<(typeof signInVariables)[name]> };

/** The sign-in methods that are set up, and what is missing of those set up in part. One that lets everybody in is a mistake. */
export function signInOf(data: Variables) {
  const problems: string[] = [];
  const needs = (name: keyof Variables, other: keyof Variables) => {
    if (data[name] !== undefined && data[other] === undefined)
      problems.push(`${name} needs ${other} beside it.`);
  };
  needs("GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET");
  needs("GITHUB_CLIENT_SECRET", "GITHUB_CLIENT_ID");
  needs("GITHUB_ALLOWED_USERS", "GITHUB_CLIENT_ID");
  needs("GITHUB_ALLOWED_ORG", "GITHUB_CLIENT_ID");
  needs("ACCESS_TEAM_DOMAIN", "ACCESS_AUDIENCE");
  needs("ACCESS_AUDIENCE", "ACCESS_TEAM_DOMAIN");
  const { GITHUB_CLIENT_ID: clientID, GITHUB_CLIENT_SECRET: clientSecret, GITHUB_ALLOWED_ORG: org } = data;
  const users = new Set(data.GITHUB_ALLOWED_USERS);
  if (clientID !== undefined && users.size === 0 && org === undefined) {
    problems.push("GITHUB_CLIENT_ID needs GITHUB_ALLOWED_USERS or GITHUB_ALLOWED_ORG: who may sign in.");
  }
  const url = data.GITHUB_URL ?? "https://github.com";
  const apiURL = data.GITHUB_API_URL ?? "https://api.github.com";
  const { ACCESS_TEAM_DOMAIN: issuer, ACCESS_AUDIENCE: audience } = data;
  const certsURL = data.ACCESS_CERTS_URL ?? `${issuer}/cdn-cgi/access/certs`;
  return {
    github: clientID && clientSecret ? { clientID, clientSecret, users, org, url, apiURL } : undefined,
    access: issuer && audience ? { issuer, audience, certsURL } : undefined,
    problems,
  };
}
