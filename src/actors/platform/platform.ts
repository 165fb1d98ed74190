/** What the actor needs of a platform. Only this folder knows the Cloudflare Sandbox SDK. */
import type { OutboundPolicy } from "../../container/internet.ts";
import type { RefusedConnections, SeenConnections } from "../../shared/connection-log.ts";

/** The container of one actor. */
export interface ContainerPlatform {
  /** Whether a container runs. Known in the actor's constructor; becomes false by itself when the container dies. */
  readonly isRunning: boolean;
  /**
   * Starts the container. Resolves when it accepts connections.
   * @param env variables of its first process
   * @throws {ToolError} `sandbox_unavailable`; `sandbox_restarted` if the container was ended meanwhile; unexpected SDK errors
   */
  start(env: Readonly<Record<string, string>>): Promise<void>;
  /** Ends the container. Resolves when no container runs or starts, and no late event can disturb the next one. */
  end(): Promise<void>;
  fetch(port: number, request: Request): Promise<Response>;
  /** Sets the listener that is called when a container has ended. The call may come late. */
  onEnd(listener: () => void): void;
  /** Sets the idle time, and what happens after it. */
  onIdle(idle: Idle): void;
  noteUse(): void;
}

export interface Idle {
  leftMs(): number;
  onIdleTimeout(): Promise<void>;
}

/** If this variable is set when the container starts, the SDK's image trusts the certificates with which HTTPS is intercepted. */
export const TRUST_INTERCEPTION = "SANDBOX_INTERCEPT_HTTPS";

/** In place of a host: the requests to all hosts that are not intercepted by name. */
export const ALL_HOSTS = "*";

/** Enforces network policies: by the SDK's outbound handlers on Cloudflare, by the engine's proxy locally. */
export interface NetworkPlatform {
  /** Names the connections that the platform cannot see under a policy. Shown above the list of connections. */
  readonly unseen?: string;
  /** The most hosts whose requests a container intercepts by name; undefined if there is no limit. */
  readonly maxHosts?: number;
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
  refusalsSince(time: number): Promise<RefusedConnections[]>;
}
