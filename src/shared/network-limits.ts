/** What the operator lets the sandboxes of one principal reach, and what they reach when they say nothing. */
import type { Config } from "./config.ts";
import { type Internet, type NetworkPolicy, narrowed } from "./network-policy.ts";
import { tokenPrincipalID } from "./principal.ts";

export interface NetworkLimits {
  /** The most that may be chosen. */
  most: NetworkPolicy;
  /** The policy of a sandbox for which none was set. */
  initial: NetworkPolicy;
}

/** What holds of what was chosen; what was left out of it is the operator's. Limits that were lowered after a choice narrow it. */
export function policyOf(
  choice: { internet?: Internet | undefined; allowHosts?: readonly string[] | undefined },
  { most, initial }: NetworkLimits,
): NetworkPolicy {
  const { internet = initial.internet, allowHosts = initial.allowHosts } = choice;
  return narrowed({ internet, allowHosts }, most);
}

/** The limits of a principal: those for all, narrowed by the entry of its token. A principal without an id has those for all. */
export function networkLimits(
  { network, authTokens }: Pick<Config, "network" | "authTokens">,
  principalID: string | undefined,
): NetworkLimits {
  const token = authTokens.find(({ name }) => tokenPrincipalID(name) === principalID);
  const allowHosts = token?.allowHosts ?? network.allowHosts;
  // A list alone is meant as a limit.
  const internet = token?.internet ?? (token?.allowHosts === undefined ? "full" : "allowlist");
  const most = narrowed({ internet, allowHosts }, { internet: network.max, allowHosts: network.allowHosts });
  return { most, initial: narrowed({ internet: network.initial ?? "full", allowHosts }, most) };
}
