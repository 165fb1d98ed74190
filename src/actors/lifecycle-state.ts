/** The states of a sandbox between start and destruction, and the parts that subscribe to changes. */
import { containerGone } from "../container/texts.ts";
import type { CheckpointSettings, Destroyed } from "./account-calls.ts";
import type { EarlierState } from "./account-link.ts";

export interface Container {
  /** Aborted when the container must not be used any more. The reason is the error for interrupted calls. */
  readonly ended: AbortSignal;
}

/** The account counts no container. */
export interface NoContainer {
  is: "absent";
}

/** The account counts a container that may start next. */
export interface Registered {
  is: "registered";
  /** What to restore in the account if no container starts. */
  before: EarlierState;
}

export interface Starting {
  is: "starting";
  before: EarlierState;
  attempt: Promise<Container>;
}

/** A container runs without its workspace. */
export interface Restoring {
  is: "restoring";
  life: LifecycleContainer;
  /** Undefined after a failure. */
  attempt: Promise<Container> | undefined;
  isRegistered: boolean;
}

export interface Ready {
  is: "ready";
  life: LifecycleContainer;
  /** False in a new actor until its first call. */
  isRegistered: boolean;
}

/** The states on the way to a usable container. */
export type Position = NoContainer | Registered | Starting | Restoring | Ready;

/** A container is ending. `position` is the previous state, restored if nothing was ended. */
export interface EndingState {
  is: "ending";
  position: Position;
  ended: PromiseWithResolvers<void>;
}

export type State = Position | EndingState;

export type End = "lost" | "idle" | "room" | "network" | "unsaved_network" | "back" | "destroy";

/** A part that reacts to changes of containers and the sandbox. Parts are called in the order of subscription. */
export interface Subscriber {
  /** A container started, still without its workspace. */
  started?(): void;
  /** The container has its state, so that work can begin in it. */
  ready?(): void;
  /** The container is gone, or must not be used any more because it is ending. */
  ended?(end: End): void;
  /** The sandbox was destroyed; its container has ended. */
  destroyed?(destroyed: Destroyed): void;
  /** The sandbox was set to a checkpoint. @param settings of the checkpoint's sandbox */
  restored?(settings: CheckpointSettings | undefined): void;
  /** A call or run ended. @param isUnused whether no other is under way, now or later */
  released?(isUnused: () => boolean): void;
  /** Whether the part uses the container, so that it must not be stopped as idle. */
  readonly isBusy?: boolean;
}

export const ABSENT: Position = { is: "absent" };

export class LifecycleContainer implements Container {
  readonly #controller = new AbortController();

  get ended(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    this.#controller.abort(containerGone());
  }
}
