/** Credentials of people for git hosts: which hosts and values are valid, and which requests get a credential. Pure functions. */
import type { NetworkLimits } from "./network-limits.ts";
import { allowsHost, canBeListed, canonicalHost, isAddress } from "./network-policy.ts";
import type { Secret } from "./secrets.ts";

export interface GitCredential {
  /** The user name of the basic authentication. Hosts that need only a token ignore it. */
  user: string;
  token: string;
}

/** The user name if none is given. GitHub accepts it, and hosts that need only a token ignore it. */
const TOKEN_USER = "x-access-token";

/** At least 16 characters: code in a sandbox could guess a shorter token, if a host echoes the guesses. See `secrets.ts`. */
const TOKEN = /^[\x21-\x7e]{16,1000}$/;
const USER = /^[\w.@+-]{1,100}$/;

export function gitCredential(user: string, token: string): GitCredential | undefined {
  const trimmed = { user: user.trim() || TOKEN_USER, token: token.trim() };
  return USER.test(trimmed.user) && TOKEN.test(trimmed.token) ? trimmed : undefined;
}

/** The canonical form of a host that somebody may sign in to; undefined if it is invalid or beyond the operator's limits. */
export function gitHost(text: string, { most }: Pick<NetworkLimits, "most">): string | undefined {
  const host = canonicalHost(text.trim());
  if (host === undefined || !canBeListed(host) || isAddress(host)) return undefined;
  // Names of this form lead to the server itself.
  if (host.endsWith(".internal") || !allowsHost(most, host)) return undefined;
  return host;
}

/** Whether a request belongs to git's smart HTTP protocol, over HTTPS at the standard port. */
export function isGitRequest({ method, url, headers }: Request): boolean {
  const { protocol, port, pathname, searchParams } = new URL(url);
  if (protocol !== "https:" || port !== "") return false;
  if (method === "GET" && pathname.endsWith("/info/refs"))
    return /^git-(?:upload|receive)-pack$/.test(searchParams.get("service") ?? "");
  // The path of another request may end like git's, for example the path of a file in the host's API.
  const [, service] = /\/(git-(?:upload|receive)-pack)$/.exec(pathname) ?? [];
  return (
    method === "POST" &&
    service !== undefined &&
    headers.get("content-type") === `application/x-${service}-request`
  );
}

export function asSecret(host: string, { user, token }: GitCredential): Secret {
  const place = { in: "basic", name: "authorization", template: `${user}:{value}` } as const;
  const forAll = { principals: undefined, variable: undefined };
  return { name: "git-sign-in", hosts: [host], place, value: token, ...forAll };
}

const REFUSED =
  /(?:could not read (?:Username|Password)|Authentication failed) for '(https:\/\/[^'\s]{1,1000})'/;

/** The host that refused git, according to git's message; undefined if it was not HTTPS at the standard port. */
export function refusedByHost(printed: string): string | undefined {
  const url = URL.parse(REFUSED.exec(printed)?.[1] ?? "");
  return url?.port === "" ? url.hostname : undefined;
}
