/**
 * A sandbox's state is everything that was changed in it. The state survives the container: the server saves it to R2 while it
 * changes and before an orderly stop, and restores it to the next container before any call.
 *
 * The account's record decides which state is current. A save becomes current in one transaction of the account, after all its
 * objects are written; until then the previous state stays. A container is called whole once the state that was current at its
 * start is restored to it. Only whole containers are saved. A save also requires that the container's last state, restored or
 * saved, is still the sandbox's current state.
 */
import type { NamedFiles, PlanCall } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { malformedResponse } from "../container/file-operations.ts";
import type { ContinuingTask } from "../container/snapshot-client.ts";
import { containerEnded } from "../container/texts.ts";
import { type Outcome, ToolError, unwrap } from "../shared/errors.ts";
import { SerialQueue } from "../shared/queue.ts";
import { CALL_MS, elapsedMs, waitAtMost, withLimitedSignal } from "../shared/timers.ts";
import type { ArchiveLeftOut, TaskArchive } from "../tasks/archive.ts";
import type { CheckpointSettings, RestoredCheckpoint } from "./account-calls.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { RestartNotice } from "./restart-notice.ts";
import { SaveTroubles } from "./save-troubles.ts";
import { type Checkpoint, type Pack, type Snapshot, lacksFiles } from "./saved-states.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import {
  INCOMPLETE_SAVE,
  SET_UP_UNDER_WAY,
  isPermanentSaveError,
  restoreFailed,
  saveFailed,
  workspaceTooLarge,
  reasonOf,
  stillSaving,
} from "./texts.ts";
import {
  EMPTY_ORIGIN,
  type Installation,
  type Origin,
  type TransferHost,
  WorkspaceTransfer,
  packsToRepack,
} from "./workspace-transfer.ts";

export interface WorkspaceHost extends TransferHost {
  kv: KV;
  sync(): Promise<void>;
  platform: Pick<ContainerPlatform, "isRunning">;
  isSaved: boolean;
  restartNotice: Pick<RestartNotice, "noteRestore" | "noteChange">;
  report(error: unknown): void;
}

/**
 * A save begins SAVE_DEBOUNCE_MS after the last change, but at most SAVE_MAX_DELAY_MS after the first unsaved one. The save
 * itself takes a second or two, so a change of up to 20 MB is saved within five seconds.
 */
const SAVE_DEBOUNCE_MS = 1000;
const SAVE_MAX_DELAY_MS = 2000;

/** The longest pause after a save. It is as long as the save was, so that other work gets time. */
const SAVE_MAX_PAUSE_MS = 30_000;

/** A save begins after this time even if no change is known: commands and background processes write files too. */
const SAVE_INTERVAL_MS = 120_000;

const RESTORE_TIMEOUT_MS = 900_000;

const SAVE_TIMEOUT_MS = 1_800_000;

/** The time limit for keeping a set-up's outcome. All calls wait until it is kept. */
const OUTCOME_MS = 600_000;

/** The checkpoint that a sandbox is being restored to, and the settings for the checkpoint of the state before. */
interface BegunRestore {
  checkpoint: string;
  settings: CheckpointSettings | undefined;
}

/** The sandbox's settings, for forks of a saved state. */
export interface Settings {
  readonly forCheckpoint: CheckpointSettings | undefined;
}

export class Workspace {
  readonly #host: WorkspaceHost;
  readonly #transfer: WorkspaceTransfer;
  readonly #troubles = new SaveTroubles();
  /** The state that the running container started from or was last saved as; undefined until the container has its workspace. */
  readonly #origin: StoredValue<Origin>;
  /** The id of a save that the account may or may not have committed. */
  readonly #unconfirmed: StoredValue<string>;
  /** The running container must end first. */
  readonly #restoring: StoredValue<BegunRestore>;
  /** Set from the moment when a container must not be used any more until the next one starts. */
  readonly #over: StoredValue<true>;
  /** Aborted when the last restored container ends. */
  #container = AbortSignal.abort();
  /** Serializes saves and restores: sandboxd does one at a time. */
  readonly #queue = new SerialQueue();
  /** The next save, and whether it checks every file. */
  #next: Promise<void> | undefined;
  #isNextThorough = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #timerAt = 0;
  #changedAt = 0;
  /** Since when there are unsaved changes, in milliseconds since the epoch; undefined if everything is saved. */
  #dirtySince: number | undefined;
  /** The value that `#dirtySince` had when the current save began. If the save fails, `#dirtySince` gets it back. */
  #savingSince: number | undefined;
  #lastSave = { endedAt: 0, pauseMs: 0 };
  /** Settles when the account has responded to the last change of the saved state, if any. */
  #committing: Promise<unknown> | undefined;
  /** Whether a set-up script is changing the workspace. Until the script ends, nothing is saved. */
  isHeld = false;

  constructor(host: WorkspaceHost) {
    this.#host = host;
    this.#transfer = new WorkspaceTransfer(host);
    this.#origin = new StoredValue(host.kv, "workspace:origin");
    this.#unconfirmed = new StoredValue(host.kv, "workspace:unconfirmed");
    this.#restoring = new StoredValue(host.kv, "workspace:restoring");
    this.#over = new StoredValue(host.kv, "workspace:over");
  }

  /** Continues with an earlier actor's container, which may have ended. @returns whether the container had its workspace */
  resume(container: AbortSignal): boolean {
    if (this.#origin.value === undefined) return false;
    if (this.isRestoringCheckpoint) return true;
    this.#container = container;
    // Changes of the earlier actor may be unsaved.
    this.noteChange();
    return true;
  }

  get #isWhole(): boolean {
    return this.#origin.value !== undefined && !this.#container.aborted && this.#host.platform.isRunning;
  }

  get isRestoringCheckpoint(): boolean {
    return this.#restoring.value !== undefined;
  }

  /**
   * Whether a container that still runs must not be used: an earlier actor began to end it, or it did not end. Set it to false when no
   * container runs, before the next one starts.
   */
  get isContainerOver(): boolean {
    return this.#over.value === true;
  }

  set isContainerOver(isOver: boolean) {
    this.#over.value = isOver || undefined;
  }

  onContainerEnd(end: string): void {
    this.isContainerOver = true;
    this.#forgetContainer();
    if (end === "destroy") this.#unconfirmed.value = undefined;
  }

  #forgetContainer(): void {
    this.#origin.value = undefined;
    this.#dirtySince = undefined;
    this.#troubles.noteContainerEnd();
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Restores the sandbox's state, and sets the notice about it. @param container aborted when it ends @throws {ToolError} */
  async restore(container: AbortSignal): Promise<void> {
    const { sync, restartNotice, snapshots, isSaved } = this.#host;
    this.#forgetContainer();
    this.#container = container;
    // The account may still accept a save or a set-up's outcome of the previous container. If this container were restored before
    // that, the account would refuse all saves of this container.
    await this.#committing?.catch(() => undefined);
    let state = await this.#state();
    let dropped: NamedFiles | undefined;
    if (state) {
      const mark = await withLimitedSignal(container, CALL_MS, (signal) =>
        snapshots.call("mark", {}, signal),
      );
      // An earlier actor may have restored this container, and calls may have changed the workspace since.
      const isWhole = mark.snapshot !== undefined && !mark.isRestoring;
      // If saves are off, all sandboxes may share one workspace, which belongs to the user.
      if (!isSaved && !isWhole && !mark.isRestoring && !mark.isEmpty) state = undefined;
      else if (!isWhole) dropped = await this.#restoreTo(state, container);
    }
    container.throwIfAborted();
    this.#origin.value = state
      ? { snapshot: state.id, packs: state.packs, savedAt: state.savedAt }
      : EMPTY_ORIGIN;
    restartNotice.noteRestore(state, dropped);
    await sync();
    this.#plan(SAVE_INTERVAL_MS);
  }

  async #state(): Promise<Snapshot | undefined> {
    return await this.#host.account().workspace(this.#host.sandbox());
  }

  /**
   * Restores a state to the container, as `WorkspaceTransfer.restore` does.
   * @throws {ToolError} that says the reason, and that the call was not started
   */
  async #restoreTo(
    state: Snapshot,
    container: AbortSignal,
    target?: ContinuingTask,
  ): Promise<NamedFiles | undefined> {
    try {
      return await withLimitedSignal(container, RESTORE_TIMEOUT_MS, (signal) =>
        this.#transfer.restore(state, signal, target),
      );
    } catch (error) {
      if (this.#container.aborted || !this.#host.platform.isRunning) throw containerEnded();
      this.#host.report(error);
      throw restoreFailed(this.#host.sandbox(), state, error);
    }
  }

  /** Records that the workspace has changed or may have changed. */
  noteChange(): void {
    if (!this.#host.isSaved || this.#origin.value === undefined) return;
    // A new actor of a container that has ended changes nothing.
    if (this.#isWhole) this.#host.restartNotice.noteChange();
    this.#changedAt = Date.now();
    this.#dirtySince ??= this.#changedAt;
    if (!this.#troubles.isFailing) this.#plan(SAVE_DEBOUNCE_MS);
  }

  onRunEnd(): void {
    this.noteChange();
  }

  /** Schedules a save in `ms` milliseconds, unless one begins earlier. */
  #plan(ms: number): void {
    const now = Date.now();
    if (this.#timer !== null && this.#timerAt >= now && this.#timerAt <= now + ms) return;
    clearTimeout(this.#timer);
    // The timer is late, because the machine is busy or the clock was set forward. With a new one, frequent changes would delay the save.
    if (this.#timer !== null && this.#timerAt < now) return this.#saveIfDue();
    this.#timerAt = now + ms;
    this.#timer = setTimeout(() => this.#saveIfDue(), ms);
  }

  #saveIfDue(): void {
    this.#timer = null;
    if (!this.#isWhole) return;
    if (this.isHeld) return this.#plan(SAVE_INTERVAL_MS);
    const quietMs = SAVE_DEBOUNCE_MS - elapsedMs(this.#changedAt);
    const dueMs = Math.min(quietMs, SAVE_MAX_DELAY_MS - elapsedMs(this.#dirtySince ?? 0));
    if (dueMs > 0) return this.#plan(dueMs);
    const { endedAt, pauseMs } = this.#lastSave;
    const earlyMs = pauseMs - elapsedMs(endedAt);
    if (earlyMs > 0) return this.#plan(earlyMs);
    this.#host.background(this.save().catch(() => undefined));
  }

  /**
   * Saves the current workspace. If a save is under way, another save follows, because the save under way may have missed the
   * caller's changes. Does nothing if the container is not whole, or is being set up.
   * @param options `isThorough`: whether to check every file of the image too, because one may have been rewritten in place
   * @throws {ToolError} with the reason
   */
  save({ isThorough = false } = {}): Promise<void> {
    this.#isNextThorough ||= isThorough;
    this.#next ??= this.#queue.run(async () => {
      const isNextThorough = this.#isNextThorough;
      this.#next = undefined;
      this.#isNextThorough = false;
      await this.#saveOnce(isNextThorough);
      // Programs have renamed files or installed packages during the save. Another one may find the files.
      if (isNextThorough && this.#troubles.isIncomplete) await this.#saveOnce(isNextThorough);
    });
    return this.#next;
  }

  async #saveOnce(isThorough: boolean): Promise<void> {
    if (!this.#isWhole || !this.#host.isSaved || this.isHeld) return;
    const container = this.#container;
    const since = (this.#savingSince = this.#dirtySince);
    this.#dirtySince = undefined;
    const begunAt = Date.now();
    try {
      const isAtRest = since === undefined && !isThorough;
      await withLimitedSignal(container, SAVE_TIMEOUT_MS, (signal) =>
        this.#save(signal, { isThorough, isAtRest }),
      );
      this.#troubles.noteSave();
      this.#lastSave = { endedAt: Date.now(), pauseMs: Math.min(elapsedMs(begunAt), SAVE_MAX_PAUSE_MS) };
      const isDone = this.#dirtySince === undefined && !this.#troubles.needsAnother;
      if (!container.aborted) this.#plan(isDone ? SAVE_INTERVAL_MS : SAVE_DEBOUNCE_MS);
    } catch (error) {
      if (container.aborted || !this.#host.platform.isRunning) throw containerEnded();
      this.#dirtySince = since ?? this.#dirtySince ?? Date.now();
      if (!(error instanceof ToolError)) this.#host.report(error);
      const failure = saveFailed(this.#host.sandbox(), error);
      this.#plan(this.#troubles.noteFailure(failure));
      throw failure;
    } finally {
      this.#savingSince = undefined;
    }
  }

  async #save(signal: AbortSignal, options: Pick<PlanCall, "isThorough" | "isAtRest">): Promise<void> {
    const { snapshots, maxBytes } = this.#host;
    await this.#resolveUnconfirmed(signal);
    const origin = this.#origin.value ?? EMPTY_ORIGIN;
    const id = crypto.randomUUID();
    const { snapshot: base } = origin;
    const body = { id, base, max: maxBytes, repack: packsToRepack(origin.packs), ...options };
    let plan = await snapshots.call("plan", { body }, signal);
    if (plan.state === "conflict" && base !== undefined) {
      // sandboxd has lost its record of the last save: everything counts as new.
      await snapshots.call("commit", { id: base }, signal);
      plan = await snapshots.call("plan", { body }, signal);
    }
    if (plan.state === "conflict") throw malformedResponse();
    this.#troubles.noteLeftOut(plan.left, plan.state === "unchanged");
    if (plan.state === "unchanged") return this.#troubles.noteCompleteness(plan.isIncomplete);
    const storing = this.#transfer.store({ id, origin, plan }, signal, () => {
      this.#unconfirmed.value = id;
      this.#committing = storing;
    });
    const stored = await storing;
    this.#troubles.noteStored(stored);
    await this.#finishCommit(id, stored.packs, signal);
  }

  /**
   * Keeps a task's results: files of the workspace up to a limit, and the agent's conversation, completely or not at all.
   * Content that the sandbox's own state has is not stored twice. Returns what is left out.
   * @throws {ToolError}, and errors of R2
   */
  keepArchive(archive: TaskArchive, { forCheckpoint }: Settings): Promise<ArchiveLeftOut> {
    return this.#queue.run(async () => {
      if (!this.#isWhole) throw containerEnded();
      return await withLimitedSignal(this.#container, SAVE_TIMEOUT_MS, (signal) =>
        this.#transfer.keepArchive(archive, forCheckpoint, this.#origin.value ?? EMPTY_ORIGIN, signal),
      );
    });
  }

  /**
   * Restores the conversation of an earlier task to the place where the script of the continuing task expects it. @throws
   * {ToolError}
   */
  async restoreConversation(run: string, task: string): Promise<void> {
    await this.#queue.run(async () => {
      const conversation = await this.#host.account().archivedConversation(run);
      if (!conversation) return;
      await this.#restoreTo(conversation, this.#container, { task });
    });
  }

  /**
   * Describes the container before a set-up. The time is limited, because the run of the set-up waits for this, and a sandbox with a
   * run is never stopped.
   * @throws {ToolError} also if sandboxes are not isolated from the machine's system
   */
  async installation(): Promise<Installation> {
    const { snapshots } = this.#host;
    const container = this.#container;
    const { isEmpty, system } = await withLimitedSignal(container, CALL_MS, async (signal) => ({
      ...(await snapshots.call("mark", {}, signal)),
      ...(await snapshots.call("system", {}, signal)),
    }));
    const origin = this.#origin.value;
    const isNew = origin !== undefined && origin.snapshot === undefined;
    return { container, system, isEmpty: isEmpty && isNew, savedAt: origin?.savedAt };
  }

  /**
   * Saves a set-up's result. Other sandboxes can start from it if `expiresAt` is given.
   * @param expiresAt when the result expires for other sandboxes, in milliseconds since the epoch
   * @throws {ToolError}, and errors of R2
   */
  keepOutcome(key: string, expiresAt: number | undefined): Promise<void> {
    return this.#queue.run(async () => {
      if (!this.#isWhole) throw containerEnded();
      await withLimitedSignal(this.#container, OUTCOME_MS, (signal) =>
        this.#save(signal, { isThorough: true }),
      );
      const { leftOut: left } = this.#troubles;
      if (left && lacksFiles(left)) throw workspaceTooLarge(left, this.#host.maxBytes);
      if (!this.isComplete) throw new ToolError("file_system", INCOMPLETE_SAVE);
      const { snapshot } = this.#origin.value ?? EMPTY_ORIGIN;
      // A script without changes leaves nothing to keep.
      if (expiresAt === undefined || snapshot === undefined) return;
      unwrap(await this.#host.account().archive(snapshot, { run: key, part: "workspace", expiresAt }));
    });
  }

  /**
   * Restores a set-up's result into a sandbox without a state. Returns the time at which the result was saved; undefined if no
   * result is kept.
   * @param lifecycle restores the container again once the account has the state
   * @throws {ToolError}
   */
  async restoreOutcome(
    { container }: Installation,
    key: string,
    lifecycle: { restoreAgain(work: () => Promise<void>): Promise<void> },
  ): Promise<number | undefined> {
    const { sync } = this.#host;
    const outcome = await this.#host.account().setUpOutcome(key);
    if (!outcome) return undefined;
    const restoring = this.#queue.run(async () => {
      container.throwIfAborted();
      await lifecycle.restoreAgain(async () => {
        // Until the new state is restored, the container is not whole.
        this.#origin.value = undefined;
        await sync();
        container.throwIfAborted();
        const starting = this.#host.account().startFromOutcome(this.#host.sandbox(), key);
        this.#committing = starting;
        unwrap(await starting);
      });
    });
    await restoring.catch(async (error: unknown) => {
      // Other sandboxes should run the script, and not fail like this one. After any other error, they can use the result.
      const cause = error instanceof ToolError ? error.cause : undefined;
      if (cause instanceof ToolError && cause.code === "damaged")
        await this.#host.account().removeArchive(key);
      throw error;
    });
    return outcome.savedAt;
  }

  /** Finds out whether an unconfirmed save was committed, and tells sandboxd if so. */
  async #resolveUnconfirmed(signal: AbortSignal): Promise<void> {
    const id = this.#unconfirmed.value;
    if (id === undefined) return;
    const state = await this.#state();
    if (state?.id === id) await this.#finishCommit(id, state.packs, signal);
    else this.#unconfirmed.value = undefined;
  }

  async #finishCommit(id: string, packs: Pack[], signal: AbortSignal): Promise<void> {
    const { snapshots, sync } = this.#host;
    // `#origin` describes this container, so it must not be written after the container's end.
    signal.throwIfAborted();
    this.#origin.value = { snapshot: id, packs, savedAt: Date.now() };
    await snapshots.call("commit", { id }, signal);
    this.#unconfirmed.value = undefined;
    await sync();
  }

  /** Makes programs yield the processors to saves. Call it before the last saves: the programs keep their lower priority. */
  prioritizeSaves(): void {
    if (!this.#isWhole || !this.#host.isSaved) return;
    const { snapshots, background } = this.#host;
    const done = withLimitedSignal(this.#container, CALL_MS, (signal) =>
      snapshots.call("prioritize", {}, signal),
    );
    background(done.catch(() => undefined));
  }

  /**
   * Saves before an orderly stop. Returns whether the save has succeeded, or the container has ended meanwhile.
   * @param waitMs how long to wait
   */
  async saveToStop(waitMs = SAVE_TIMEOUT_MS): Promise<boolean> {
    if (!this.#isWhole || this.isHeld) return true;
    const saving = this.save({ isThorough: true });
    const isSaved = saving.then(() => true).catch(() => !this.#isWhole);
    this.#host.background(isSaved);
    return (await waitAtMost(waitMs, isSaved)) ?? false;
  }

  /** Whether the container may be stopped: everything is saved. A running set-up is repeated later, so it needs no save. */
  get mayStop(): boolean {
    if (!this.#isWhole || this.isHeld) return true;
    return this.#dirtySince === undefined && this.#savingSince === undefined;
  }

  /** Whether the last save has every file, as far as it can know. It may lack files that programs renamed or installed meanwhile. */
  get isComplete(): boolean {
    return !this.#troubles.isIncomplete;
  }

  /** Saves for a call. A save that takes longer than the client waits continues after the call has failed. @throws {ToolError} */
  async #saveForCall(): Promise<void> {
    // Nothing is saved until the set-up has ended, so changes from before it stay unsaved.
    if (this.isHeld && this.#troubles.failure) throw this.#troubles.failure;
    const container = this.#container;
    const saving = this.save({ isThorough: true });
    this.#host.background(saving.catch(() => undefined));
    const isSaved = await waitAtMost(
      CALL_MS,
      saving.then(() => true),
    ).catch((error: unknown) => {
      this.#troubles.noteReported(error);
      throw error;
    });
    if (!isSaved) throw stillSaving(this.#host.sandbox(), CALL_MS);
    // If the container ended before the save began, nothing was saved. The platform may report that end later.
    if (container.aborted || !this.#host.platform.isRunning) throw containerEnded();
    this.#troubles.noteSaveForCall();
  }

  async checkpoint(label: string, settings: Settings): Promise<Checkpoint> {
    if (this.#isWhole) await this.#saveForCall();
    return unwrap(await this.#host.account().checkpoint(this.#host.sandbox(), label, settings.forCheckpoint));
  }

  /**
   * Sets the state of the sandbox's next container to a checkpoint. The current state is saved first and kept. If no save can
   * succeed before the user changes something, the last saved state is kept, and the result says why. The caller then ends the
   * container and calls `finishCheckpointRestore`.
   * @param endSaved ends the container at once, so that no call can change it after its last save; gets whether all is saved
   * @throws {ToolError} before anything has changed. Only if the checkpoint was deleted meanwhile, the container may have ended
   */
  async beginCheckpointRestore(
    id: string,
    settings: Settings,
    endSaved: (isSaved: boolean) => Promise<void>,
  ): Promise<RestoredCheckpoint> {
    // A container that never had its workspace has nothing to keep.
    const isKept = this.#isWhole;
    unwrap(await this.#host.account().requireCheckpoint(id));
    const begun = { checkpoint: id, settings: settings.forCheckpoint };
    const end = (isSaved: boolean) => {
      // If the actor is evicted before the container has ended, the next one continues the restore.
      this.#restoring.value = begun;
      return endSaved(isSaved);
    };
    const unsaved = isKept ? await this.#saveBeforeRestore(end) : undefined;
    this.#restoring.value = begun;
    await this.#host.sync();
    const outcome = await this.#restoreInAccount(begun);
    if (!outcome.ok) this.#restoring.value = undefined;
    return { ...unwrap(outcome), unsaved };
  }

  /**
   * Repeats a restore that an earlier actor began, because the account may not have done it. If it has, this changes nothing.
   * Returns the settings that are stored with the checkpoint; undefined if there are none, or if the checkpoint was deleted.
   */
  async repeatCheckpointRestore(): Promise<CheckpointSettings | undefined> {
    const begun = this.#restoring.value;
    const outcome = begun === undefined ? undefined : await this.#restoreInAccount(begun);
    return outcome?.ok ? outcome.value.settings : undefined;
  }

  async #restoreInAccount({ checkpoint, settings }: BegunRestore): Promise<Outcome<RestoredCheckpoint>> {
    return await this.#host.account().restoreCheckpoint(this.#host.sandbox(), checkpoint, settings);
  }

  /**
   * Saves the workspace, and ends the container. Returns why changes are not saved; undefined if all are. A workspace that cannot be
   * saved must not prevent a restore; its container still runs. @throws {ToolError} for an error that may not repeat
   */
  async #saveBeforeRestore(endSaved: (isSaved: boolean) => Promise<void>): Promise<string | undefined> {
    try {
      // Calls and runs that began before may change files during the save. New ones wait.
      do await this.#saveForCall();
      while (!this.mayStop);
    } catch (error) {
      const cause = error instanceof ToolError ? error.cause : undefined;
      if (!isPermanentSaveError(cause)) throw error;
      return reasonOf(cause);
    }
    const mayLack = this.isComplete ? undefined : INCOMPLETE_SAVE;
    const unsaved = this.isHeld ? SET_UP_UNDER_WAY : mayLack;
    // No await since the last check: a change in between would be in neither state, or be saved over the checkpoint.
    return await endSaved(unsaved === undefined).then(() => unsaved);
  }

  /** Call it when the container with the old state has ended. */
  finishCheckpointRestore(): void {
    this.#unconfirmed.value = undefined;
    this.#restoring.value = undefined;
  }

  takeNotice(): string | undefined {
    return this.#troubles.takeNotice();
  }
}
