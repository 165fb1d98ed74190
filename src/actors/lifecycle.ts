/**
 * Starts, restores and ends the sandbox's container, and decides who may use it. No other file does this.
 * docs/internals/architecture.md has a diagram of the states.
 * Each transition checks and replaces the state without an await in between. After a wait, a call checks the state again.
 */
import { containerEnded } from "../container/texts.ts";
import { EndingError, connectionLost, isGone } from "../shared/errors.ts";
import { SerialQueue } from "../shared/queue.ts";
import { CALL_MS, pause, pauseUnlessAborted, waitAtMost } from "../shared/timers.ts";
import type {
  CheckpointSettings,
  Destroyed,
  DestroyExtent,
  EarlierState,
  Owner,
  RestoredCheckpoint,
} from "./account-calls.ts";
import { endedForNetwork, notRunning, stillRestoring } from "./texts.ts";
import {
  ABSENT,
  type EndReason,
  type LifecycleParts,
  LifecycleState,
  type Position,
  type Registered,
  type Restoring,
  type Starting,
  type State,
  type Subscriber,
  unusedContainer,
} from "./lifecycle-state.ts";
import type { Checkpoint } from "./saved-states.ts";
import type { Settings } from "./workspace.ts";

/** The most containers started for one call or run. */
const MAX_STARTS = 3;

/** How long `waitUntilReady` waits if the caller gives no time. */
const READY_TIMEOUT_MS = 900_000;

/** A sandbox used in the last RECENT_USE_MS is not stopped to make room for another, unless its last use was a checkpoint. */
const RECENT_USE_MS = 30_000;

/** How long the end of a container, and a caller who restricts the network, waits for its save. The save continues after that. */
const SAVE_TO_STOP_MS = 40_000;

/** How long an unused container that cannot be saved is kept: code in the sandbox could delay its save for ever. */
const KEEP_UNSAVED_MS = 3_600_000;

/** After an interrupted call, a container that is ending may still seem to run for this long. */
const STOPPING_GRACE_MS = 3000;
const STOPPING_CHECK_MS = 100;

/** How long a repeated call waits for the platform's report that the previous container has ended. */
const END_REPORT_MS = 5000;

export class Lifecycle {
  readonly #parts: LifecycleParts;
  readonly #subscribers: Subscriber[] = [];
  readonly #states: LifecycleState;
  /** Counts the containers that are gone, and the ended attempts to start one. */
  #goneCount = 0;
  /** What the account knew of the sandbox before it counted the container. */
  #before: EarlierState | undefined;
  readonly #ends = new SerialQueue();
  #endingCount = 0;
  /** Since when an unused container has been kept because its save failed or took too long. */
  #unsavedSince = 0;
  /** Enforces the policy for one call at a time: two calls at once could end two containers, one after the other. */
  readonly #enforcing = new SerialQueue();

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
    const life = new AbortController();
    const isWhole = parts.workspace.resume(life.signal);
    let first: Position = ABSENT;
    if (isWhole && !parts.workspace.isRestoringCheckpoint) first = { is: "ready", isRegistered: false, life };
    else if (isWhole || parts.platform.isRunning) first = unusedContainer(life);
    this.#states = new LifecycleState(first);
    parts.platform.onEnd(() => this.#containerEnded());
  }

  subscribe(...subscribers: Subscriber[]): void {
    this.#subscribers.push(...subscribers);
    if (this.#checkState().is === "ready") for (const part of subscribers) part.onContainerReady?.();
  }

  /** A signal that is aborted when the container must not be used any more. Undefined if no container has its workspace. */
  get container(): AbortSignal | undefined {
    const state = this.#state;
    return state.is === "ready" && this.#parts.platform.isRunning ? state.life.signal : undefined;
  }

  /** Whether a container runs and is not ending. Its workspace may not be restored yet. */
  get isRunning(): boolean {
    return "life" in this.#checkState();
  }

  get isAlive(): boolean {
    const { is } = this.#checkState();
    return is === "ending" ? this.#parts.platform.isRunning : is !== "absent";
  }

  get isInUse(): boolean {
    return this.#parts.activity.hasCalls || this.#isBusy;
  }

  get #isBusy(): boolean {
    return this.#subscribers.some(({ isBusy }) => isBusy);
  }

  /** Whether a call, run or transfer is under way, or the container is starting or ending. */
  get #mustStay(): boolean {
    const { is } = this.#state;
    return this.#isBusy || this.#parts.activity.isBusy || is === "starting" || is === "ending";
  }

  /** Returns the state, after noticing a container that ended by itself. */
  #checkState(): State {
    const position = this.#position;
    if ("life" in position && !this.#parts.platform.isRunning) {
      this.#retire("lost");
      this.#parts.account.reportStop();
    }
    return this.#state;
  }

  /** Handles the platform's report that a container ended. An earlier actor may have started that container. */
  #containerEnded(): void {
    const state = this.#checkState();
    if (this.#goneCount > 0 || state.is !== "absent") return;
    this.#countGone();
    this.#parts.account.reportStop();
  }

  #countGone(): void {
    this.#goneCount++;
    this.#before = undefined;
  }

  get #state(): State {
    return this.#states.current;
  }

  get #position(): Position {
    return this.#states.position;
  }

  #retire(end: EndReason): void {
    const position = this.#position;
    this.#states.step(position, ABSENT);
    this.#countGone();
    if ("life" in position) position.life.abort(containerEnded());
    for (const part of this.#subscribers) part.onContainerEnd?.(end);
  }

  // Starting a container.

  /**
   * Registers the sandbox with its account, so that a container may start. First waits until no container is ending, because the
   * report of that end would undo the registration.
   * @throws {ToolError} `quota_exceeded`; `not_found` if a container would have to start and the call may not start one
   */
  async admit(owner: Owner): Promise<void> {
    const { account, platform } = this.#parts;
    const isKnown = (owner.mayStart ?? true) === true || platform.isRunning || (await account.isKnown(owner));
    const mayStart = owner.mayStart === "ifKnown" ? isKnown : owner.mayStart !== false;
    const refuseStart = () => {
      if (!mayStart && !platform.isRunning) throw notRunning(owner.sandbox, isKnown);
    };
    for (;;) {
      await this.#finishPrevious();
      await this.enforceNetwork();
      await this.#untilEndsAreOver();
      const goneBefore = this.#goneCount;
      refuseStart();
      const before = await account.register(owner);
      const state = this.#checkState();
      if (before === "nothing") for (const part of this.#subscribers) part.onNewSandbox?.();
      // Meanwhile the container was ended or lost, so the registration is not valid any more.
      if (goneBefore !== this.#goneCount) continue;
      this.#before ??= before;
      if (state.is === "ending") continue;
      // Checked again, because the container may have ended during the registration.
      refuseStart();
      if (state.is === "absent") this.#states.step(state, { is: "registered" });
      else if ("life" in state) state.isRegistered = true;
      account.keepSandbox();
      return;
    }
  }

  /** Like `admit`, for a run. A run may begin after its call has ended and the sandbox has stopped. */
  async admitRun(): Promise<void> {
    const state = this.#checkState();
    const isCounted = state.is === "registered" || state.is === "starting";
    if (!isCounted && !("isRegistered" in state && state.isRegistered))
      await this.admit(this.#parts.account.owner);
  }

  /** Finishes what an earlier actor began, and enforces the policy, without waiting for a call. */
  resume(): Promise<void> {
    return this.#finishPrevious().finally(() => this.enforceNetwork());
  }

  /** Waits until no container is ending, and ends a container that must not be used any more. */
  async #finishPrevious(): Promise<void> {
    await this.#untilEndsAreOver();
    const { workspace } = this.#parts;
    const isOver = () => "life" in this.#position && workspace.isContainerOver;
    // An earlier actor began to end the container. Runs are recorded as lost, and not all changes are saved.
    if (isOver()) await this.#end(async () => isOver() && (await this.#endContainer("lost")));
    // An earlier actor began to restore a checkpoint, and was discarded before it ended the container.
    if (workspace.isRestoringCheckpoint)
      await this.#end(async () => {
        if (workspace.isRestoringCheckpoint)
          await this.#endForRestore(await workspace.repeatCheckpointRestore());
      });
    await this.#untilEndsAreOver();
  }

  async #untilEndsAreOver(): Promise<void> {
    while (this.#state.is === "ending") await this.#state.ended.promise;
  }

  /**
   * Does `work`. Repeats it if the container has begun to end meanwhile, because a destruction would undo the work. Then calls
   * `done`, without an await in between.
   */
  async unlessDestroyed<T>(work: () => Promise<T>, done: (value: T) => void): Promise<void> {
    for (;;) {
      await this.#untilEndsAreOver();
      const value = await work();
      if (this.#state.is !== "ending") return done(value);
    }
  }

  /**
   * Returns the container with its workspace. Starts one if the sandbox was admitted.
   * @param waitMs how long the caller waits; the start continues after that
   * @throws {ToolError} `no_answer` after `waitMs`; `sandbox_restarted` if not admitted; errors of the start or restore
   */
  async waitUntilReady(waitMs = READY_TIMEOUT_MS): Promise<AbortSignal> {
    const { container } = this;
    if (container) return container;
    const attempt = this.#attempt();
    // The start continues even if nobody waits for it.
    this.#parts.background(attempt.catch(() => undefined));
    const ready = await waitAtMost(waitMs, attempt);
    if (!ready) throw stillRestoring(this.#parts.account.owner.sandbox, waitMs);
    return ready;
  }

  async #attempt(): Promise<AbortSignal> {
    await this.#finishPrevious();
    const state = this.#checkState();
    switch (state.is) {
      case "absent":
      case "ending":
        throw containerEnded();
      case "registered":
        return await this.#start(state);
      case "starting":
        return await state.attempt;
      case "restoring":
        return await (state.attempt ??= this.#restoreWorkspace(state));
      case "ready":
        return state.life.signal;
    }
  }

  #start(registered: Registered): Promise<AbortSignal> {
    const { promise, resolve } = Promise.withResolvers<AbortSignal>();
    const starting: Starting = { is: "starting", attempt: promise };
    this.#states.step(registered, starting);
    resolve(this.#startContainer(starting));
    return promise;
  }

  async #startContainer(starting: Starting): Promise<AbortSignal> {
    const { platform, network, workspace, environment, account } = this.#parts;
    try {
      workspace.isContainerOver = false;
      network.prepareStart();
      await network.enforce();
      // An end that began during these steps would miss a container that starts now.
      if (this.#position !== starting) throw containerEnded();
      await platform.start(environment.variables);
      // The policy may have changed meanwhile.
      if (!(await network.enforce())) throw endedForNetwork();
      if (!platform.isRunning) throw containerEnded();
    } catch (error) {
      // Another call ended this start, so its error does not matter.
      if (this.#position !== starting) throw containerEnded();
      // A container that started only partly holds no user data. An end that began before this one may have ended it.
      const isOwn = () => this.#position === starting;
      if (platform.isRunning)
        await this.#end(async () => isOwn() && (await this.#states.endContainer(this.#parts)));
      this.#states.step(starting, { is: "registered" });
      this.release();
      throw error;
    }
    const life = new AbortController();
    const restoring: Restoring = { is: "restoring", life, attempt: starting.attempt, isRegistered: true };
    if (!this.#states.step(starting, restoring)) throw containerEnded();
    account.logEvent("start");
    for (const part of this.#subscribers) part.onContainerStart?.();
    return await this.#restoreWorkspace(restoring);
  }

  async #restoreWorkspace(restoring: Restoring): Promise<AbortSignal> {
    const { life } = restoring;
    try {
      await this.#parts.workspace.restore(life.signal);
    } catch (error) {
      restoring.attempt = undefined;
      this.#checkState();
      throw life.signal.aborted ? containerEnded() : error;
    }
    const { isRegistered } = restoring;
    if (!this.#states.step(restoring, { is: "ready", life, isRegistered })) throw containerEnded();
    for (const part of this.#subscribers) part.onContainerReady?.();
    return life.signal;
  }

  /** Does `work`, which changes the sandbox's saved state, then restores that state to the running container. */
  async restoreAgain(work: () => Promise<void>): Promise<void> {
    const state = this.#checkState();
    if (state.is !== "ready") throw containerEnded();
    const restoring: Restoring = { ...state, is: "restoring", attempt: undefined };
    this.#states.step(state, restoring);
    const attempt = work().then(() => this.#restoreWorkspace(restoring));
    restoring.attempt = attempt;
    attempt.catch(() => (restoring.attempt = undefined));
    await attempt;
  }

  /**
   * Like `waitUntilReady`, for a run. Tries again if the container ends first.
   * @param isOver whether the run has ended, so that it needs no container
   */
  async waitUntilReadyForRun(isOver: () => boolean): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (isOver()) {
        this.release();
        throw containerEnded();
      }
      try {
        await this.admitRun();
        if (isOver()) continue;
        await this.waitUntilReady();
        return;
      } catch (error) {
        if (!isGone(error) || attempt === MAX_STARTS) throw error;
      }
    }
  }

  /**
   * Does idempotent work. If the container turns out to be gone, repeats the work in the next container, up to MAX_STARTS times.
   * @param isOver whether the work's run has ended, so that it needs no container
   */
  async retryInNextContainer<T>(owner: Owner, work: () => Promise<T>, isOver = () => false): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!isGone(error) || attempt === MAX_STARTS) throw error;
        await this.#untilReportedEnd();
        if (!isOver()) await this.admit(owner);
        if (!isOver()) continue;
        this.release();
        throw error;
      }
    }
  }

  retryRunInNextContainer<T>(work: () => Promise<T>, isOver: () => boolean): Promise<T> {
    return this.retryInNextContainer(this.#parts.account.owner, work, isOver);
  }

  /** Resolves when the platform has reported the end of a container that a call did not find, or after END_REPORT_MS. */
  async #untilReportedEnd(): Promise<void> {
    this.#checkState();
    const position = this.#position;
    if ("life" in position) await pauseUnlessAborted(END_REPORT_MS, position.life.signal);
  }

  /** The error for an interrupted call: its container may be gone, or only the connection broke. */
  async explainError(error: unknown): Promise<unknown> {
    if (error instanceof EndingError) return error;
    return isGone(error) && (await this.#isStillRunning()) ? connectionLost() : error;
  }

  /** Whether the same container still runs STOPPING_GRACE_MS after an interrupted call. */
  async #isStillRunning(): Promise<boolean> {
    const position = this.#position;
    if (!("life" in position)) return false;
    const isSame = () => this.#parts.platform.isRunning && !position.life.signal.aborted;
    for (let ms = 0; ms < STOPPING_GRACE_MS && isSame(); ms += STOPPING_CHECK_MS)
      await pause(STOPPING_CHECK_MS);
    // If the container is gone, this ends its runs with a note that says so, before the call's error can end them.
    this.#checkState();
    return isSame();
  }

  onRunEnd(): void {
    this.release();
  }

  /** Called when a call or run has ended. Withdraws the registration if no container has started and none is needed. */
  release(): void {
    for (const part of this.#subscribers) part.onRelease?.(() => !this.isInUse);
    const state = this.#state;
    if (state.is !== "registered" || this.isInUse) return;
    const { account, background } = this.#parts;
    const before = this.#before ?? "stopped";
    this.#before = undefined;
    this.#states.step(state, ABSENT);
    // If this fails, the account lists the sandbox and later removes it as idle.
    background(account.withdraw(before).catch(() => undefined));
  }

  // Ending a container.

  /** Does `work`, which ends a container. Until all such work is done, no container starts and nothing begins in one. */
  async #end<T>(work: () => Promise<T>): Promise<T> {
    this.#checkState();
    this.#endingCount++;
    this.#states.beginEnding();
    try {
      return await this.#ends.run(work);
    } finally {
      this.#endingCount--;
      if (this.#endingCount === 0) {
        this.#states.finishEnding();
        // A call or run may have ended meanwhile.
        this.release();
      }
    }
  }

  async #endContainer(end: EndReason): Promise<void> {
    const { platform, account } = this.#parts;
    const wasRunning = platform.isRunning;
    // Called first. Otherwise a run that ends with the container would look as if it had ended by itself.
    this.#retire(end);
    await this.#states.endContainer(this.#parts);
    if (wasRunning) account.reportStop();
  }

  /** Ends a container on purpose, and stores the reason for the next notice. */
  async #endInOrder(end: Exclude<EndReason, "lost" | "destroy">): Promise<void> {
    if (!this.#parts.platform.isRunning) return;
    this.#parts.notice.noteEnding(end);
    await this.#endContainer(end);
  }

  /** A use during the save also keeps the sandbox, such as a request to a preview, which is no call. */
  stopIfUnused(): Promise<boolean> {
    const beganAt = Date.now();
    return this.#endUnused(
      () => this.#mustStay || this.#parts.account.isInUse(Date.now() - beganAt),
      (isSaved) => this.#end(() => this.#endInOrder(isSaved ? "idle" : "unsaved_idle")),
    );
  }

  /**
   * Like `stopIfUnused`, but also keeps a sandbox that was used in the last RECENT_USE_MS.
   * @param waitMs how long to wait for the save, which continues afterwards
   */
  makeRoom(waitMs: number): Promise<boolean> {
    const { platform, account } = this.#parts;
    return this.#endUnused(
      () => this.#mustStay || (platform.isRunning && account.isInUse(RECENT_USE_MS)),
      (isSaved) => this.#end(() => this.#endInOrder(isSaved ? "room" : "unsaved_room")),
      waitMs,
    );
  }

  /** Destroys the container of an unused sandbox. Settings stay, and a saved state, which expires by itself. */
  destroyIfUnused(owner: Owner, wasUsed: () => boolean): Promise<boolean> {
    return this.#endUnused(
      () => this.#mustStay || wasUsed(),
      (isSaved) => {
        // The container may have ended by itself during the save.
        if (this.isRunning) this.#parts.notice.noteEnding(isSaved ? "idle" : "unsaved_idle");
        return this.destroy(owner, "container");
      },
    );
  }

  /**
   * Saves the workspace of an unused container, then ends the container. Returns whether it ended. There is no await between the
   * last check and the beginning of the end, and calls wait from then on. So the save contains every acknowledged change.
   * @param end gets whether everything is saved
   */
  async #endUnused(
    isInUse: () => boolean,
    end: (isSaved: boolean) => Promise<unknown>,
    waitMs = SAVE_TO_STOP_MS,
  ): Promise<boolean> {
    const { workspace } = this.#parts;
    if (isInUse()) return false;
    const hasSaved = await workspace.saveToStop(waitMs);
    if (isInUse()) return false;
    const isSaved = hasSaved && workspace.mayStop;
    if (!isSaved && this.#keptUnsavedMs() < KEEP_UNSAVED_MS) return false;
    await end(isSaved && workspace.isComplete);
    return true;
  }

  /** How long an unsaved container has been kept since its last use. */
  #keptUnsavedMs(): number {
    const now = Date.now();
    if (now - this.#unsavedSince > this.#parts.account.unusedMs) this.#unsavedSince = now;
    return now - this.#unsavedSince;
  }

  /** Enforces the network policy, and ends a container that keeps forbidden connections. */
  enforceNetwork(): Promise<void> {
    const { platform, network, workspace } = this.#parts;
    return this.#enforcing.run(async () => {
      if (!platform.isRunning || (await network.enforce())) return;
      // The wait for the save is bounded, because code in the sandbox could delay its save for ever.
      const hasSaved = await workspace.saveToStop(SAVE_TO_STOP_MS);
      // Another container may have started meanwhile, with the current policy.
      if (await network.enforce().catch(() => false)) return;
      await this.#end(() => {
        const isSaved = hasSaved && workspace.mayStop && workspace.isComplete && !this.#isBusy;
        return this.#endInOrder(isSaved ? "network" : "unsaved_network");
      });
    });
  }

  /** Creates a checkpoint of the workspace, saving it first if a container runs. @throws {ToolError} */
  async checkpoint(label: string, settings: Settings): Promise<Checkpoint> {
    const { workspace, account, notice } = this.#parts;
    const keptAt = Date.now();
    await this.#finishPrevious();
    const { isRunning } = this;
    if (isRunning) await this.waitUntilReady(CALL_MS);
    const checkpoint = await workspace.checkpoint(label, settings);
    if (!isRunning) notice.noteCheckpoint(checkpoint);
    account.noteCheckpoint(keptAt);
    return checkpoint;
  }

  /** Ends the container; the next one starts from the checkpoint. @throws {ToolError} before the sandbox's state has changed */
  async restoreCheckpoint(checkpoint: string, settings: Settings): Promise<RestoredCheckpoint> {
    // Otherwise, if this restore failed, one that an earlier actor began would be forgotten although the account has done it.
    await this.#finishPrevious();
    // Inside `#end`, so that no work begins in a container that is ending.
    return await this.#end(async () => {
      const endSaved = (isSaved: boolean) => this.#endInOrder(isSaved ? "back" : "unsaved_back");
      const states = await this.#parts.workspace.beginCheckpointRestore(checkpoint, settings, endSaved);
      await this.#endForRestore(states.settings);
      // A restore that an earlier actor began has no result any more.
      if (states.unsaved !== undefined) this.#parts.notice.noteUnsavedShown();
      return states;
    });
  }

  async #endForRestore(settings?: CheckpointSettings): Promise<void> {
    await this.#endInOrder("back");
    this.#parts.workspace.finishCheckpointRestore();
    for (const part of this.#subscribers) part.onRestore?.(settings);
  }

  /** Ends the container at once, with all processes, and deletes the data that `extent` names. */
  async destroy(owner: Owner, extent: DestroyExtent): Promise<Destroyed> {
    const { account, workspace } = this.#parts;
    const destroyed = this.#end(async () => {
      // If this fails, the sandbox keeps its settings and saved state, and the next use continues a restore that an earlier actor began.
      await this.#endContainer("destroy");
      if (workspace.isRestoringCheckpoint) workspace.finishCheckpointRestore();
      // After the container's end: otherwise an earlier call could register the sandbox again.
      const record = await account.reportDestruction(owner, extent);
      for (const part of this.#subscribers) part.onDestroy?.(record);
      if (record.wasKnown) account.logEvent("destroy");
      return record;
    });
    // An earlier end may be waiting for the container to save or start.
    const position = this.#position;
    if ("life" in position) position.life.abort(containerEnded());
    return await destroyed;
  }
}
