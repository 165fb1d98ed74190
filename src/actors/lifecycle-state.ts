/** The states of a sandbox between start and destruction, and the parts that `Lifecycle` uses or informs about changes. */
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

/** A container runs, and does not have its workspace yet. */
export interface Restoring {
  is: "restoring";
  /** Aborted when the container must not be used any more. The reason is the error for interrupted calls. */
  life: AbortController;
  /** The restore under way; undefined after a failure, and in a new actor until a call needs the container. */
  attempt: Promise<AbortSignal> | undefined;
  /** Whether this actor has registered the container with the account; false in a new actor until its first call. */
  isRegistered: boolean;
}

/** The states on the way to a usable container. */
export type Position =
  /** The account counts no container of this sandbox. */
  | { is: "absent" }
  | Registered
  | Starting
  | Restoring
  | (Pick<Restoring, "life" | "isRegistered"> & { is: "ready" });

/** `ending`: a container is being ended. `position` is the state after that end. */
export type State = Position | { is: "ending"; position: Position; ended: PromiseWithResolvers<void> };

/**
 * Why a container ended. `lost`: by itself. `back`: the sandbox goes back to a checkpoint. `unsaved_idle`: like `idle`, but not
 * everything was saved.
 */
export type EndReason = "lost" | "destroy" | SavedEnd | `unsaved_${SavedEnd}`;

/** Ends before which the workspace is saved, if that succeeds in time. */
type SavedEnd = "idle" | "room" | "network" | "back";

/** A part that reacts to changes of containers and the sandbox. Parts are called in the order of subscription. */
export interface Subscriber {
  /** A container started, still without its workspace. */
  onContainerStart?(): void;
  /** The container has its workspace, so that work can begin in it. */
  onContainerReady?(): void;
  /**
   * The container is gone, or must not be used any more because it is ending. With `destroy`, the account destroys the sandbox
   * next. If the server ends then, `onDestroy` is not called, so the part forgets now what no later sandbox may have.
   */
  onContainerEnd?(end: EndReason): void;
  /** The sandbox was destroyed; its container has ended. */
  onDestroy?(destroyed: Destroyed): void;
  /** A new sandbox begins. Settings that the actor has are not its own: see `EarlierState`. */
  onNewSandbox?(): void;
  /** The sandbox was restored to a checkpoint. @param settings the settings that are stored with the checkpoint */
  onRestore?(settings: CheckpointSettings | undefined): void;
  /** A call or run ended. @param isUnused returns, now or later, whether no other call or run is under way */
  onRelease?(isUnused: () => boolean): void;
  /** Whether the part uses the container, so that it must not be stopped as idle. */
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
    | "keepSandbox"
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
    | "isContainerOver"
    | "restore"
    | "saveToStop"
    | "mayStop"
    | "isComplete"
    | "isRestoringCheckpoint"
    | "beginCheckpointRestore"
    | "repeatCheckpointRestore"
    | "finishCheckpointRestore"
    | "checkpoint"
  >;
  notice: Pick<RestartNotice, "noteEnding" | "noteCheckpoint" | "noteUnsavedShown">;
  activity: Pick<Activity, "isBusy" | "hasCalls">;
  background(work: Promise<unknown>): void;
}

type Named<Name> = Extract<Position, { is: Name }>;

/** The positions that may come before each position. Every position may become absent, because its container can end. */
interface Before {
  absent: Position["is"];
  registered: "absent" | "starting";
  starting: "registered";
  restoring: "starting" | "ready" | "absent";
  ready: "restoring";
}

export const ABSENT: Named<"absent"> = { is: "absent" };

/** A container runs, and no call has needed it yet. @param life of a container that may already be used */
export const unusedContainer = (life = new AbortController()): Restoring => ({
  is: "restoring",
  life,
  attempt: undefined,
  isRegistered: false,
});

/** The current state. `Lifecycle` changes it only by these methods, so a transition that is not in `Before` does not compile. */
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

  /** Changes the position. Returns false if it is not `from` any more: the container was ended or lost. */
  step<To extends Position>(from: Named<Before[To["is"]]>, to: To): boolean {
    if (this.position !== from) return false;
    this.#current = this.#current.is === "ending" ? { ...this.#current, position: to } : to;
    return true;
  }

  /**
   * Ends the container in the platform. If this fails, the next use of the sandbox ends the container, as it does if an earlier actor
   * began to end it.
   */
  async endContainer({ platform, workspace }: Pick<LifecycleParts, "platform" | "workspace">): Promise<void> {
    await platform.end().catch((error: unknown) => {
      if (!platform.isRunning) return;
      workspace.isContainerOver = true;
      const { position } = this;
      if (position.is === "absent" || position.is === "starting") this.step(position, unusedContainer());
      throw error;
    });
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
