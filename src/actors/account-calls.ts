/** Types for the calls between a sandbox's actor and its principal's account. Times are milliseconds since the epoch. */
import type { Stored } from "../runs/run-store.ts";
import type { Outcome } from "../shared/errors.ts";
import type { Region, Scope } from "../shared/principal.ts";
import type { NetworkChoice } from "./network.ts";
import type { Settlement } from "./quota.ts";
import type { Checkpoint } from "./saved-states.ts";

export interface Preview {
  port: number;
  token: string;
  expiresAt: number;
}

/** Every call carries these facts, because a newly started actor does not know them. */
export interface Owner {
  principalID: string;
  sandbox: string;
  /** Where to create an actor that does not exist yet; the platform chooses if undefined. An actor never moves. */
  region?: Region;
  /** If false, no start. `ifKnown` (reading, deleting files) starts only used or configured sandboxes: a new one has no files. */
  mayStart?: boolean | "ifKnown";
  scopes?: readonly Scope[];
  /** In milliseconds; the server's maximum if undefined. */
  callerWaitMs?: number;
  /** If false, the next result has the notices. */
  takesNotice?: boolean;
}

/** What to destroy: only the container, the saved workspace too, or also the checkpoints. */
export type Ending = "container" | "workspace" | "checkpoints";

export interface Destroyed {
  wasKnown: boolean;
  wasSaved: boolean;
  isKept: boolean;
  /** How many were deleted if the `Ending` is `checkpoints`; otherwise how many stay. */
  checkpoints: number;
}

export interface SetUpSettings {
  script: string;
  /** The key of the set-up outcome that the sandbox's files contain. Stored data uses this name. */
  had?: string | undefined;
}

export interface CheckpointSettings {
  env: Record<string, string>;
  network: NetworkChoice;
  setup: SetUpSettings | undefined;
  /** Undefined if not set, or in a checkpoint of an earlier version. */
  idleMinutes?: number | undefined;
  start?: string | undefined;
}

export interface RestoredCheckpoint {
  to: Checkpoint;
  before?: Checkpoint | undefined;
  /** Why the previous state could not be saved, as a clause. Then `before` is the last saved state. */
  unsaved?: string | undefined;
  settings?: CheckpointSettings | undefined;
}

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
