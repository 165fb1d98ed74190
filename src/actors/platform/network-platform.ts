import type { OutboundPolicy } from "../../container/internet.ts";
import type { Refusal, SeenConnections } from "../../shared/connection-log.ts";

/** Set when the container starts, it makes the SDK's image trust the certificates with which HTTPS is intercepted. */
export const TRUST_INTERCEPTION = "SANDBOX_INTERCEPT_HTTPS";

/** The SDK's outbound handlers on Cloudflare, the engine's proxy locally. */
export interface NetworkPlatform {
  /** Connections that the platform cannot see under a policy. Shown above the list of connections. */
  readonly unseen?: string;
  /** Whether every container, from its start, trusts the certificates with which HTTPS is intercepted. */
  readonly isAlwaysTrusted?: boolean;
  prepareStart(): void;
  /** For new connections, now and in later containers. @returns false if the running container keeps forbidden connections */
  enforce(policy: OutboundPolicy): Promise<boolean>;
  connections(): Promise<SeenConnections[]>;
  forget(): void;
  /** @param time milliseconds since the epoch */
  refusalsSince(time: number): Promise<Refusal[]>;
}
