/**
 * The rules of the configuration by which people may sign in. A grant names the rule that allowed it and is checked
 * against the configuration at every use of its tokens, so it ends with its rule: when a login is taken off the list, for
 * example, or the server's token is changed.
 */
import type { Config } from "../shared/config.ts";
import { ownerTokens } from "../shared/owner-tokens.ts";
import { sha256 } from "../shared/sha256.ts";

/** The rule of whoever knows the server's token. It names that token by a digest which is good for nothing else. */
export async function ownerRule(serverAuthToken: string): Promise<string> {
  // The prefix is part of the rule in stored grants, so it never changes.
  const digest = await sha256(`sandbox-mcp owner's door\n${serverAuthToken}`);
  return `owner:${digest.subarray(0, 16).toHex()}`;
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

/** Whether the configuration still has `rule`. */
export async function isRuleInForce(config: Config, rule: string): Promise<boolean> {
  const { github, access } = config;
  const rules = await Promise.all(ownerTokens(config).map(ownerRule));
  if (github) rules.push(...Array.from(github.users, gitHubUserRule));
  if (github?.org !== undefined) rules.push(gitHubOrgRule(github.org));
  if (access) rules.push(accessRule(access));
  return rules.includes(rule);
}
