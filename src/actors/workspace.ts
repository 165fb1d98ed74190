/**
 * The workspace of a sandbox survives its container: it is saved to R2 while it changes and before an orderly stop, and the
 * next container has it back before anything of the caller's begins there.
 *
 * What the account has as the sandbox's state is the truth. A save becomes that in one transaction of the account, after all
 * of its objects are written; until then the state before stays. A container is whole once it has the state that the account
 * had when it started; only what comes from a whole container is saved, and only upon the state that it came from.
 */
import type { Plan } from "../../container/sandboxd/protocol.ts";
import type { Conversation, Snapshots, Target } from "../container/snapshots.ts";
import { containerGone } from "../container/connection.ts";
import { type ErrorCode, ToolError, endedWhileStarting, unwrap } from "../shared/errors.ts";
import { within } from "../shared/within.ts";
import type { LeftOfTask, TaskRemains } from "../tasks/archive.ts";
import type { Account, CheckpointSettings, WentBack } from "./account.ts";
import { type RestartNotice, leftWords } from "./restart-notice.ts";
import {
  type Archive,
  type Checkpoint,
  type LeftOut,
  type Pack,
  type Snapshot,
  manifestPrefix,
  packPrefix,
} from "./snapshot-registry.ts";
import { StorageError, readObjects, writeObjects } from "./workspace-objects.ts";

/** The account's methods for workspaces. */
type Registry = Pick<
  DurableObjectStub<Account>,
  | "workspace"
  | "beginSave"
  | "commitSave"
  | "giveUpSave"
  | "workspacesFull"
  | "checkpoint"
  | "goBack"
  | "archive"
  | "archivedConversation"
  | "setUpOutcome"
  | "startFromOutcome"
  | "removeArchive"
>;

export interface WorkspaceHost {
  kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  /** Resolves when what was written to `kv` is on disk. */
  sync(): Promise<void>;
  running(): boolean;
  /** Starts the container unless it runs. @throws errors of the SDK */
  start(): Promise<void>;
  snapshots: Pick<Snapshots, keyof Snapshots>;
  bucket: R2Bucket;
  /** The prefix of the principal's workspaces in the bucket. */
  prefix(): string;
  account(): Registry;
  /** The sandbox's name. */
  sandbox(): string;
  /** What the sandbox is set to, for forks of what is kept. */
  settings(): CheckpointSettings | undefined;
  /** Whether workspaces are saved and restored. */
  isSaved: boolean;
  /** Whether a script is half through with preparing the workspace: until it ends, the state from before it stays. */
  isSettingUp(): boolean;
  /** Bytes of files that a save holds at most. */
  maxBytes: number;
  restartNotice: RestartNotice;
  background(work: Promise<unknown>): void;
  /** Logs an unexpected error. */
  report(error: unknown): void;
}

/** A save follows so long after the last change, so long after the first unsaved one at the latest, and after so long in any case: milliseconds. */
const QUIET_MS = 3000;
const LATEST_MS = 60_000;
const EVERY_MS = 120_000;

/** A save that failed is made again after so long, then after twice as long each time up to the longest: milliseconds. */
const AGAIN_MS = 15_000;
const LONGEST_AGAIN_MS = 300_000;

/** After how long a caller is told that nothing can be saved, milliseconds. */
const TELL_MS = 180_000;

/** How long a sandbox that cannot be saved is not stopped for want of use, milliseconds. */
const KEEP_MS = 3_600_000;

/** How long restoring a workspace may take, milliseconds. */
const RESTORE_MS = 900_000;

/** How long a call waits for a save or a restore that it needs, milliseconds: many clients give up after 60 seconds. */
const CALL_MS = 40_000;

/** How long a save may take, milliseconds. */
const SAVE_MS = 1_800_000;

/** How long keeping the outcome of a set-up may take, for which all calls wait, milliseconds. */
const OUTCOME_MS = 600_000;

/** Containers that are started for one restore at most. */
const MAX_STARTS = 3;

/** With so many packs, the smallest of them are packed again. */
const MOST_PACKS = 20;
const PACKED_AGAIN = 16;

/** Bytes that the manifest of a save may have. */
const MANIFEST_BYTES = 256 * 1024 * 1024;

/** Bytes that an archive may take beyond the sizes of its files. */
const ADDED_BYTES = 1024 * 1024;

/** Storage keys: the state that the container came from or was last saved as, once it is whole; and a save whose commit may be unknown. */
const CONTAINER = "workspace:container";
const COMMITTING = "workspace:committing";
/** Storage key: the sandbox goes back to a checkpoint, for which its container ends. */
const GOING_BACK = "workspace:going-back";

/** What a container's workspace came from; no snapshot where the sandbox had none. */
interface Origin {
  snapshot?: string;
  packs: Pack[];
}

/** A container into which something is to be installed. */
export interface Installation {
  /** Aborted when it ends. */
  container: AbortSignal;
  /** A hash of what the outcome depends on. */
  system: string;
  /** Whether its workspace is empty and always was. */
  isEmpty: boolean;
}

const NOTHING: Origin = { packs: [] };

export class Workspace {
  readonly #host: WorkspaceHost;
  /** Of the container that runs, once it is whole. */
  #origin: Origin | undefined;
  /** Aborts what is done with the container that runs, when that ends. */
  #container = new AbortController();
  #bringingUp: Promise<void> | undefined;
  #saving: Promise<void> | undefined;
  /** The save that begins after the one under way. */
  #next: Promise<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #timerAt = 0;
  #changedAt = 0;
  /** Since when there is something that no save holds. */
  #dirtySince: number | undefined;
  #failures = 0;
  #failingSince: number | undefined;
  /** Of the last save for which there was no room: its bytes of files, and how many it might have added, and when that was. */
  #noRoom: { bytes: number; room: number; at: number } | undefined;
  /** Of the last save, where that failed. */
  #failure: ToolError | undefined;
  #isFailureTold = false;
  #left: LeftOut | undefined;
  #isLeftTold = false;
  #isGoingBack: boolean;

  constructor(host: WorkspaceHost) {
    this.#host = host;
    this.#isGoingBack = host.kv.get(GOING_BACK) !== undefined;
    if (!host.running() || this.#isGoingBack) return;
    this.#origin = host.kv.get<Origin>(CONTAINER);
    // An earlier actor may have left something unsaved.
    if (this.#origin) this.changed();
  }

  /** Whether there is a container that has its workspace. */
  get isReady(): boolean {
    return this.#host.running() && this.#origin !== undefined;
  }

  /** Whether the container is to end because the sandbox goes back to a checkpoint. */
  get isGoingBack(): boolean {
    return this.#isGoingBack;
  }

  /** A container is about to start, or has gone. */
  containerGone(): void {
    this.#origin = undefined;
    this.#container.abort(containerGone());
    this.#container = new AbortController();
    this.#dirtySince = undefined;
    this.#left = undefined;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#host.kv.delete(CONTAINER);
  }

  /** The sandbox was destroyed with its state. */
  forget(): void {
    this.containerGone();
    this.wentBack();
  }

  /**
   * Resolves when the container runs and has its workspace; starts it unless it runs.
   * @param waitMs how long that is waited for; it goes on
   * @throws {ToolError} where the workspace cannot be restored, and errors of the SDK
   */
  async ready(waitMs = RESTORE_MS): Promise<void> {
    if (this.isReady) return;
    this.#bringingUp ??= this.#bringUp().finally(() => (this.#bringingUp = undefined));
    const bringingUp = this.#bringingUp;
    this.#host.background(bringingUp.catch(() => undefined));
    // It goes on where nobody waits for it any more.
    const isUp = await within(
      waitMs,
      bringingUp.then(() => true),
    );
    if (!isUp) throw stillRestoring(this.#host.sandbox(), waitMs);
  }

  async #bringUp(): Promise<void> {
    for (let attempt = 1; !this.isReady; attempt++) {
      await this.#start();
      const { signal } = this.#container;
      try {
        await this.#restore(signal);
      } catch (error) {
        // The container went away, and another can be started.
        if (this.#host.running() || attempt === MAX_STARTS) throw error;
      }
    }
  }

  /** Starts the container unless it runs. @throws errors of the SDK */
  async #start(): Promise<void> {
    for (let isRepeated = false; !this.#host.running();) {
      try {
        await this.#host.start();
      } catch (error) {
        // The SDK has one attempt for all calls: this one may have got that of an earlier call, which was about to connect to
        // the container before when that ended.
        if (isRepeated || this.#host.running() || !endedWhileStarting(error)) throw error;
        isRepeated = true;
      }
    }
  }

  /** Gives a new container the state of its sandbox, and settles what the next answer says of that. */
  async #restore(container: AbortSignal): Promise<void> {
    const { kv, sync, restartNotice, snapshots, isSaved } = this.#host;
    let state = await this.#state();
    if (state) {
      const mark = await snapshots.mark(container);
      // An earlier actor was thrown away when this container had its workspace, and may have changed that since.
      const isWhole = mark.snapshot !== undefined && !mark.isRestoring;
      // Where nothing is saved, all sandboxes may have one workspace, which is somebody's own.
      if (!isSaved && !isWhole && !mark.isRestoring && !mark.isEmpty) state = undefined;
      else if (!isWhole)
        await this.#restoreTo(state, AbortSignal.any([container, AbortSignal.timeout(RESTORE_MS)]));
    }
    container.throwIfAborted();
    this.#origin = state ? { snapshot: state.id, packs: state.packs } : NOTHING;
    kv.put(CONTAINER, this.#origin);
    restartNotice.restored(state);
    await sync();
    this.#plan(EVERY_MS);
  }

  async #state(): Promise<Snapshot | undefined> {
    return await this.#host.account().workspace(this.#host.sandbox());
  }

  /**
   * @param target the task that goes on with the conversation, where the state is one, or the system; of the workspace without
   * @throws {ToolError} which says that nothing has begun, and why
   */
  async #restoreTo(state: Snapshot, signal: AbortSignal, target?: Target): Promise<void> {
    const { bucket, snapshots } = this.#host;
    const prefix = this.#host.prefix();
    const manifest = [{ prefix: `${prefix}${manifestPrefix(state.id)}`, from: 0, to: state.manifestBytes }];
    try {
      const reads = await streamed(
        state.manifestBytes,
        (...into) => readObjects(bucket, manifest, ...into),
        (body) => snapshots.restore(state.id, body, signal, target),
      );
      const sizes = new Map(state.packs.map(({ id, bytes }) => [id, bytes]));
      let total = 0;
      for (const { pack, from, to } of reads) {
        if (!(from < to && to <= (sizes.get(pack) ?? 0)))
          throw new Error(`${state.id} asks for what it has not`);
        total += to - from;
      }
      if (total > state.packs.reduce((sum, { bytes }) => sum + bytes, 0))
        throw new Error(`${state.id} asks for more than it has`);
      const ranges = reads.map(({ pack, from, to }) => ({
        prefix: `${prefix}${packPrefix(pack)}`,
        from,
        to,
      }));
      await streamed(
        total,
        (...into) => readObjects(bucket, ranges, ...into),
        (body) => snapshots.data(state.id, body, signal),
      );
    } catch (error) {
      if (this.#container.signal.aborted || !this.#host.running()) throw containerGone();
      this.#host.report(error);
      throw notRestored(this.#host.sandbox(), state, error);
    }
  }

  /** Something has changed the workspace, or may have. */
  changed(): void {
    if (!this.#host.isSaved) return;
    this.#changedAt = Date.now();
    this.#dirtySince ??= this.#changedAt;
    if (this.#failures === 0) this.#plan(QUIET_MS);
  }

  /** Has a save begin in so many milliseconds, unless one begins before. */
  #plan(ms: number): void {
    const at = Date.now() + ms;
    if (this.#timer !== null && this.#timerAt <= at) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#due(), ms);
  }

  #due(): void {
    this.#timer = null;
    if (!this.isReady) return;
    if (this.#host.isSettingUp()) return this.#plan(EVERY_MS);
    const now = Date.now();
    // The clock may have been set back.
    const quiet = Math.max(0, now - this.#changedAt);
    if (quiet < QUIET_MS && now - (this.#dirtySince ?? 0) < LATEST_MS) return this.#plan(QUIET_MS - quiet);
    this.#host.background(this.save().catch(() => undefined));
  }

  /**
   * Saves the workspace as it is now or later. A save under way may have passed by what the caller wants in it, so another
   * follows that. Nothing happens in a container that is not whole or is being set up.
   * @throws {ToolError} with the reason
   */
  save(): Promise<void> {
    if (!this.#saving) {
      this.#saving = this.#saveOnce().finally(() => (this.#saving = undefined));
      return this.#saving;
    }
    const start = () => {
      this.#next = undefined;
      return this.save();
    };
    this.#next ??= this.#saving.then(start, start);
    return this.#next;
  }

  async #saveOnce(): Promise<void> {
    if (!this.isReady || !this.#host.isSaved || this.#host.isSettingUp()) return;
    const container = this.#container.signal;
    const since = this.#dirtySince;
    this.#dirtySince = undefined;
    try {
      await this.#save(AbortSignal.any([container, AbortSignal.timeout(SAVE_MS)]));
      this.#failures = 0;
      this.#failingSince = undefined;
      this.#failure = undefined;
      this.#isFailureTold = false;
      if (!container.aborted) this.#plan(this.#dirtySince === undefined ? EVERY_MS : QUIET_MS);
    } catch (error) {
      if (container.aborted || !this.#host.running()) throw containerGone();
      this.#dirtySince = since ?? this.#dirtySince ?? Date.now();
      this.#failingSince ??= Date.now();
      this.#plan(Math.min(AGAIN_MS * 2 ** this.#failures++, LONGEST_AGAIN_MS));
      if (!(error instanceof ToolError)) this.#host.report(error);
      this.#failure = notSaved(this.#host.sandbox(), error);
      throw this.#failure;
    }
  }

  async #save(signal: AbortSignal): Promise<void> {
    const { snapshots, maxBytes } = this.#host;
    const sandbox = this.#host.sandbox();
    await this.#settle(signal);
    const origin = this.#origin ?? NOTHING;
    const id = crypto.randomUUID();
    const repack = packsToRepack(origin.packs);
    const { snapshot: base } = origin;
    let plan = await snapshots.plan(id, base, maxBytes, repack, signal);
    if (plan.state === "conflict" && base !== undefined) {
      // sandboxd has lost what it knew: all of the workspace counts as new then.
      await snapshots.commit(base, signal);
      plan = await snapshots.plan(id, base, maxBytes, repack, signal);
    }
    if (plan.state === "conflict") throw new Error(`the container of ${sandbox} does not come from ${base}`);
    // What else cannot be read is known when all was to be read; until then it is as it was.
    const { unreadable = plan.state === "unchanged" ? undefined : this.#left?.unreadable } = plan.left;
    this.#leave({ ...plan.left, unreadable });
    if (plan.state === "unchanged") return;
    const { packs, left } = await this.#write(id, origin, plan, signal);
    this.#leave(left);
    await this.#committed(id, packs, signal);
  }

  /**
   * Writes a save that sandboxd has planned, and has the account take it. Answers its packs, and what it
   * leaves out.
   * @param archive what it becomes, and its bytes at most; without, the state of the sandbox
   */
  async #write(
    id: string,
    origin: Origin,
    plan: Plan,
    signal: AbortSignal,
    archive?: Archive & { maxBytes: number },
  ): Promise<{ packs: Pack[]; left: Plan["left"] }> {
    const { kv, snapshots, bucket } = this.#host;
    const account = this.#host.account();
    const sandbox = this.#host.sandbox();
    const { snapshot: base } = origin;
    const notEnough = archive ? undefined : this.#notEnoughFor(plan);
    const room = unwrap(await account.beginSave(sandbox, id, base, archive !== undefined, notEnough));
    const most = archive?.maxBytes ?? Infinity;
    const full = async (error: unknown) => {
      const isFull = !archive && error instanceof ToolError && error.code === "too_large";
      throw isFull ? ToolError.from(await account.workspacesFull()) : error;
    };
    let isWriting = false;
    let isTaken = false;
    try {
      const prefix = this.#host.prefix();
      const packBytes = await snapshots.pack(id, signal, (body) =>
        writeObjects(bucket, `${prefix}${packPrefix(id)}`, body, Math.min(room, most)).catch(full),
      );
      const manifestBytes = await snapshots.manifest(id, signal, (body) =>
        writeObjects(
          bucket,
          `${prefix}${manifestPrefix(id)}`,
          body,
          Math.min(MANIFEST_BYTES, most - packBytes),
        ),
      );
      const done = await snapshots.done(id, signal);
      const left = { ...plan.left, unreadable: done.unreadable };
      const own = done.packs.find((pack) => pack.id === id);
      if ((own?.length ?? 0) !== packBytes || done.manifestBytes !== manifestBytes)
        throw new Error(`the save ${id} is not as long as it says`);
      signal.throwIfAborted();
      if (!archive) kv.put(COMMITTING, id);
      // How long an older pack is, the sandbox does not know: it says what it still needs of it.
      const sizes = new Map(origin.packs.map((pack) => [pack.id, pack.bytes]));
      const packs = done.packs.map(({ id: pack, length, live }) => {
        return { id: pack, bytes: sizes.get(pack) ?? length, live };
      });
      const { files, bytes } = done;
      const save = {
        id,
        sandbox,
        base,
        files,
        bytes,
        manifestBytes,
        left: leftOut(left),
        packs,
        archive: archive && archiveOf(archive),
      };
      unwrap(await account.commitSave(save, packBytes));
      isTaken = true;
      return { packs, left };
    } catch (error) {
      isWriting = error instanceof StorageError && error.isUnderWay;
      if (!archive && error instanceof ToolError && error.code === "quota_exceeded")
        this.#noRoom = { bytes: plan.bytes, room, at: Date.now() };
      throw error;
    } finally {
      // Of a save that was committed there is nothing to give up.
      if (!isTaken) this.#host.background(account.giveUpSave(sandbox, id, isWriting).catch(() => undefined));
    }
  }

  /** How many bytes are too few for a save of as much: all of it was sent before that was found. It may have become smaller meanwhile. */
  #notEnoughFor({ bytes }: Plan): number | undefined {
    const before = this.#noRoom;
    return before && bytes >= before.bytes && Date.now() - before.at < KEEP_MS ? before.room : undefined;
  }

  /**
   * Keeps what a task has left: files of the workspace, up to so many bytes, and its agent's conversation, all of it or nothing.
   * What the sandbox's own state holds of that is not stored again. Answers what is left out.
   * @throws {ToolError}, and errors of R2
   */
  keepArchive(what: TaskRemains): Promise<LeftOfTask> {
    return this.#alone(async () => {
      if (!this.isReady) throw containerGone();
      const signal = AbortSignal.any([this.#container.signal, AbortSignal.timeout(SAVE_MS)]);
      const { run, expiresAt, maxBytes, conversation } = what;
      const set = this.#host.settings();
      const settings = set && JSON.stringify(set);
      const left = await this.#keepPart({ run, expiresAt, maxBytes, part: "workspace", settings }, signal);
      if (conversation) {
        const part = { run, expiresAt, maxBytes, part: "conversation", conversation, isWhole: true } as const;
        try {
          await this.#keepPart(part, signal);
        } catch (error) {
          if (!(error instanceof ToolError) || error.code !== "too_large") throw error;
          return { ...left, conversation: true };
        }
      }
      return left;
    });
  }

  async #keepPart(
    archive: Archive & { maxBytes: number; conversation?: Conversation; isWhole?: boolean },
    signal: AbortSignal,
  ): Promise<Plan["left"]> {
    const { snapshots } = this.#host;
    const { part, maxBytes, conversation, isWhole = false } = archive;
    const isSystem = part === "system";
    const origin = (part === "workspace" ? this.#origin : undefined) ?? NOTHING;
    const { snapshot: base } = origin;
    const id = crypto.randomUUID();
    const what = { conversation, isSystem };
    const plan = await snapshots.plan(id, base, maxBytes, [], signal, what);
    const { state, files, left } = plan;
    if (isWhole && (left.count > 0 || left.unreadable || left.crowded)) throw notWhole(left, maxBytes);
    if (conversation && files === 0) return left;
    if (state === "unchanged" && base !== undefined) {
      await this.#host.account().archive(base, archiveOf(archive));
      return left;
    }
    // What is not compressed takes no more than the files, and a manifest.
    const limited = { ...archive, maxBytes: maxBytes + ADDED_BYTES };
    return (await this.#write(id, origin, plan, signal, limited)).left;
  }

  /** Puts the conversation of an earlier task where the script of the task that goes on expects it. @throws {ToolError} */
  async restoreConversation(run: string, task: string): Promise<void> {
    await this.ready();
    await this.#alone(async () => {
      const conversation = await this.#host.account().archivedConversation(run);
      if (!conversation) return;
      const signal = AbortSignal.any([this.#container.signal, AbortSignal.timeout(RESTORE_MS)]);
      await this.#restoreTo(conversation, signal, { task });
    });
  }

  /**
   * What the outcome of a set-up depends on in the container, which is started unless it runs.
   * @throws as `ready` does, and {ToolError} in a container whose system is not the sandbox's own
   */
  async installation(): Promise<Installation> {
    await this.ready();
    const { snapshots } = this.#host;
    const { signal: container } = this.#container;
    const { isEmpty = false } = await snapshots.mark(container);
    const system = await snapshots.system(container);
    const isNew = this.#origin !== undefined && this.#origin.snapshot === undefined;
    return { container, system, isEmpty: isEmpty && isNew };
  }

  /** Has the container note its system before a set-up, for `keepOutcome`. */
  async noteSystem({ container }: Installation): Promise<void> {
    await this.#host.snapshots.noteSystem(container);
  }

  /**
   * Keeps what a set-up has left: all of it or nothing. Where a part is without room, it would be no outcome of it.
   * @param hasWorkspace whether the workspace is of it: else that is saved first, so that no container has the one without the other
   * @param expiresAt when it ends, milliseconds since the epoch
   * @throws {ToolError}, and errors of R2
   */
  keepOutcome(key: string, hasWorkspace: boolean, expiresAt: number): Promise<void> {
    return this.#alone(async () => {
      if (!this.isReady) throw containerGone();
      const signal = AbortSignal.any([this.#container.signal, AbortSignal.timeout(OUTCOME_MS)]);
      const what = { run: key, expiresAt, maxBytes: this.#host.maxBytes, isWhole: true };
      try {
        if (hasWorkspace) await this.#keepPart({ ...what, part: "workspace" }, signal);
        else await this.#save(signal);
        // The last one: with it there is an outcome.
        await this.#keepPart({ ...what, part: "system" }, signal);
      } catch (error) {
        await this.#host
          .account()
          .removeArchive(key)
          .catch(() => undefined);
        throw error;
      }
    });
  }

  /**
   * Gives the container what a set-up has left. Answers when that was kept; undefined where there is none.
   * @param hasWorkspace whether its workspace becomes that of the sandbox, which must have none
   * @throws {ToolError}
   */
  async restoreOutcome(
    { container }: Installation,
    key: string,
    hasWorkspace: boolean,
  ): Promise<number | undefined> {
    const { kv, sync } = this.#host;
    const system = await this.#host.account().setUpOutcome(key);
    if (!system) return undefined;
    if (hasWorkspace) {
      await this.#alone(async () => {
        container.throwIfAborted();
        // The container is not whole until it has the state that the account may give the sandbox now, as that of a fork.
        this.#origin = undefined;
        kv.delete(CONTAINER);
        await sync();
        unwrap(await this.#host.account().startFromOutcome(this.#host.sandbox(), key));
      });
      await this.ready();
    }
    await this.#alone(async () => {
      const signal = AbortSignal.any([container, AbortSignal.timeout(RESTORE_MS)]);
      signal.throwIfAborted();
      await this.#restoreTo(system, signal, { system: "true" });
    });
    return system.savedAt;
  }

  /** Does work beside which nothing is saved: sandboxd saves or restores one thing at a time. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    while (this.#saving) await this.#saving.catch(() => undefined);
    const working = work();
    this.#saving = working.then(
      () => undefined,
      () => undefined,
    );
    return await working.finally(() => (this.#saving = undefined));
  }

  /** Finds out about a save whose commit was not answered, and tells the sandbox of one that was committed. */
  async #settle(signal: AbortSignal): Promise<void> {
    const { kv } = this.#host;
    const id = kv.get<string>(COMMITTING);
    if (id === undefined) return;
    const state = await this.#state();
    if (state?.id === id) await this.#committed(id, state.packs, signal);
    else kv.delete(COMMITTING);
  }

  async #committed(id: string, packs: Pack[], signal: AbortSignal): Promise<void> {
    const { kv, snapshots, sync } = this.#host;
    this.#origin = { snapshot: id, packs };
    kv.put(CONTAINER, this.#origin);
    await snapshots.commit(id, signal);
    kv.delete(COMMITTING);
    await sync();
  }

  #leave(left: Plan["left"]): void {
    this.#left = leftOut(left);
    if (!this.#isWorthTelling) this.#isLeftTold = false;
  }

  /** Whether something is left out that is lost with the sandbox: a socket is of no use without its process. */
  get #isWorthTelling(): boolean {
    return this.#left !== undefined && (this.#left.count > 0 || this.#left.unreadable !== undefined);
  }

  /**
   * Saves before the container is stopped in order. Answers whether it may be: all is saved and nothing has changed since,
   * or it could not be saved for an hour. What a set-up under way has changed is made again.
   */
  async isSavedToStop(): Promise<boolean> {
    if (!this.isReady || this.#host.isSettingUp()) return true;
    try {
      await this.save();
      return this.#dirtySince === undefined;
    } catch {
      if (!this.#host.running()) return true;
      return Date.now() - (this.#failingSince ?? Date.now()) > KEEP_MS;
    }
  }

  /** Saves for a call, which is answered before its client gives up: the save goes on. @throws {ToolError} */
  async #saveForCall(): Promise<void> {
    const saving = this.save();
    this.#host.background(saving.catch(() => undefined));
    const isSaved = await within(
      CALL_MS,
      saving.then(() => true),
    ).catch((error: unknown) => {
      // The call itself says so.
      this.#isFailureTold ||= error instanceof ToolError && isLasting(error.cause);
      throw error;
    });
    if (!isSaved) throw stillSaving(this.#host.sandbox());
  }

  /** Names the state of the workspace, which is saved first. @throws {ToolError} */
  async checkpoint(label: string): Promise<Checkpoint> {
    if (this.#host.running()) {
      await this.ready(CALL_MS);
      await this.#saveForCall();
    }
    return unwrap(await this.#host.account().checkpoint(this.#host.sandbox(), label, this.#host.settings()));
  }

  /**
   * Gives the sandbox the state of a checkpoint, for its next container; its state before is saved first and kept. Where that
   * cannot be saved however often it is tried, the last state that was saved is kept, and it is answered why. The container
   * that runs is to be ended, after which `wentBack` is called.
   * @throws {ToolError} with nothing changed
   */
  async goBack(id: string): Promise<WentBack> {
    const { kv, sync, settings } = this.#host;
    // A container that never had its workspace has nothing to keep.
    const unsaved = this.isReady ? await this.#saveToGoBack() : undefined;
    kv.put(GOING_BACK, id);
    this.#isGoingBack = true;
    await sync();
    const outcome = await this.#host.account().goBack(this.#host.sandbox(), id, settings());
    if (!outcome.ok) {
      kv.delete(GOING_BACK);
      this.#isGoingBack = false;
    }
    return { ...unwrap(outcome), unsaved };
  }

  /** Saves, unless that cannot be done: what broke the workspace must not keep it broken. Answers why then. @throws {ToolError} */
  async #saveToGoBack(): Promise<string | undefined> {
    try {
      await this.#saveForCall();
      return undefined;
    } catch (error) {
      const cause = error instanceof ToolError ? error.cause : undefined;
      if (!isLasting(cause)) throw error;
      return reason(cause);
    }
  }

  /** The container that was to be ended has ended. */
  wentBack(): void {
    for (const key of [COMMITTING, GOING_BACK]) this.#host.kv.delete(key);
    this.#isGoingBack = false;
  }

  /** Takes the notice about what cannot be saved that the next result must carry, once. */
  takeNotice(): string | undefined {
    const notices: string[] = [];
    const [since, failure] = [this.#failingSince, this.#failure];
    const isFailing = since !== undefined && failure !== undefined && !this.#isFailureTold;
    if (isFailing && (isLasting(failure.cause) || Date.now() - since > TELL_MS)) {
      this.#isFailureTold = true;
      const why = isLasting(failure.cause) ? ` (${reason(failure.cause)})` : "";
      const hint = isLasting(failure.cause) ? ` ${failure.hint}` : "";
      notices.push(
        `The workspace could not be saved since ${new Date(since).toISOString()}${why}: what is newer would be lost with the sandbox.${hint}`,
      );
    }
    if (this.#left && this.#isWorthTelling && !this.#isLeftTold) {
      this.#isLeftTold = true;
      notices.push(
        `Not all of the workspace is saved. Lost with the sandbox would be ${leftWords(this.#left)}.`,
      );
    }
    return notices.join(" ") || undefined;
  }
}

/** What the account is told of an archive. */
function archiveOf({ run, part, expiresAt, settings }: Archive): Archive {
  return { run, part, expiresAt, settings };
}

function leftOut({ count, bytes, largest, ...rest }: Plan["left"]): LeftOut | undefined {
  const { unreadable, special, crowded } = rest;
  if (count === 0 && !unreadable && !special && !crowded) return undefined;
  return { count, bytes, names: largest.map(({ path }) => path).slice(0, 5), unreadable, special, crowded };
}

/** Which packs are worth packing again: those that are half dead, and small ones where there are many. */
export function packsToRepack(packs: readonly Pack[]): string[] {
  const dead = packs.filter(({ bytes, live }) => live * 2 < bytes);
  const alive = packs.filter((pack) => !dead.includes(pack)).sort((a, b) => a.live - b.live);
  const small = alive.length >= MOST_PACKS ? alive.slice(0, PACKED_AGAIN) : [];
  return [...dead, ...small].map(({ id }) => id);
}

/** Sends what `write` writes as the body of a request; the answer of that. The error that came first is thrown. */
async function streamed<T>(
  length: number,
  write: (into: WritableStream<Uint8Array>, signal: AbortSignal) => Promise<void>,
  send: (body: ReadableStream<Uint8Array>) => Promise<T>,
): Promise<T> {
  const { readable, writable } = new FixedLengthStream(length);
  const stop = new AbortController();
  const written = write(writable, stop.signal).catch((error: unknown) => ({ error }));
  const sent = await send(readable).then(
    (value) => ({ value }),
    (error: unknown) => {
      // Nobody reads the rest.
      stop.abort();
      return { error };
    },
  );
  const failure = await written;
  if (failure && failure.error instanceof StorageError) throw failure.error;
  if ("error" in sent) throw sent.error;
  if (failure) throw failure.error;
  return sent.value;
}

function notWhole(left: Plan["left"], maxBytes: number): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  const why =
    left.count > 0
      ? `it is larger than the ${MiB} MB of WORKSPACE_MAX_MB`
      : left.crowded
        ? "it has more files than can be saved"
        : "not all of it can be read";
  return new ToolError("too_large", why);
}

function stillRestoring(sandbox: string, ms: number): ToolError {
  return new ToolError(
    "no_answer",
    `The workspace of sandbox ${sandbox} is being restored, which takes longer than ${Math.round(ms / 1000)} s. This call was not begun.`,
    "Make the same call again in 10 seconds.",
    true,
  );
}

function stillSaving(sandbox: string): ToolError {
  return new ToolError(
    "no_answer",
    `The workspace of sandbox ${sandbox} is being saved, which takes longer than ${CALL_MS / 1000} s. Nothing was changed, and the save goes on.`,
    "Make the same call again in 30 seconds: what is saved by then need not be saved again.",
    true,
  );
}

function notRestored(sandbox: string, { savedAt }: Snapshot, cause: unknown): ToolError {
  const error = new ToolError(
    "storage_unavailable",
    `The workspace of sandbox ${sandbox}, saved at ${new Date(savedAt).toISOString()}, could not be restored: ${reason(cause)}. This call was not begun, and what is saved is safe.`,
    "Make the same call again in a minute. When that does not help: restore_sandbox goes back to a checkpoint, and destroy_sandbox ends the sandbox with what is saved of it.",
    true,
  );
  error.cause = cause;
  return error;
}

/** Codes of errors that the workspace as it is leads to each time, or the principal's limit. */
const LASTING: ReadonlySet<ErrorCode> = new Set(["too_large", "no_space", "quota_exceeded", "file_system"]);

/** Whether a save that has failed so fails again until the caller changes something. */
function isLasting(cause: unknown): cause is ToolError {
  return cause instanceof ToolError && LASTING.has(cause.code);
}

function notSaved(sandbox: string, cause: unknown): ToolError {
  const message = `The workspace of sandbox ${sandbox} could not be saved: ${reason(cause)}. The sandbox goes on, and what was saved before is safe.`;
  const error = isLasting(cause)
    ? new ToolError(
        cause.code,
        message,
        cause.hint ||
          "Delete what is not needed in /workspace; restore_sandbox goes back to a checkpoint without saving it.",
      )
    : new ToolError("storage_unavailable", message, "Make the same call again in a minute.", true);
  error.cause = cause;
  return error;
}

function reason(cause: unknown): string {
  if (cause instanceof StorageError) return "the storage does not answer";
  if (cause instanceof ToolError) return cause.message.replace(/\.$/, "");
  return "something went wrong, which the server's log says";
}
