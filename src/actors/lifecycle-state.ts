/** The states of a sandbox, and the parts that `Lifecycle` uses or informs. */
import type { CheckpointSettings, Destroyed } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { Activity } from "./activity.ts";
import type { SandboxNetwork } from "./network.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { RestartNotice } from "./restart-notice.ts";
import type { Workspace } from "./workspace.ts";

/** The account counts a container that has not started yet. If none starts, the registration is withdrawn. */
export interface Registered {
  is: "registered";
}

export interface Starting {
  is: "starting";
  attempt: Promise<AbortSignal>;
}

/** A container runs without its workspace. */
export interface Restoring {
  is: "restoring";
  /** The reason of the abort is the error for interrupted calls. */
  life: AbortController;
  /** Undefined after a failure, and in a new actor until a call needs the container. */
  attempt: Promise<AbortSignal> | undefined;
  /** Whether this actor has registered the container with the account; false until its first call. */
  isRegistered: boolean;
}

export type Position =
  /** The account counts no container of this sandbox. */
  | { is: "absent" }
  | Registered
  | Starting
  | Restoring
  | (Pick<Restoring, "life" | "isRegistered"> & { is: "ready" });

/** While a container is being ended, `position` is the state after that end; `step` changes it. */
export type State = Position | { is: "ending"; position: Position; ended: PromiseWithResolvers<void> };

export type End = "lost" | "idle" | "room" | "network" | "unsaved_network" | "back" | "destroy";

/** Called in the order of subscription. */
export interface Subscriber {
  onContainerStart?(): void;
  onContainerReady?(): void;
  /** The container is gone, or ending and not to be used any more. */
  onContainerEnd?(end: End): void;
  /** The container has ended before. */
  onDestroy?(destroyed: Destroyed): void;
  /** @param settings stored with the checkpoint */
  onRestore?(settings: CheckpointSettings | undefined): void;
  /** A call or run ended. @param isUnused whether no other is under way, now or later */
  onRelease?(isUnused: () => boolean): void;
  /** Whether the part uses the container, which then is not stopped as idle. */
  readonly isBusy?: boolean;
}

export interface LifecycleParts {
  platform: ContainerPlatform;
  environment: { readonly variables: Readonly<Record<string, string>> };
  account: Pick<
    AccountLink,
    | "owner"
    | "isKnown"
    | "register"
    | "withdraw"
    | "reportStop"
    | "reportDestruction"
    | "logEvent"
    | "isInUse"
    | "unusedMs"
    | "noteCheckpoint"
  >;
  network: Pick<SandboxNetwork, "prepareStart" | "enforce">;
  workspace: Pick<
    Workspace,
    | "resume"
    | "restore"
    | "saveToStop"
    | "mayStop"
    | "isRestoringCheckpoint"
    | "beginCheckpointRestore"
    | "finishCheckpointRestore"
    | "checkpoint"
  >;
  notice: Pick<RestartNotice, "noteEnding">;
  activity: Pick<Activity, "isBusy" | "hasCalls">;
  background(work: Promise<unknown>): void;
}

type Named<Name> = Extract<Position, { is: Name }>;

/** Every position may become absent, because its container can end. */
interface Before {
  absent: Position["is"];
  registered: "absent" | "starting";
  starting: "registered";
  restoring: "starting" | "ready";
  ready: "restoring";
}

export const ABSENT: Named<"absent"> = { is: "absent" };

/** A transition that is not in `Before` does not compile. */
export class LifecycleState {
  #current: State;

  constructor(first: Position) {
    this.#current = first;
  }

  get current(): State {
    return this.#current;
  }

  get position(): Position {
    return this.#current.is === "ending" ? this.#current.position : this.#current;
  }

  /** False if the position is not `from` any more: the container was ended or lost. */
  step<To extends Position>(from: Named<Before[To["is"]]>, to: To): boolean {
    if (this.position !== from) return false;
    this.#current = this.#current.is === "ending" ? { ...this.#current, position: to } : to;
    return true;
  }

  beginEnding(): void {
    const { position } = this;
    if (this.#current === position)
      this.#current = { is: "ending", position, ended: Promise.withResolvers<void>() };
  }

  finishEnding(): void {
    if (this.#current.is !== "ending") return;
    const { ended, position } = this.#current;
    this.#current = position;
    ended.resolve();
  }
}
