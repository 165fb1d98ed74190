/** What a sandbox's actor and its principal's account ask of one another. */
import type { Stored } from "../runs/run-store.ts";
import type { Outcome } from "../shared/errors.ts";
import type { Region, Scope } from "../shared/principal.ts";
import type { NetworkChoice } from "./network.ts";
import type { Preview } from "./previews.ts";
import type { Settlement } from "./quota.ts";
import type { Checkpoint } from "./snapshot-registry.ts";

/** Whose sandbox this is. The actor's name holds both as a hash; these are the plain values, to show and to register. */
export interface Owner {
  principalID: string;
  /** The sandbox's name as the principal knows it. */
  sandbox: string;
  /** Where its actor is to be made, if it is not yet: it stays where it was made. Undefined for the platform's choice. */
  region?: Region;
  /**
   * False where the caller may only read, or the container that ran is meant: none is started. `again` where files are only read or
   * removed: a sandbox that was used before is started, since its workspace comes back, and no other, since a new one has no files.
   */
  mayStart?: boolean | "again";
  /** What the caller may do with files, and whether beside a task; nothing where undefined. */
  scopes?: readonly Scope[];
  /** How long the caller waits for the answer, milliseconds; the server's longest wait where undefined. */
  callerWaitMs?: number;
  /** False for a caller whose answer has no place for a notice of what was lost: the next answer carries it. */
  takesNotice?: boolean;
}

/** What ends with a sandbox: its container alone, its saved workspace too, or its checkpoints as well. */
export type Ending = "container" | "workspace" | "checkpoints";

/** What a sandbox had that was destroyed. */
export interface Destroyed {
  wasKnown: boolean;
  wasSaved: boolean;
  /** Whether its saved state stays, and so its settings. */
  isKept: boolean;
  /** Its checkpoints: those that were deleted, or that are left. */
  checkpoints: number;
}

/** What a checkpoint keeps of a set-up. */
export interface SetUpSettings {
  script: string;
  /** The outcome that the workspace goes back to. */
  had?: string | undefined;
}

/** What a checkpoint keeps of what its sandbox was set to. */
export interface CheckpointSettings {
  env: Record<string, string>;
  network: NetworkChoice;
  setup: SetUpSettings | undefined;
  /** Of earlier versions undefined, as what was not set. */
  idleMinutes?: number | undefined;
}

/** A sandbox has the state of a checkpoint. */
export interface RestoredCheckpoint {
  to: Checkpoint;
  /** The checkpoint of its state before. */
  before?: Checkpoint | undefined;
  /** Why its state before could not be saved, as a clause; the checkpoint is of the last one that was. */
  unsaved?: string | undefined;
  /** What the sandbox of the checkpoint was set to. */
  settings?: CheckpointSettings | undefined;
}

/** What `list_sandboxes` shows of a sandbox that only its actor knows. */
export interface SandboxStatus {
  isAlive: boolean;
  previews: Preview[];
}

/** The methods of a sandbox's actor that the account calls. */
export interface ManagedSandbox extends Rpc.DurableObjectBranded {
  condition(): SandboxStatus;
  settleLease(): Settlement;
  stopIfIdle(owner: Owner, waitMs: number): Promise<boolean>;
  destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean>;
  evictRuns(bytes: number, before: number): Promise<Stored>;
  inherit(owner: Owner, settings: CheckpointSettings): Promise<Outcome<void>>;
}
