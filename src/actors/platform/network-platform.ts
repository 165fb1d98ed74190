import type { OutboundPolicy } from "../../container/internet.ts";
import type { Refusal, SeenConnections } from "../../shared/connection-log.ts";

/** The variable by which the SDK's image trusts the certificates of the interception from its start on. */
export const TRUST_INTERCEPTION = "SANDBOX_INTERCEPT_HTTPS";

/** What enforces policies: the SDK's outbound handlers on Cloudflare, the engine's proxy locally. */
export interface NetworkPlatform {
  /** What it never tells of under a policy, for the head of the list. */
  readonly unseen?: string;
  /** None runs, and a container is about to start, with what is enforced from now on. */
  starting(): void;
  /**
   * Enforces a policy for connections made from now on, and in the containers that start later.
   * @returns false where the running container keeps connections that the policy forbids until it ends
   */
  enforce(policy: OutboundPolicy): Promise<boolean>;
  /** What the last container that ended has connected to, and the one that runs, as far as they are known. */
  connections(): Promise<SeenConnections[]>;
  /** Drops what was seen. */
  forget(): void;
  /** @param time milliseconds since the epoch */
  refusalsSince(time: number): Promise<Refusal[]>;
}
