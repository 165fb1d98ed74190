/**
 * By what rule somebody was let in. The rule is kept in the grant and checked at every use of its tokens, so a grant
 * lives no longer than the rule: taking a login off the list, or changing the server's token, ends what it let in.
 */
import type { Config } from "../shared/config.ts";

/** The rule of the owner's door. It names the token it was opened with, by a digest that is good for nothing else. */
export async function ownerRule(serverAuthToken: string): Promise<string> {
  const text = new TextEncoder().encode(`sandbox-mcp owner's door\n${serverAuthToken}`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  return `owner:${Array.from(digest.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The rule of an entry of `GITHUB_ALLOWED_USERS`, which a login and an `id:` share without meeting. */
export function gitHubUserRule(entry: string): string {
  return `github:user:${entry}`;
}

export function gitHubOrgRule(org: string): string {
  return `github:org:${org}`;
}

export function accessRule({ issuer, audience }: { issuer: string; audience: string }): string {
  return `access:${issuer} ${audience}`;
}

/** Whether `rule` still lets anybody in. */
export async function stillAdmits(config: Config, rule: string): Promise<boolean> {
  const { serverAuthToken, github, access } = config;
  const rules: string[] = [];
  if (serverAuthToken !== undefined) rules.push(await ownerRule(serverAuthToken));
  if (github) rules.push(...Array.from(github.users, gitHubUserRule));
  if (github?.org !== undefined) rules.push(gitHubOrgRule(github.org));
  if (access) rules.push(accessRule(access));
  return rules.includes(rule);
}
