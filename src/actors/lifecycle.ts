/**
 * Whether the sandbox has a container, and who may use it: the one place that starts, restores and ends containers. The states
 * and the transitions between them are drawn in docs/internals/architecture.md.
 *
 * Every transition replaces the state in one turn of the actor. What was waiting looks again.
 */
import { containerGone } from "../container/gone.ts";
import { EndingError, connectionLost, isGone } from "../shared/errors.ts";
import { SerialQueue } from "../shared/queue.ts";
import { pause, within } from "../shared/within.ts";
import type { CheckpointSettings, Destroyed, Ending, Owner, RestoredCheckpoint } from "./account-calls.ts";
import type { AccountLink, EarlierState } from "./account-link.ts";
import type { Activity } from "./activity.ts";
import { notRunning } from "./texts.ts";
import type { Lease } from "./lease.ts";
import {
  ABSENT,
  type Container,
  type End,
  LifecycleContainer,
  type Position,
  type Restoring,
  type Starting,
  type State,
  type Subscriber,
} from "./lifecycle-state.ts";
import type { SandboxNetwork } from "./network.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { RestartNotice } from "./restart-notice.ts";
import type { Workspace } from "./workspace.ts";
import { stillRestoring } from "./workspace-errors.ts";

export interface LifecycleParts {
  platform: ContainerPlatform;
  /** Variables that a container starts with. */
  environment: { readonly variables: Readonly<Record<string, string>> };
  account: Pick<
    AccountLink,
    "owner" | "isKnown" | "register" | "withdraw" | "stopped" | "destroyed" | "note" | "isInUse"
  >;
  lease: Pick<Lease, "release">;
  network: Pick<SandboxNetwork, "starting" | "enforce">;
  workspace: Pick<
    Workspace,
    | "resume"
    | "restore"
    | "saveToStop"
    | "mayStop"
    | "isRestoringCheckpoint"
    | "beginCheckpointRestore"
    | "finishCheckpointRestore"
  >;
  notice: Pick<RestartNotice, "containerStarted" | "ending">;
  activity: Pick<Activity, "isBusy" | "hasCalls">;
  background(work: Promise<unknown>): void;
}

/** Containers that are started for one call or run at most. */
export const MAX_STARTS = 3;

/** How long a call waits for its container, milliseconds: many clients give up after 60 seconds. And anybody at most. */
export const CALL_MS = 40_000;
const READY_MS = 900_000;

/** A sandbox that was used within so many milliseconds, and not for a checkpoint last, makes no room for another. */
const RECENT_USE_MS = 30_000;

/**
 * How long an end waits for the save before it, milliseconds; the save goes on. Who waits for the end meanwhile: a policy that is
 * to be enforced with the call that set it, and the platform's alarm, which may take 15 minutes.
 */
const SAVE_TO_STOP_MS = 40_000;

/** How long after an interrupted call its container may still count as running although it ends, milliseconds. */
const STOPPING_GRACE_MS = 3000;
const STOP_NOTICED_MS = 5000;

export class Lifecycle {
  readonly #parts: LifecycleParts;
  readonly #subscribers: Subscriber[] = [];
  #state: State;
  /** Counts how often a container was left, or the wish for one. */
  #left = 0;
  readonly #ends = new SerialQueue();
  /** Ends that are under way or wait for another. */
  #ending = 0;
  /** Who waited while the network was enforced by ending a container must not end the next one. */
  readonly #enforcing = new SerialQueue();

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
    this.#state = ABSENT;
    if (parts.platform.isRunning) {
      const life = new LifecycleContainer();
      this.#state = parts.workspace.resume(life.ended)
        ? { is: "ready", isRegistered: false, life }
        : { is: "restoring", isRegistered: false, life, attempt: undefined };
    }
    parts.platform.onEnd(() => this.#containerEnded());
  }

  subscribe(...subscribers: Subscriber[]): void {
    this.#subscribers.push(...subscribers);
  }

  // What there is.

  /** The container that has its workspace; undefined where none has, or it is being ended. None is started. */
  get container(): Container | undefined {
    const state = this.#state;
    return state.is === "ready" && this.#parts.platform.isRunning ? state.life : undefined;
  }

  /** Whether a container runs or is about to. */
  get isAlive(): boolean {
    const { is } = this.#checkState();
    return is === "ending" ? this.#parts.platform.isRunning : is !== "absent";
  }

  /** Whether a call or a run is under way. */
  get isInUse(): boolean {
    return this.#parts.activity.hasCalls || this.#isBusy;
  }

  get #isBusy(): boolean {
    return this.#subscribers.some(({ isBusy }) => isBusy);
  }

  /** Whether a call, a run or a transfer is under way, or the container is being started or ended. */
  get #isInUse(): boolean {
    const { is } = this.#state;
    return this.#isBusy || this.#parts.activity.isBusy || is === "starting" || is === "ending";
  }

  /** The state, once a container that went away by itself is noticed. */
  #checkState(): State {
    const position = this.#position;
    if ("life" in position && !this.#parts.platform.isRunning) {
      this.#retire("lost");
      this.#parts.account.stopped();
    }
    return this.#state;
  }

  /** The platform says that a container has ended: one of this actor's, or of an earlier one that had no time to tell. */
  #containerEnded(): void {
    const state = this.#checkState();
    if (this.#left > 0 || state.is !== "absent") return;
    this.#left++;
    this.#parts.account.stopped();
  }

  get #position(): Position {
    return this.#state.is === "ending" ? this.#state.position : this.#state;
  }

  set #position(position: Position) {
    if (this.#state.is === "ending") this.#state = { ...this.#state, position };
    else this.#state = position;
  }

  /** Makes one step from `from` to `to`, unless something else has come between: an end, or the loss of the container. */
  #step(from: Position, to: Position): boolean {
    const isThere = this.#position === from;
    if (isThere) this.#position = to;
    return isThere;
  }

  /** From now on nobody may use the container, if there is one. */
  #retire(end: End): void {
    const position = this.#position;
    this.#position = ABSENT;
    this.#left++;
    if ("life" in position) position.life.end();
    for (const part of this.#subscribers) part.ended?.(end);
  }

  // The way to a container.

  /**
   * Registers the sandbox with its account, which may have a container from then on. Waits for an end that is under way: what
   * started meanwhile would not be counted.
   * @throws {ToolError} `quota_exceeded`, and `not_found` for an owner who may start no container where none runs
   */
  async admit(owner: Owner): Promise<void> {
    const { account, platform } = this.#parts;
    const isKnown = (owner.mayStart ?? true) === true || platform.isRunning || (await account.isKnown(owner));
    const mayStart = owner.mayStart === "again" ? isKnown : owner.mayStart !== false;
    const refuseStart = () => {
      if (!mayStart && !platform.isRunning) throw notRunning(owner.sandbox, isKnown);
    };
    refuseStart();
    for (;;) {
      await this.#leavePrevious();
      this.#checkState();
      const left = this.#left;
      // After the look: the end of the container before must not be reported after the registration.
      const before = await account.register(owner);
      const state = this.#checkState();
      // An end, or the loss of the container, has undone the registration.
      if (state.is === "ending" || left !== this.#left) continue;
      // What comes next would start a container.
      refuseStart();
      if (state.is === "absent") this.#position = { is: "registered", before: before ?? "stopped" };
      else if ("life" in state) state.isRegistered = true;
      return;
    }
  }

  /** As `admit`, for a run, which may begin after its call has ended and the sandbox was stopped. */
  async admitRun(): Promise<void> {
    const state = this.#checkState();
    const isCounted = state.is === "registered" || state.is === "starting";
    if (!isCounted && !("isRegistered" in state && state.isRegistered))
      await this.admit(this.#parts.account.owner);
  }

  /** Ends what there is of an earlier container. */
  async #leavePrevious(): Promise<void> {
    await this.#passable();
    // An earlier actor was thrown away before it had ended the container.
    if (this.#parts.workspace.isRestoringCheckpoint)
      await this.#end(async () => {
        if (this.#parts.workspace.isRestoringCheckpoint) await this.#endForRestore();
      });
    await this.enforceNetwork();
    await this.#passable();
  }

  /** Resolves when nothing ends a container. */
  async #passable(): Promise<void> {
    while (this.#state.is === "ending") await this.#state.ended.promise;
  }

  /**
   * Does `work` for a sandbox that is not being destroyed: again where that has begun meanwhile, which undoes it. Then does
   * `done` at once, before anything can come between.
   */
  async unlessDestroyed<T>(work: () => Promise<T>, done: (value: T) => void): Promise<void> {
    for (;;) {
      await this.#passable();
      const value = await work();
      if (this.#state.is !== "ending") return done(value);
    }
  }

  /**
   * The container, with its workspace; one that was admitted is started.
   * @param waitMs how long the caller waits; the start goes on
   * @throws {ToolError} `sandbox_restarted` where none was admitted, and what keeps it from starting or from being restored
   */
  async ready(waitMs = READY_MS): Promise<Container> {
    const { container } = this;
    if (container) return container;
    const attempt = this.#attempt();
    // It goes on where nobody waits for it any more.
    this.#parts.background(attempt.catch(() => undefined));
    const ready = await within(waitMs, attempt);
    if (!ready) throw stillRestoring(this.#parts.account.owner.sandbox, waitMs);
    return ready;
  }

  /** As `ready` where a container runs; else undefined. */
  async readyIfRunning(waitMs: number): Promise<Container | undefined> {
    return this.#parts.platform.isRunning ? await this.ready(waitMs) : undefined;
  }

  async #attempt(): Promise<Container> {
    await this.#passable();
    const state = this.#checkState();
    switch (state.is) {
      case "absent":
      case "ending":
        throw containerGone();
      case "registered":
        return await this.#start(state.before);
      case "starting":
        return await state.attempt;
      case "restoring":
        return await (state.attempt ?? this.#restore(state));
      case "ready":
        return state.life;
    }
  }

  #start(before: EarlierState): Promise<Container> {
    const { promise, resolve } = Promise.withResolvers<Container>();
    const starting: Starting = { is: "starting", before, attempt: promise };
    this.#position = starting;
    resolve(this.#started(starting));
    return promise;
  }

  async #started(starting: Starting): Promise<Container> {
    const { platform, network, environment, notice, account, background } = this.#parts;
    const { before, attempt } = starting;
    try {
      network.starting();
      await network.enforce();
      await platform.start(environment.variables);
    } catch (error) {
      // Whoever ends it answers for it.
      if (this.#position !== starting) throw containerGone();
      // One that came up halfway has nothing of anybody's.
      if (platform.isRunning) await this.#end(() => platform.end());
      this.#step(starting, { is: "registered", before });
      this.release();
      throw error;
    }
    const life = new LifecycleContainer();
    const restoring: Restoring = { is: "restoring", life, attempt, isRegistered: true };
    if (!this.#step(starting, restoring)) throw containerGone();
    account.note("start");
    notice.containerStarted();
    for (const part of this.#subscribers) part.started?.();
    // What was forbidden while it started is forbidden to it too.
    background(this.enforceNetwork().catch(() => undefined));
    return await this.#restored(restoring);
  }

  #restore(restoring: Restoring): Promise<Container> {
    restoring.attempt = this.#restored(restoring);
    return restoring.attempt;
  }

  /** Gives a container the state of its sandbox. */
  async #restored(restoring: Restoring): Promise<Container> {
    const { life } = restoring;
    try {
      await this.#parts.workspace.restore(life.ended);
    } catch (error) {
      restoring.attempt = undefined;
      this.#checkState();
      throw life.ended.aborted ? containerGone() : error;
    }
    const { isRegistered } = restoring;
    if (!this.#step(restoring, { is: "ready", life, isRegistered })) throw containerGone();
    return life;
  }

  /** Has a container that is ready restored once more, after `work`, to another state that the sandbox has then. */
  async restoreAgain(work: () => Promise<void>): Promise<void> {
    const position = this.#position;
    if (position.is !== "ready") throw containerGone();
    const restoring: Restoring = { ...position, is: "restoring", attempt: undefined };
    this.#position = restoring;
    const attempt = work().then(() => this.#restored(restoring));
    restoring.attempt = attempt;
    attempt.catch(() => {
      restoring.attempt = undefined;
    });
    await attempt;
  }

  /**
   * As `ready`, for a run: again where the container goes away before that.
   * @param isOver whether the run is over, for which none is started
   */
  async readyForRun(isOver: () => boolean): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (isOver()) {
        this.release();
        throw containerGone();
      }
      try {
        await this.admitRun();
        if (isOver()) continue;
        await this.ready();
        return;
      } catch (error) {
        if (!isGone(error) || attempt === MAX_STARTS) throw error;
      }
    }
  }

  /** Repeats idempotent work in the next container when this one turns out to be gone: MAX_STARTS times in all. */
  async retryInNextContainer<T>(owner: Owner, work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!isGone(error) || attempt === MAX_STARTS) throw error;
        await this.#noticed();
        await this.admit(owner);
      }
    }
  }

  /** Resolves when the container has ended whose end a call has seen: the platform may say so late. */
  async #noticed(): Promise<void> {
    this.#checkState();
    const position = this.#position;
    if (!("life" in position)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    position.life.ended.addEventListener("abort", () => resolve());
    await within(STOP_NOTICED_MS, promise);
  }

  /** The error for a call that was interrupted: its container may be gone, or only the connection broke. */
  async explained(error: unknown): Promise<unknown> {
    if (error instanceof EndingError) return error;
    return isGone(error) && (await this.#outlived()) ? connectionLost() : error;
  }

  /** Whether the same container still runs after an interrupted call, STOPPING_GRACE_MS later: its end can show late. */
  async #outlived(): Promise<boolean> {
    const position = this.#position;
    if (!("life" in position)) return false;
    const isSame = () => this.#parts.platform.isRunning && !position.life.ended.aborted;
    for (let check = 0; check < STOPPING_GRACE_MS / 100 && isSame(); check++) await pause(100);
    // What the container took with it ends for that reason, and not for the error.
    this.#checkState();
    return isSame();
  }

  /** A call or a run has ended: takes the registration back where nobody needs the container, which never started. */
  release(): void {
    for (const part of this.#subscribers) part.released?.(() => !this.isInUse);
    const state = this.#state;
    if (state.is !== "registered" || this.isInUse) return;
    const { account, lease, background } = this.#parts;
    this.#position = ABSENT;
    // If this fails, the account lists the sandbox and removes it later as idle.
    background(account.withdraw(state.before, lease.release()).catch(() => undefined));
  }

  // The ends of a container.

  /** Does the work of an end. Until that and all other ends are over, no container starts and nothing begins in one. */
  async #end<T>(work: () => Promise<T>): Promise<T> {
    const state = this.#checkState();
    this.#ending++;
    if (state.is !== "ending")
      this.#state = { is: "ending", position: state, ended: Promise.withResolvers<void>() };
    try {
      return await this.#ends.run(work);
    } finally {
      this.#ending--;
      if (this.#ending === 0 && this.#state.is === "ending") {
        const { ended, position } = this.#state;
        this.#state = position;
        ended.resolve();
      }
    }
  }

  async #endContainer(end: End): Promise<void> {
    const { platform, account } = this.#parts;
    const wasRunning = platform.isRunning;
    // A run that ends so must not be taken for one that ended by itself.
    this.#retire(end);
    await platform.end();
    if (wasRunning) account.stopped();
  }

  /** Ends a container that somebody planned to end, which the next notice says. */
  async #endInOrder(end: Exclude<End, "lost" | "destroy">): Promise<void> {
    if (!this.#parts.platform.isRunning) return;
    this.#parts.notice.ending(end);
    await this.#endContainer(end);
  }

  /** Stops a container that nobody uses. Answers whether none runs then. */
  stopIfUnused(): Promise<boolean> {
    return this.#endUnused(
      () => this.#isInUse,
      () => this.#end(() => this.#endInOrder("idle")),
    );
  }

  /**
   * As `stopIfUnused`, to make room for another sandbox: not where somebody was at work a moment ago.
   * @param waitMs how long its save is waited for; it goes on, so that the next call finds more of it saved
   */
  makeRoom(waitMs: number): Promise<boolean> {
    const { platform, account } = this.#parts;
    return this.#endUnused(
      () => this.#isInUse || (platform.isRunning && account.isInUse(RECENT_USE_MS)),
      () => this.#end(() => this.#endInOrder("room")),
      waitMs,
    );
  }

  /** Destroys the container, and what is kept for it, unless somebody uses it. What is saved of it has its own time. */
  destroyIfUnused(owner: Owner, wasUsed: () => boolean): Promise<boolean> {
    return this.#endUnused(
      () => this.#isInUse || wasUsed(),
      () => this.destroy(owner, "container"),
    );
  }

  /**
   * Ends a container that nobody uses by `end`, once its workspace is saved. Answers whether it is ended. The last look at
   * whether it is in use and the begin of its end are one turn, and calls wait from then on: nothing is acknowledged that the
   * save does not hold.
   */
  async #endUnused(
    isInUse: () => boolean,
    end: () => Promise<unknown>,
    waitMs = SAVE_TO_STOP_MS,
  ): Promise<boolean> {
    const { workspace } = this.#parts;
    if (isInUse()) return false;
    const isOver = await workspace.saveToStop(waitMs);
    if (!isOver || isInUse() || !workspace.mayStop) return false;
    await end();
    return true;
  }

  /** Enforces what the sandbox may reach, and ends a container that keeps more: also when the operator has lowered it. */
  enforceNetwork(): Promise<void> {
    const { platform, network, workspace } = this.#parts;
    return this.#enforcing.run(async () => {
      if (!platform.isRunning || (await network.enforce())) return;
      // What holds now is enforced late rather than never.
      const isOver = await workspace.saveToStop(SAVE_TO_STOP_MS);
      const isSaved = isOver && workspace.mayStop && !this.#isBusy;
      await this.#end(() => this.#endInOrder(isSaved ? "network" : "unsaved_network"));
    });
  }

  /** Ends the container; the next one has the state of a checkpoint. @throws {ToolError} with nothing changed */
  restoreCheckpoint(
    checkpoint: string,
    settings: { readonly kept: CheckpointSettings | undefined },
  ): Promise<RestoredCheckpoint> {
    // What began meanwhile would begin in a container that ends.
    return this.#end(async () => {
      const states = await this.#parts.workspace.beginCheckpointRestore(checkpoint, settings);
      await this.#endForRestore(states.settings);
      return states;
    });
  }

  async #endForRestore(settings?: CheckpointSettings): Promise<void> {
    await this.#endInOrder("back");
    this.#parts.workspace.finishCheckpointRestore();
    for (const part of this.#subscribers) part.restored?.(settings);
  }

  /** Ends the container with every process in it, and what `ending` says: at once, whatever else is being done. */
  async destroy(owner: Owner, ending: Ending): Promise<Destroyed> {
    const { account, lease } = this.#parts;
    const destroyed = this.#end(async () => {
      await this.#endContainer("destroy");
      // After the container's end, so that no earlier call registers the sandbox again.
      const record = await account.destroyed(owner, lease.release(), ending);
      for (const part of this.#subscribers) part.destroyed?.(record);
      if (record.wasKnown) account.note("destroy");
      return record;
    });
    // An end that came before may wait for something of the container.
    const position = this.#position;
    if ("life" in position) position.life.end();
    return await destroyed;
  }
}
