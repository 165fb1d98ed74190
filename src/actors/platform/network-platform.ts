import type { OutboundPolicy } from "../../container/internet.ts";
import type { Refusal, SeenConnections } from "../../shared/connection-log.ts";

/** If this variable is set when the container starts, the SDK's image trusts the certificates with which HTTPS is intercepted. */
export const TRUST_INTERCEPTION = "SANDBOX_INTERCEPT_HTTPS";

/** Enforces network policies: by the SDK's outbound handlers on Cloudflare, by the engine's proxy locally. */
export interface NetworkPlatform {
  /** Names the connections that the platform cannot see under a policy. Shown above the list of connections. */
  readonly unseen?: string;
  /** Whether every container, from its start, trusts the certificates with which HTTPS is intercepted. */
  readonly isAlwaysTrusted?: boolean;
  /** Called when no container runs and one is about to start. */
  prepareStart(): void;
  /**
   * Applies the policy to new connections, now and in later containers. @returns false if the running container keeps
   * forbidden connections
   */
  enforce(policy: OutboundPolicy): Promise<boolean>;
  connections(): Promise<SeenConnections[]>;
  forget(): void;
  /** @param time milliseconds since the epoch */
  refusalsSince(time: number): Promise<Refusal[]>;
}
