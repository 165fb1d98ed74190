/** The operator's network limits and defaults for a principal's sandboxes. */
import type { Config } from "./config.ts";
import { type Internet, type NetworkPolicy, narrow } from "./network-policy.ts";
import { tokenPrincipalID } from "./principal.ts";

export interface NetworkLimits {
  /** The least restrictive allowed policy. */
  most: NetworkPolicy;
  initial: NetworkPolicy;
}

/**
 * The effective policy for a choice. Omitted parts are the operator's defaults. If the operator lowers a limit later, the new
 * limit restricts the choice.
 */
export function policyOf(
  choice: { internet?: Internet | undefined; allowHosts?: readonly string[] | undefined },
  { most, initial }: NetworkLimits,
): NetworkPolicy {
  const { internet = initial.internet, allowHosts = initial.allowHosts } = choice;
  return narrow({ internet, allowHosts }, most);
}

/** A principal's limits: the general ones, restricted by the entry of its token. */
export function networkLimits(
  { network, authTokens }: Pick<Config, "network" | "authTokens">,
  principalID: string | undefined,
): NetworkLimits {
  const token = authTokens.find(({ name }) => tokenPrincipalID(name) === principalID);
  const allowHosts = token?.allowHosts ?? network.allowHosts;
  // A token with `allow_hosts` but without `internet` reaches only these hosts.
  const internet = token?.internet ?? (token?.allowHosts === undefined ? "full" : "allowlist");
  const most = narrow({ internet, allowHosts }, { internet: network.max, allowHosts: network.allowHosts });
  return { most, initial: narrow({ internet: network.initial ?? "full", allowHosts }, most) };
}
