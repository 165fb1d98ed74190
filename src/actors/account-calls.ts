/** Types for the calls between a sandbox's actor and its principal's account. Times are milliseconds since the epoch. */
import type { Stored } from "../runs/run-store.ts";
import type { Outcome } from "../shared/errors.ts";
import type { Region, Scope } from "../shared/principal.ts";
import type { NetworkChoice } from "./network.ts";
import type { Settlement } from "./quota.ts";
import type { Checkpoint } from "./saved-states.ts";
import type { SetUpSettings } from "./set-up-settings.ts";

export interface Preview {
  port: number;
  token: string;
  expiresAt: number;
}

/**
 * The sandbox of a call, its principal, and the call's permissions. Every call carries all of them, because a newly started actor
 * does not know them.
 */
export interface Owner {
  principalID: string;
  sandbox: string;
  /** The region for an actor that does not exist yet. An actor never moves. If undefined, the platform chooses. */
  region?: Region;
  /**
   * False if the call must not start a container: its caller may only read, or the call is about the previous container.
   * `ifKnown` is for reading and deleting files. It starts only a sandbox that was used or configured before, because a new
   * sandbox has no files.
   */
  mayStart?: boolean | "ifKnown";
  /** The caller's scopes; undefined counts as none. */
  scopes?: readonly Scope[];
  /** How long the caller waits, in milliseconds; the server's maximum if undefined. */
  callerWaitMs?: number;
  /** Whether the call is a request by link, which needs no token. */
  isByLink?: boolean;
  /** False if the caller's result has no place for notices. The next result then has them. */
  takesNotice?: boolean;
}

/**
 * What the account knew about a sandbox before a call registered it. `kept`: only a saved state or settings, for example because
 * the sandbox was not used for long. `nothing`: if its actor has settings, they are of a fork or a destruction that was interrupted.
 */
export type EarlierState = "nothing" | "kept" | "stopped";

/** What to destroy: only the container, the saved workspace too, or also the checkpoints. */
export type DestroyExtent = "container" | "workspace" | "checkpoints";

export interface Destroyed {
  wasKnown: boolean;
  wasSaved: boolean;
  /** Whether the saved workspace, if there is one, and the settings stay. */
  isKept: boolean;
  /** The number of deleted checkpoints if the extent is `checkpoints`; otherwise the number of checkpoints that stay. */
  checkpoints: number;
}

export interface CheckpointSettings {
  env: Record<string, string>;
  network: NetworkChoice;
  setup: SetUpSettings | undefined;
  /** Undefined if not set. */
  idleMinutes?: number | undefined;
  start?: string | undefined;
}

export interface RestoredCheckpoint {
  to: Checkpoint;
  before?: Checkpoint | undefined;
  /** The ids of older checkpoints of restores, also of other sandboxes, that were deleted for `before`. */
  deleted?: readonly string[];
  /** Why the previous state could not be saved completely, as a clause. If set, `before` is the last saved state. */
  unsaved?: string | undefined;
  settings?: CheckpointSettings | undefined;
}

/** The part of a listed sandbox that only the sandbox's actor knows. */
export interface SandboxStatus {
  isAlive: boolean;
  previews: Preview[];
}

export interface ManagedSandbox extends Rpc.DurableObjectBranded {
  condition(): SandboxStatus;
  settleLease(): Settlement;
  stopIfIdle(owner: Owner, waitMs: number): Promise<boolean>;
  destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean>;
  evictRuns(bytes: number, before: number): Promise<Stored>;
  gitHostsChanged(hosts: string[]): Promise<void>;
  inherit(owner: Owner, settings: CheckpointSettings): Promise<Outcome<void>>;
}
