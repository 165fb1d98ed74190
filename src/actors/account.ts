/** The Durable Object for one principal's sandboxes and quota. Most calls to a running sandbox do not wait for the account. */
import { DurableObject } from "cloudflare:workers";
import { actorNamed } from "../container/actor.ts";
import type { Stored } from "../runs/run-store.ts";
import { type TaskEntry, TaskIndex } from "../tasks/task-list.ts";
import { type Config, type Env, parseConfig } from "../shared/config.ts";
import { type Failure, type Outcome, outcomeOf, unwrap } from "../shared/errors.ts";
import type { GitCredential } from "../shared/git-credential.ts";
import { whileHolding } from "../shared/limits.ts";
import { countdown, waitAtMost } from "../shared/timers.ts";
import { destroyedMeanwhile, workspaceExists, quotaError, sandboxExists } from "./texts.ts";
import { actorName, principalHash } from "../shared/names.ts";
import type { Region } from "../shared/principal.ts";
import { KeyedQueue } from "../shared/queue.ts";
import { type GitHost, GitHosts } from "./git-hosts.ts";
import { type Grant, type LeaseRequest, Quota, type Settlement } from "./quota.ts";
import { DAY_MS, type UsedByDay, HOUR_MS } from "../shared/days.ts";
import type {
  CheckpointSettings,
  SandboxStatus,
  Destroyed,
  DestroyExtent,
  EarlierState,
  ManagedSandbox,
  Owner,
  RestoredCheckpoint,
} from "./account-calls.ts";
import {
  type Archive,
  type Checkpoint,
  type Save,
  type Snapshot,
  lacksFiles,
  workspacesPrefix,
} from "./saved-states.ts";
import { SnapshotRegistry } from "./snapshot-registry.ts";
import { StoredRuns } from "./stored-runs.ts";
import { type AccountView, recordOf } from "./sandbox-record.ts";
import { type ListedSettings, SandboxRegistry } from "./sandbox-registry.ts";
import { type ACCOUNT_CONTENT, ACCOUNT_MIGRATIONS } from "../storage/account-schema.ts";
import { type KeyOf, type KeyValues, migrate } from "../storage/migrations.ts";
import { deleteBelow, objectStore } from "../storage/object-store.ts";

const NO_SETTINGS: CheckpointSettings = { env: {}, network: {}, setup: undefined };

export interface Fork {
  to: Checkpoint;
  hasSettings: boolean;
}

const IDLE_REMOVAL_CHECK_MS = HOUR_MS;

/** The delay before garbage is deleted, so that garbage of several saves is deleted together. */
const SWEEP_MS = 60_000;

/** How long a call waits in total while the account saves and stops an idle sandbox to make room. */
const FREE_SLOT_TIMEOUT_MS = 40_000;

const SANDBOX_REPLY_TIMEOUT_MS = 2000;

/** How long the removal of idle sandboxes waits for one sandbox, which goes on meanwhile. */
const REMOVAL_TIMEOUT_MS = 10_000;

/** How long each part of an alarm may take. The platform ends an alarm after 15 minutes. The next alarm goes on. */
const ALARM_PART_MS = 240_000;

export class Account extends DurableObject<Env> {
  readonly #kv: KeyValues<KeyOf<typeof ACCOUNT_CONTENT>>;
  readonly #config: Config;
  readonly #sandboxes: SandboxRegistry;
  readonly #quota: Quota;
  readonly #tasks: TaskIndex;
  readonly #snapshots: SnapshotRegistry;
  readonly #gitHosts: GitHosts;
  readonly #storedRuns: StoredRuns;
  readonly #forks = new KeyedQueue();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#kv = migrate(ctx.storage, ACCOUNT_MIGRATIONS);
    const { sql } = ctx.storage;
    this.#config = parseConfig(env);
    const { limits, resultTTLDays, workspaces } = this.#config;
    this.#sandboxes = new SandboxRegistry(sql);
    this.#quota = new Quota(sql, limits);
    this.#tasks = new TaskIndex(sql, resultTTLDays);
    this.#gitHosts = new GitHosts(sql);
    this.#storedRuns = new StoredRuns({
      sandboxes: this.#sandboxes,
      limits,
      keepMs: resultTTLDays * DAY_MS,
      actor: (principalID, sandbox) => this.#sandbox(principalID, sandbox),
    });
    this.#snapshots = new SnapshotRegistry(ctx.storage, limits, workspaces.ttlDays);
  }

  /** Registers a sandbox that starts or is in use. Fails if a limit would be exceeded. */
  registerSandbox(owner: Owner): Promise<Outcome<{ before: EarlierState; gitHosts: string[] }>> {
    const { principalID, sandbox } = owner;
    return outcomeOf(async () => {
      this.#checkCount(sandbox);
      const { runningSandboxes: allowed } = this.#config.limits;
      // There is no await between these checks and `recordUse` below, so that two calls cannot both take the last place.
      for (
        let otherRunning = this.#otherRunning(sandbox);
        otherRunning.length >= allowed;
        otherRunning = this.#otherRunning(sandbox)
      )
        if (!(await this.#makeRoom(principalID, otherRunning)))
          throw quotaError({ limit: "runningSandboxes", allowed, used: otherRunning.length });
      this.#checkCount(sandbox);
      const before = this.#stateBefore(sandbox);
      this.#sandboxes.recordUse(sandbox);
      this.#snapshots.noteUse(sandbox);
      await this.#prepareIdleRemoval(principalID, before);
      return { before, gitHosts: this.#gitHosts.names };
    });
  }

  /** @throws {ToolError} `quota_exceeded` if the sandbox is new and would exceed the limit */
  #checkCount(sandbox: string): void {
    if (this.#sandboxes.has(sandbox)) return;
    const { sandboxes: allowed } = this.#config.limits;
    const { count: used } = this.#sandboxes;
    if (used >= allowed) throw quotaError({ limit: "sandboxes", allowed, used });
  }

  #stateBefore(sandbox: string): EarlierState {
    if (this.#sandboxes.has(sandbox)) return "stopped";
    return this.#isKept(sandbox) ? "kept" : "nothing";
  }

  /** Whether a sandbox has a saved state or settings. */
  #isKept(sandbox: string): boolean {
    return this.#snapshots.has(sandbox) || this.#sandboxes.hasSettings(sandbox);
  }

  /** Stores the account's principal. If the sandbox is new, schedules the removal of idle sandboxes. */
  async #prepareIdleRemoval(principalID: string, before: EarlierState): Promise<void> {
    this.#principalID = principalID;
    if (before !== "stopped") await this.#ensureAlarm(Date.now() + IDLE_REMOVAL_CHECK_MS);
  }

  /**
   * Stores the settings of a sandbox. A sandbox that was never used is registered as stopped, so that it counts and
   * expires like any other. Fails if the limit of sandboxes would be exceeded.
   */
  sandboxConfigured(owner: Owner, settings: ListedSettings): Promise<Outcome<EarlierState>> {
    const { principalID, sandbox } = owner;
    return outcomeOf(async () => {
      this.#checkCount(sandbox);
      const before = this.#stateBefore(sandbox);
      this.#sandboxes.recordConfiguration(sandbox);
      this.#sandboxes.putSettings(sandbox, settings);
      await this.#prepareIdleRemoval(principalID, before);
      return before;
    });
  }

  /** Other sandboxes with a container, least recently used first. Empty if `except` itself has one. */
  #otherRunning(except: string): string[] {
    const names = this.#sandboxes.running();
    return names.includes(except) ? [] : names;
  }

  /** Stops the first one of these sandboxes that is not in use. Returns false if all are in use, or cannot be stopped. */
  async #makeRoom(principalID: string, names: readonly string[]): Promise<boolean> {
    for (const name of names) {
      const actor = await this.#sandbox(principalID, name);
      const usedAt = this.#sandboxes.lastUseOf(name);
      const stop = actor.stopIfIdle({ principalID, sandbox: name }, FREE_SLOT_TIMEOUT_MS / names.length);
      if (!(await stop.catch(() => false))) continue;
      this.#sandboxes.recordStop(name, usedAt);
      return true;
    }
    return false;
  }

  gitHosts(): GitHost[] {
    return this.#gitHosts.list();
  }

  /** Only the egress may call this: no other code needs the token. */
  gitCredential(host: string): GitCredential | undefined {
    return this.#gitHosts.credential(host);
  }

  /** Stores a credential, and reports its host to the running sandboxes. Stopped sandboxes get the host when they start. */
  async signInToGit(principalID: string, host: string, credential: GitCredential): Promise<void> {
    this.#gitHosts.put(host, credential);
    const notify = async (name: string) =>
      (await this.#sandbox(principalID, name)).gitHostsChanged(this.#gitHosts.names);
    await waitAtMost(SANDBOX_REPLY_TIMEOUT_MS, Promise.allSettled(this.#sandboxes.running().map(notify)));
  }

  signOutOfGit(host: string): void {
    this.#gitHosts.remove(host);
  }

  /** Waits for a sign-in to a git host. @returns whether the principal has signed in after `since` */
  gitSignedIn(host: string, since: number, waitMs: number): Promise<boolean> {
    return this.#gitHosts.waitForSignIn(host, since, waitMs);
  }

  spendModelTokens(spent: UsedByDay): { used: number; allowed: number } {
    this.#quota.spendModelTokens(spent);
    const { modelTokensPerDay: allowed } = this.#config.limits;
    return { used: this.#quota.modelTokensUsed(Date.now()), allowed };
  }

  sandboxSize(name: string, bytes: number): void {
    this.#sandboxes.recordSize(name, bytes);
  }

  /** Records the end of a container, which its sandbox used until now. */
  sandboxStopped(name: string): void {
    this.#sandboxes.recordStop(name);
    this.#snapshots.noteUse(name);
  }

  /**
   * Removes a sandbox that got no container, and ends its lease. It stays if a call has configured it meanwhile: its actor keeps
   * those settings only while the account knows the sandbox.
   */
  sandboxWithdrawn(name: string, settlement: Settlement): void {
    this.#quota.settle(name, settlement);
    if (this.#sandboxes.hasSettings(name) && !this.#snapshots.has(name)) this.#sandboxes.recordStop(name);
    else this.#sandboxes.remove(name);
  }

  /** Removes a sandbox and ends its lease. Used quota stays counted. */
  async sandboxDestroyed(name: string, settlement: Settlement, extent: DestroyExtent): Promise<Destroyed> {
    this.#quota.settle(name, settlement);
    // A sandbox without saved files keeps its settings too: its next user relies on its network policy.
    const isKept = extent === "container" && this.#isKept(name);
    if (!isKept) this.#sandboxes.removeSettings(name);
    const wasKnown = this.#sandboxes.remove(name);
    const wasSaved = extent !== "container" && this.#snapshots.forget(name);
    const checkpoints =
      extent === "checkpoints" ? this.#snapshots.removeCheckpoints(name) : this.#checkpointsOf(name);
    await this.#planSweep();
    return { wasKnown, wasSaved, isKept, checkpoints };
  }

  /** Whether a stopped sandbox may have files after a start: it was used or configured, or has a saved workspace. */
  isKnown(sandbox: string): boolean {
    return this.#sandboxes.has(sandbox) || this.workspace(sandbox) !== undefined;
  }

  /** The saved state from which a sandbox starts. If workspaces are not saved, only the sandbox of a continued task has a state. */
  workspace(sandbox: string): Snapshot | undefined {
    const { isSaved } = this.#config.workspaces;
    return isSaved ? this.#snapshots.current(sandbox) : this.#snapshots.currentArchive(sandbox);
  }

  /** Begins a save. Returns how many bytes it may add. */
  beginSave(...save: Parameters<SnapshotRegistry["begin"]>): Promise<Outcome<number>> {
    return this.#change(() => this.#snapshots.begin(...save));
  }

  /** Changes saved states, and schedules the deletion of objects that nothing refers to any more. */
  async #change<T>(work: () => T | Promise<T>): Promise<Outcome<T>> {
    const outcome = await outcomeOf(work);
    await this.#planSweep();
    return outcome;
  }

  workspacesFull(): Failure {
    return this.#snapshots.fullError().toFailure();
  }

  /** Turns a save into the sandbox's state, or into a task's archive. @param packBytes the size of the pack that the save added */
  async commitSave(save: Save, packBytes: number): Promise<Outcome<void>> {
    const outcome = await this.#change(() => this.#snapshots.commit(save, packBytes));
    // The caller may stop the server once it has this result.
    await this.ctx.storage.sync();
    return outcome;
  }

  async archive(snapshot: string, archive: Archive): Promise<Outcome<void>> {
    const outcome = await this.#change(() => this.#snapshots.archive(snapshot, archive));
    await this.ctx.storage.sync();
    return outcome;
  }

  archivedConversation(run: string): Snapshot | undefined {
    return this.#snapshots.findArchive(run, "conversation");
  }

  setUpOutcome(key: string): Snapshot | undefined {
    return this.#snapshots.findArchive(key, "workspace");
  }

  async startFromOutcome(sandbox: string, key: string): Promise<Outcome<void>> {
    return await this.#change(() => {
      if (this.#snapshots.has(sandbox)) throw workspaceExists(sandbox);
      this.#snapshots.forkArchive(sandbox, key);
    });
  }

  async removeArchive(run: string): Promise<void> {
    this.#tasks.remove(run);
    this.#snapshots.removeArchive(run);
    await this.#planSweep();
  }

  /** Ends a save that was not committed. @param isWriting whether writes of its objects may still be under way */
  async abandonSave(sandbox: string, id: string, isWriting: boolean): Promise<void> {
    this.#snapshots.abandonSave(sandbox, id, isWriting);
    await this.#planSweep();
  }

  async checkpoint(
    sandbox: string,
    label: string,
    settings: CheckpointSettings | undefined,
  ): Promise<Outcome<Checkpoint>> {
    return await this.#change(() => {
      const checkpoint = this.#snapshots.checkpoint(sandbox, label);
      if (settings) this.#snapshots.keepSettings(checkpoint.id, JSON.stringify(settings));
      return checkpoint;
    });
  }

  findCheckpoint(id: string, sandbox: string): Promise<Outcome<{ checkpoint: Checkpoint; exists: boolean }>> {
    return outcomeOf(() => ({
      checkpoint: this.#snapshots.requireCheckpoint(id),
      exists: this.#isNameTaken(sandbox),
    }));
  }

  /** Deletes a checkpoint. Returns how many the sandbox has left. */
  async removeCheckpoint(sandbox: string, id: string): Promise<Outcome<number>> {
    return await this.#change(() => {
      this.#snapshots.removeCheckpoint(sandbox, id);
      return this.#checkpointsOf(sandbox);
    });
  }

  /** The account's principal; undefined before its first sandbox. */
  get #principalID(): string | undefined {
    return this.#kv.get<string>("principal");
  }

  set #principalID(principalID: string) {
    this.#kv.put("principal", principalID);
  }

  #checkpointsOf(sandbox: string): number {
    return this.#snapshots.checkpoints().filter((checkpoint) => checkpoint.sandbox === sandbox).length;
  }

  /** The settings of a checkpoint or archive. If its state lacks files, the set-up runs again, because it may have made them. */
  #settings(origin: string): CheckpointSettings | undefined {
    const stored = this.#snapshots.settings(origin);
    if (stored === undefined) return undefined;
    const settings = JSON.parse(stored) as CheckpointSettings;
    if (!settings.setup) return settings;
    const isPartial = lacksFiles(this.#snapshots.ofSettings(origin)?.left);
    return isPartial ? { ...settings, setup: { script: settings.setup.script } } : settings;
  }

  requireCheckpoint(id: string): Promise<Outcome<Checkpoint>> {
    return outcomeOf(() => this.#snapshots.requireCheckpoint(id));
  }

  /**
   * Sets the sandbox's state to a checkpoint. Also returns the checkpoint of the previous state.
   * @param settings stored with that checkpoint if it is created, for its forks
   * @throws {ToolError} `not_found` also if the sandbox was destroyed, because its actor has lost its settings. Only a fork restores them
   */
  async restoreCheckpoint(
    sandbox: string,
    id: string,
    settings: CheckpointSettings | undefined,
  ): Promise<Outcome<RestoredCheckpoint>> {
    return await this.#change(() => {
      if (!this.#isNameTaken(sandbox)) throw destroyedMeanwhile(sandbox);
      const stored = settings && JSON.stringify(settings);
      const { to, before, deleted } = this.#snapshots.restoreCheckpoint(sandbox, id, stored);
      return { to, before, deleted, settings: this.#settings(id) };
    });
  }

  /** Creates a sandbox from a checkpoint. Its container starts with its first call. */
  fork(owner: Owner, id: string): Promise<Outcome<Fork>> {
    const { sandbox } = owner;
    return this.#fork(
      owner,
      id,
      () => this.#snapshots.requireCheckpoint(id),
      () => this.#snapshots.fork(sandbox, id),
    );
  }

  forkArchive(owner: Owner, run: string): Promise<Outcome<unknown>> {
    const { sandbox } = owner;
    const find = () => this.#snapshots.requireArchive(run);
    return this.#fork(owner, run, find, () => this.#snapshots.forkArchive(sandbox, run));
  }

  /**
   * Creates a sandbox from a saved state. The new sandbox's actor gets the settings first, so that no call runs without them, or
   * with those of an earlier sandbox of that name whose saved state has expired. If a later step fails, the actor keeps the
   * settings until the next sandbox of that name is created. Fails if the limit of sandboxes would be exceeded.
   * @param find finds the state, or throws a `ToolError`
   */
  #fork<T>(
    owner: Owner,
    origin: string,
    find: () => T,
    make: () => unknown,
  ): Promise<Outcome<{ to: T; hasSettings: boolean }>> {
    const { principalID, sandbox } = owner;
    const findUnlessTaken = () => {
      if (this.#isNameTaken(sandbox)) throw sandboxExists(sandbox);
      this.#checkCount(sandbox);
      return find();
    };
    const work = async () => {
      findUnlessTaken();
      const settings = this.#settings(origin);
      const actor = await this.#sandbox(principalID, sandbox, owner.region);
      unwrap(await actor.inherit(owner, settings ?? NO_SETTINGS));
      const to = findUnlessTaken();
      make();
      this.#sandboxes.recordConfiguration(sandbox);
      if (settings) {
        const variables = Object.keys(settings.env).sort();
        this.#sandboxes.putSettings(sandbox, { variables, network: settings.network });
      } else this.#sandboxes.removeSettings(sandbox);
      await this.#prepareIdleRemoval(principalID, "nothing");
      return { to, hasSettings: settings !== undefined };
    };
    // Parallel forks to one name would mix up their settings.
    const inTurn = () => this.#forks.run(sandbox, "", () => this.#change(work));
    return outcomeOf(() => whileHolding(`forks of ${principalID}`, 0, async () => unwrap(await inTurn())));
  }

  #isNameTaken(sandbox: string): boolean {
    return this.#sandboxes.has(sandbox) || this.#snapshots.has(sandbox);
  }

  async #planSweep(): Promise<void> {
    const due = this.#snapshots.nextDue();
    if (due !== undefined) await this.#ensureAlarm(Math.max(due, Date.now() + SWEEP_MS));
  }

  /** Sets the alarm to a time, in milliseconds since the epoch, unless an earlier alarm is set. */
  async #ensureAlarm(at: number): Promise<void> {
    const planned = await this.ctx.storage.getAlarm();
    if (planned === null || planned > at) await this.ctx.storage.setAlarm(at);
  }

  /**
   * Records how much the runs of a sandbox store, and evicts runs while the principal's limit is exceeded. Returns true if nothing more
   * can be evicted and the limit is still exceeded.
   */
  async sandboxStored({ principalID, sandbox }: Owner, stored: Stored): Promise<boolean> {
    this.#sandboxes.putStored(sandbox, stored);
    await this.#planExpiry();
    return await this.#storedRuns.evict(principalID);
  }

  async #planExpiry(): Promise<void> {
    const { nextExpiry } = this.#storedRuns;
    if (nextExpiry !== undefined) await this.#ensureAlarm(Math.max(nextExpiry, Date.now() + SWEEP_MS));
  }

  recordTask(task: TaskEntry): void {
    this.#tasks.put(task);
  }

  /** Tasks of all sandboxes, newest first. @param before a task's id: only older tasks are listed */
  listTasks(limit: number, before?: string): TaskEntry[] {
    return this.#tasks.list(limit, before);
  }

  /** The sandboxes sorted by name, and whether each was last known to be running. */
  sandboxes(): { name: string; isRunning: boolean }[] {
    return this.#sandboxes
      .list()
      .map(({ name, state }) => ({ name, isRunning: state === "running" }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Lists the most recently used sandboxes first. Sandboxes that exist only as a saved workspace come last. */
  async view(): Promise<AccountView> {
    const registered = new Map(this.#sandboxes.list().map((row) => [row.name, row]));
    const saved = new Map(this.#snapshots.workspaces().map((workspace) => [workspace.sandbox, workspace]));
    const names = new Set([...registered.keys(), ...saved.keys()]);
    const settings = this.#sandboxes.settings(names);
    const running = [...registered.values()].filter(({ state }) => state === "running");
    const conditions = await this.#conditions(running.map(({ name }) => name));
    return {
      sandboxes: [...names].map((name) =>
        recordOf(name, registered.get(name), saved.get(name), conditions.get(name), settings.get(name)),
      ),
      unlistedSettings: names.size - settings.size,
      limits: this.#config.limits,
      runSecondsToday: this.#quota.secondsUsed(Date.now()),
      storedBytes: this.#sandboxes.storedBytes(),
      modelTokensToday: this.#quota.modelTokensUsed(Date.now()),
      checkpoints: this.#snapshots.checkpoints(),
      workspaceBytes: this.#snapshots.bytes,
    };
  }

  /**
   * Asks each of these sandboxes, which the account has recorded as running, for its state. The record may be wrong: the account
   * gets no report when the machine restarts, or when a container is lost while its actor is not in memory. This method does not
   * correct the records, because a container may be starting. It leaves out a sandbox that does not respond in time.
   */
  async #conditions(names: readonly string[]): Promise<ReadonlyMap<string, SandboxStatus>> {
    const principalID = this.#principalID;
    if (principalID === undefined) return new Map();
    const requests = names.map(async (name): Promise<[string, SandboxStatus][]> => {
      const actor = await this.#sandbox(principalID, name);
      const condition = await waitAtMost(SANDBOX_REPLY_TIMEOUT_MS, actor.condition()).catch(() => undefined);
      return condition ? [[name, condition]] : [];
    });
    return new Map((await Promise.all(requests)).flat());
  }

  /** Lends run slots and seconds to a sandbox. If too few are free, first takes unused ones back from other sandboxes. */
  async lease(owner: Owner, request: LeaseRequest): Promise<Grant> {
    const grant = this.#quota.lease(owner.sandbox, request, Date.now());
    if (!grant.refused) return grant;
    await Promise.all(
      this.#quota.leaseHolders(owner.sandbox).map(async (sandbox) => {
        const actor = await this.#sandbox(owner.principalID, sandbox);
        // A lease that cannot be revoked counts until its end.
        const settlement = await actor.settleLease().catch(() => undefined);
        if (settlement) this.#quota.settle(sandbox, settlement);
      }),
    );
    return this.#quota.lease(owner.sandbox, { ...request, spent: new Map() }, Date.now());
  }

  /** Deletes expired states, expired runs and unneeded objects, and destroys sandboxes that were idle for too long. */
  override async alarm(): Promise<void> {
    const principalID = this.#principalID;
    this.#snapshots.expire();
    if (principalID !== undefined) {
      const place = workspacesPrefix(await principalHash(principalID));
      const bucket = objectStore(this.env);
      await this.#snapshots.sweep((prefix) => deleteBelow(bucket, place + prefix), ALARM_PART_MS);
      await this.#removeIdle(principalID);
      await this.#storedRuns.expire(principalID);
    }
    if (this.#sandboxes.count > 0) await this.#ensureAlarm(Date.now() + IDLE_REMOVAL_CHECK_MS);
    await this.#planSweep();
    await this.#planExpiry();
  }

  async #removeIdle(principalID: string): Promise<void> {
    const idleMs = this.#config.sandboxTTLHours * HOUR_MS;
    const leftMs = countdown(ALARM_PART_MS);
    for (const name of this.#sandboxes.unusedSince(Date.now() - idleMs)) {
      if (leftMs() <= 0) return;
      const actor = await this.#sandbox(principalID, name);
      // After a failure the next alarm tries again. The loop goes on to the other sandboxes.
      const removed = actor.destroyIfIdle({ principalID, sandbox: name }, idleMs).catch(() => false);
      await waitAtMost(REMOVAL_TIMEOUT_MS, removed);
    }
  }

  /** @param region where to create the actor if it does not exist */
  async #sandbox(
    principalID: string,
    name: string,
    region?: Region,
  ): Promise<DurableObjectStub<ManagedSandbox>> {
    const options = region && { locationHint: region };
    return actorNamed(this.env, await actorName(name, principalID), options);
  }
}
