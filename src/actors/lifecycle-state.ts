/** The states of a sandbox on its way to a container and to its end, and who follows them. */
import { containerGone } from "../container/gone.ts";
import type { CheckpointSettings, Destroyed } from "./account-calls.ts";
import type { EarlierState } from "./account-link.ts";

/** One container, from its start to its end. */
export interface Container {
  /** Aborted, with the error for a call whose container went away, as soon as nobody may use the container any more. */
  readonly ended: AbortSignal;
}

/** The account counts no container. */
export interface NoContainer {
  is: "absent";
}

/** The account counts the container that may start next. */
export interface Registered {
  is: "registered";
  /** What the account gets back if none starts. */
  before: EarlierState;
}

export interface Starting {
  is: "starting";
  before: EarlierState;
  attempt: Promise<Container>;
}

/** The container runs without its workspace. */
export interface Restoring {
  is: "restoring";
  life: LifecycleContainer;
  /** Undefined once it has failed. */
  attempt: Promise<Container> | undefined;
  isRegistered: boolean;
}

export interface Ready {
  is: "ready";
  life: LifecycleContainer;
  /** False in a new actor, until its first call. */
  isRegistered: boolean;
}

/** Where a sandbox is on its way to a container. */
export type Position = NoContainer | Registered | Starting | Restoring | Ready;

/** A container is being ended. `position` is where the sandbox was, and is again if nothing was ended. */
export interface EndingState {
  is: "ending";
  position: Position;
  ended: PromiseWithResolvers<void>;
}

export type State = Position | EndingState;

/** Why a container ends. */
export type End = "lost" | "idle" | "room" | "network" | "unsaved_network" | "back" | "destroy";

/** A part that follows what becomes of containers and of the sandbox. All are called in the order of their subscription. */
export interface Subscriber {
  /** A new container has started. It has no workspace yet. */
  started?(): void;
  /** The container has gone, or nobody may use it any more because it is being ended. */
  ended?(end: End): void;
  /** The sandbox was destroyed, after the end of its container. */
  destroyed?(destroyed: Destroyed): void;
  /** The sandbox has the state of a checkpoint. @param settings of that checkpoint's sandbox */
  restored?(settings: CheckpointSettings | undefined): void;
  /** A call or a run has ended. @param isUnused whether no other is under way, then and later */
  released?(isUnused: () => boolean): void;
  /** Whether the part is at work with the container, which is not ended for want of use meanwhile. */
  readonly isBusy?: boolean;
}

export const ABSENT: Position = { is: "absent" };

/** A container as the lifecycle has it. */
export class LifecycleContainer implements Container {
  readonly #controller = new AbortController();

  get ended(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    this.#controller.abort(containerGone());
  }
}
