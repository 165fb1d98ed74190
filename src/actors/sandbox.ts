/** The actor of one sandbox: its container, kernels, files and runs, on top of the SDK's class. */
import type { OperationName } from "../../container/sandboxd/operations.ts";
import type { TerminalInput } from "../container/connection.ts";
import type { Admission, ModelOutcome, ModelCall } from "../container/model-calls.ts";
import type { CodeRunSpec } from "../runs/code-executor.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import type { Executor } from "../runs/executor.ts";
import { localID } from "../runs/id.ts";
import type { Allowance, RunSummary, RunView } from "../runs/run-types.ts";
import type { OnProgress, RunReading, RunStart, RunToRead, TerminalReply } from "../runs/runs.ts";
import type { Stored } from "../runs/run-store.ts";
import type { Env } from "../shared/config.ts";
import type { Connection as SandboxConnection } from "../shared/connection-log.ts";
import { type Outcome, ToolError, withoutRuns } from "../shared/errors.ts";
import type { FileLink, KeptLink, RunLink } from "../shared/file-link.ts";
import { PREVIEW_TOKEN } from "../shared/preview-address.ts";
import type { Region } from "../shared/principal.ts";
import type { RunKind } from "../shared/run-listing.ts";
import { pause, within } from "../shared/within.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import type { QuestionSpec } from "../tasks/questions.ts";
import type { TaskSpec } from "../tasks/task-executor.ts";
import type {
  CheckpointSettings,
  SandboxStatus,
  Destroyed,
  Ending,
  Owner,
  RestoredCheckpoint,
} from "./account-calls.ts";
import { actorUnreachable, needsScope, otherRegion } from "./texts.ts";
import type { FileLinks, UploadLink } from "./file-links.ts";
import type { Asked, NetworkQuestion } from "./decisions.ts";
import { CALL_MS } from "./lifecycle.ts";
import type { NetworkChoice } from "./network.ts";
import { hasScope, policyOf } from "./sandbox-operations.ts";
import { Parts } from "./parts.ts";
import { handleOutbound } from "./platform/outbound-handlers.ts";
import { SandboxActor } from "./platform/sdk-actor.ts";
import type { Previews } from "./previews.ts";
import type { Settlement } from "./quota.ts";
import type { ArtifactRange, RunFileStat, RunFiles } from "./run-files.ts";
import type { CurrentSettings, SettingsChange } from "./settings.ts";
import type { Checkpoint } from "./saved-states.ts";

/** The result of an actor's method, with a notice if state was lost since the last one. */
export type ActorResult<T> = Outcome<T> & { notice?: string };

export interface TaskOrigin {
  run: RunView;
  /** Whether the sandbox still holds what the task left. */
  alive: boolean;
}

/** A sandbox's settings, and its actor's region; undefined if the platform chose it. */
export type Configured = CurrentSettings & { region: Region | undefined };

/** How long a checkpoint waits for a set-up, in milliseconds. A save follows. */
const CHECKPOINT_WAIT_MS = 15_000;

/** How often to try a save before the platform ends the container, and the pause between attempts in milliseconds. */
const ENDING_TRIES = 3;
const ENDING_PAUSE_MS = 1000;

export class Sandbox extends SandboxActor {
  readonly #parts: Parts;

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    const { platform, interpreter } = this;
    this.#parts = new Parts({
      ctx,
      env,
      platform,
      interpreter,
      network: this.networkPlatform,
      intercept: (...what) => this.intercept(...what),
      prepareAgent: (agent) => this.prepareAgent(agent),
    });
    const { lifecycle, account, idle } = this.#parts;
    platform.onIdle(idle);
    // Programs in the sandbox may act before the next call. If this fails, that call enforces the policy again.
    if (account.principalID !== undefined) ctx.waitUntil(lifecycle.enforceNetwork().catch(() => undefined));
  }

  /** Installs a coding agent that the sandbox lacks. The image has all of them. @throws Error that says what to do */
  protected async prepareAgent(_agent: string): Promise<void> {}

  /** Called by the egress for each request that it forwarded or refused under a policy. */
  connectionMade(connection: SandboxConnection): void {
    this.noteConnection(connection);
    this.#parts.network.connections.collectSoon();
  }

  /** @param namesID whether the result names the run even if there is no more to fetch */
  executeCode(
    owner: Owner,
    spec: CodeRunSpec,
    waitMs: number,
    namesID: boolean,
    onProgress?: OnProgress,
  ): Promise<ActorResult<RunView>> {
    return this.#execute(owner, this.#parts.code, spec.code, spec, waitMs, namesID, onProgress);
  }

  /** @param namesID as for code */
  executeCommand(
    owner: Owner,
    spec: CommandSpec,
    waitMs: number,
    namesID: boolean,
    onProgress?: OnProgress,
  ): Promise<ActorResult<RunView>> {
    return this.#execute(owner, this.#parts.commands, spec.command, spec, waitMs, namesID, onProgress);
  }

  #execute<Spec extends Allowance>(
    owner: Owner,
    executor: Executor<Spec>,
    source: string,
    spec: Spec,
    waitMs: number,
    namesID: boolean,
    onProgress: OnProgress | undefined,
  ): Promise<ActorResult<RunView>> {
    const waitUntil = Date.now() + waitMs;
    const mayBegin = () => this.#parts.tasks.keepApart(owner);
    const beginning = this.#beginning(owner, mayBegin, { waitUntil, namesID, onProgress });
    return this.#toResult(owner, () =>
      this.#parts.runs.start(this.#parts.setUp.before(executor), source, spec, beginning),
    );
  }

  /** How an owner's run begins. The caller gets its id in time, whatever the sandbox does. */
  #beginning(
    owner: Owner,
    mayBegin: () => void | Promise<void>,
    waiting: Pick<RunStart, "waitUntil" | "namesID" | "onProgress">,
  ): RunStart {
    const replyBy = Date.now() + this.#callerWaitMs(owner);
    const prepare = async () => {
      await this.#parts.lifecycle.admit(owner);
      await mayBegin();
      await this.#parts.setUp.begin();
    };
    return { ...waiting, prepare, replyBy };
  }

  #callerWaitMs({ callerWaitMs }: Owner): number {
    return callerWaitMs ?? this.#parts.config.maxWaitSeconds * 1000;
  }

  /** Changes settings and returns all of them. The sandbox need not run. @param region where to create its actor */
  configureSandbox(
    owner: Owner,
    change: SettingsChange,
    region: Region | undefined,
  ): Promise<ActorResult<Configured>> {
    return this.#toResult(owner, async () => {
      // A running task gets the new settings when it continues.
      this.#parts.tasks.keepApart(owner);
      const made = this.#parts.account.owner.region;
      if (region !== undefined && region !== made) throw otherRegion(owner.sandbox, region, made);
      await this.#parts.settings.change(owner, change);
      if (change.network !== undefined) await this.#parts.lifecycle.enforceNetwork();
      return { ...this.#parts.settings.current, region: made };
    });
  }

  /** Asks a person if a change would allow more. @param waitMs how long to wait for the answer to an earlier question */
  askForNetwork(owner: Owner, change: NetworkChoice, waitMs: number): Promise<ActorResult<Asked>> {
    return this.#toResult(owner, () => this.#parts.decisions.ask(change, waitMs));
  }

  /** An open question, for the holder of its link. */
  async networkQuestion(id: string): Promise<NetworkQuestion | undefined> {
    const { account, decisions } = this.#parts;
    return account.principalID === undefined ? undefined : decisions.find(account.owner.sandbox, id);
  }

  /** Records the person's decision. Returns whether the question existed. */
  decideNetwork(owner: Owner, id: string, isAllowed: boolean): Promise<ActorResult<boolean>> {
    return this.#toResult(owner, () => this.#parts.decisions.decide(owner, id, isAllowed));
  }

  /** Called by the account when the person has signed in to a git host. */
  async gitHostsChanged(hosts: string[]): Promise<void> {
    this.#parts.account.gitHosts = hosts;
    await this.#parts.lifecycle.enforceNetwork();
  }

  /** The sandbox's connections as lines. */
  connectionLines(owner: Owner): Promise<ActorResult<string>> {
    return this.#toResult(owner, () => this.#parts.network.lines());
  }

  /** Returns the run as soon as it has started; `readRun` waits for its end. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<ActorResult<RunView>> {
    return this.#handOver(owner, this.#parts.tasks, spec.task, spec);
  }

  /** As `executeTask`; `readRun` also waits for its program. */
  askQuestion(owner: Owner, spec: QuestionSpec): Promise<ActorResult<RunView>> {
    return this.#handOver(owner, this.#parts.questions, spec.question, spec);
  }

  /** Starts a run that uses the model, within the daily tokens. */
  #handOver<Spec extends Allowance>(
    owner: Owner,
    executor: Executor<Spec>,
    source: string,
    spec: Spec,
  ): Promise<ActorResult<RunView>> {
    const mayBegin = () => this.#parts.modelUse.mayBegin();
    const beginning = this.#beginning(owner, mayBegin, { waitUntil: 0, namesID: true });
    return this.#toResult(owner, async () => {
      const run = await this.#parts.runs.start(this.#parts.setUp.before(executor), source, spec, beginning);
      await this.#parts.account.account(owner).recordTask(run);
      return run;
    });
  }

  taskOrigin(owner: Owner, id: string): Promise<ActorResult<TaskOrigin>> {
    const { lifecycle, restartNotice, runs } = this.#parts;
    return this.#toResult(owner, async () => {
      const run = await runs.result(id, 0);
      const detail = taskDetailOf(run);
      const alive = lifecycle.isRunning && !detail?.ownSandbox && detail?.boot === restartNotice.count;
      return { run, alive };
    });
  }

  readArtifact(
    owner: Owner,
    ...range: Parameters<RunFiles["artifact"]>
  ): Promise<ActorResult<ArtifactRange>> {
    return this.#toResult(owner, () => this.#parts.runFiles.artifact(...range));
  }

  /** Called by the egress for each model request: whether the key belongs to a task that runs here. */
  admitModelCall(key: string): Promise<Admission> {
    return this.#parts.modelUse.admitModelCall(key);
  }

  /** Called by the egress during a model request. */
  renewModelCall(call: ModelCall): void {
    this.#parts.modelUse.renewModelCall(call);
  }

  /** Called by the egress when a model request is done. */
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void {
    this.#parts.modelUse.finishModelCall(call, outcome);
  }

  /** Waits for the run to end or, with a cursor, for output after it. Then returns the run and its log from there. */
  readRun(
    owner: Owner,
    { id, waitMs, cursor, maxBytes = 0, seenCode, onProgress, until }: RunToRead,
  ): Promise<ActorResult<RunReading>> {
    return this.#toResult(owner, async () => {
      const { runs, questions } = this.#parts;
      const wasWriting =
        seenCode !== undefined && (await questions.waitForCode(localID(id), seenCode, waitMs));
      const run = await runs.result(id, wasWriting ? 0 : waitMs, cursor, { until, onProgress });
      if (cursor === undefined) return { run };
      return { run, page: await this.#parts.runs.log(id, cursor, maxBytes) };
    });
  }

  listRuns(owner: Owner, limit: number, before?: string, kind?: RunKind): Promise<ActorResult<RunSummary[]>> {
    return this.#toResult(owner, async () => this.#parts.runs.list(limit, before, kind));
  }

  sendInput(
    owner: Owner,
    id: string,
    input: TerminalInput,
    maxBytes: number,
  ): Promise<ActorResult<TerminalReply>> {
    return this.#toResult(owner, () => this.#parts.runs.type(id, input, maxBytes));
  }

  /** Removes what a run that has ended has left: its record, its log, and what is kept of a task. */
  removeRun(owner: Owner, id: string): Promise<ActorResult<void>> {
    return this.#toResult(owner, async () => {
      await this.#parts.runs.remove(id);
      this.#parts.storage.changed();
    });
  }

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<ActorResult<RunView>> {
    return this.#toResult(owner, () => this.#parts.runs.cancel(id, waitMs));
  }

  /** Does a file operation. Its row says what it starts, whether it is retried, and what is saved afterwards. */
  operate(owner: Owner, name: OperationName, input: object): Promise<ActorResult<object>> {
    const row = policyOf(name);
    const work = () => this.#parts.operations.run(owner, name, input);
    if (!hasScope(owner, row)) return this.#outcome(() => Promise.reject(needsScope(row.scope)));
    if (row.start === "glance") return this.#outcome(work);
    if (row.start === "none") return this.#toResult(owner, work);
    const mayStart = row.start === "known" ? (owner.mayStart ?? true) && "ifKnown" : owner.mayStart;
    const caller = { ...owner, mayStart };
    if (row.retry === "never") return this.#serveFiles(caller, work, row.up === "stream");
    return this.#serveAgain(caller, work);
  }

  /** Stores links to files of this container. Returns their ids. */
  keepFileLinks(
    owner: Owner,
    links: readonly Omit<FileLink, "actor" | "epoch" | "id">[],
  ): Promise<ActorResult<string[]>> {
    return this.#serveAgain(owner, async () => {
      // Starts the container if none runs.
      await this.#parts.files.call("stat", { path: "/" });
      const epoch = this.#parts.fileLinks.epoch();
      return Promise.all(links.map((link) => this.#parts.fileLinks.keep({ ...link, epoch })));
    });
  }

  /** Stores links to run outputs. Returns their ids. */
  keepRunLinks(owner: Owner, links: readonly Omit<RunLink, "actor">[]): Promise<ActorResult<string[]>> {
    return this.#toResult(owner, () => Promise.all(links.map((link) => this.#parts.fileLinks.keep(link))));
  }

  /** The link of this id; undefined if it has expired or its container is gone. */
  async findLink(id: string): Promise<KeptLink | undefined> {
    return this.#parts.fileLinks.find(id);
  }

  /**
   * The owner of a link's sandbox; undefined if its container is gone.
   * @param epoch of a link to a file; links to run outputs have none
   */
  async linkOwner(epoch?: string): Promise<Owner | undefined> {
    if (epoch !== undefined && (!this.#parts.lifecycle.isRunning || !this.#parts.fileLinks.belongsTo(epoch)))
      return undefined;
    const { principalID, sandbox } = this.#parts.account.owner;
    return { principalID, sandbox, mayStart: false, takesNotice: false };
  }

  statRunFile(owner: Owner, ...file: Parameters<RunFiles["stat"]>): Promise<ActorResult<RunFileStat>> {
    return this.#toResult(owner, () => this.#parts.runFiles.stat(...file));
  }

  openRunFile(
    owner: Owner,
    ...range: Parameters<RunFiles["open"]>
  ): Promise<ActorResult<ReadableStream<Uint8Array>>> {
    return this.#toResult(owner, async () => {
      return this.#parts.activity.trackTransfer(await this.#parts.runFiles.open(...range), {
        isOfContainer: false,
      });
    });
  }

  /** Claims an upload link, which works once. */
  async takeLink(link: UploadLink): Promise<ReturnType<FileLinks["claim"]>> {
    return this.#parts.fileLinks.claim(link);
  }

  async isLinkUsedUp(link: UploadLink): Promise<boolean> {
    return this.#parts.fileLinks.isUsedUp(link);
  }

  /** Ends an upload. If it failed, the link may be used again. */
  async leaveLink(link: UploadLink, isUsedUp: boolean): Promise<void> {
    this.#parts.fileLinks.releaseClaim(link, isUsedUp);
  }

  /**
   * Makes a port reachable for `ms` milliseconds. Starts a container if none runs.
   * @param token for a port that is not open yet
   */
  openPreview(
    owner: Owner,
    port: number,
    token: string,
    ms: number,
  ): Promise<ActorResult<ReturnType<Previews["open"]>>> {
    return this.#serveFiles(owner, async () => {
      await this.#parts.lifecycle.ready();
      return this.#parts.previews.open(port, token, Date.now() + ms);
    });
  }

  /** Returns whether the port was open. */
  closePreview(owner: Owner, port: number): Promise<ActorResult<boolean>> {
    return this.#toResult(owner, async () => this.#parts.previews.close(port));
  }

  /** Serves preview requests, besides what the SDK sends to its own actor. */
  override fetch(request: Request): Promise<Response> {
    return request.headers.has(PREVIEW_TOKEN) ? this.#parts.previews.serve(request) : super.fetch(request);
  }

  /** Creates a checkpoint of the workspace. Waits for a set-up under way, then saves. */
  makeCheckpoint(owner: Owner, label: string): Promise<ActorResult<Checkpoint>> {
    const make = async (begin: () => void) => {
      if (this.#parts.setUp.state === "running")
        await this.#parts.setUp.waitUntilDone({ ms: CHECKPOINT_WAIT_MS });
      begin();
      const keptAt = Date.now();
      await this.#parts.lifecycle.readyIfRunning(CALL_MS);
      const checkpoint = await this.#parts.workspace.checkpoint(label, this.#parts.settings);
      this.#parts.account.kept(keptAt);
      return checkpoint;
    };
    return this.#toResult(owner, () => this.#inTime(owner, make));
  }

  /** Ends the container; the next one starts from a checkpoint. Also returns the checkpoint of the previous state. */
  restoreCheckpoint(owner: Owner, checkpoint: string): Promise<ActorResult<RestoredCheckpoint>> {
    const { lifecycle, settings } = this.#parts;
    const restore = (begin: () => void) => {
      begin();
      return lifecycle.restoreCheckpoint(checkpoint, settings);
    };
    return this.#toResult(owner, () => this.#inTime(owner, restore));
  }

  /** Called by the account before the sandbox is created from a saved state. */
  inherit(owner: Owner, settings: CheckpointSettings): Promise<ActorResult<void>> {
    return this.#toResult(owner, async () => {
      this.#parts.settings.inherit(settings);
      await this.ctx.storage.sync();
    });
  }

  /** Called by the local platform before the server stops. Saves the workspace; returns whether everything was saved. */
  async saveToStop(): Promise<boolean> {
    const isSaved = (await this.#parts.workspace.saveToStop()) && this.#parts.workspace.mayStop;
    if (isSaved) this.#parts.lifecycle.noteServerStop();
    await this.#parts.network.connections.collect().catch(() => undefined);
    await this.ctx.storage.sync();
    return isSaved;
  }

  /**
   * Called by sandboxd, through the egress, before the platform ends the container. Saves the workspace.
   * @returns whether it was sandboxd: code in the sandbox can read the token
   */
  async containerEnding(token: string): Promise<boolean> {
    const { sandboxd, lifecycle } = this.#parts;
    if (!sandboxd.isToken(token)) return false;
    if (!lifecycle.isRunning) return true;
    const isServing = async () => (await sandboxd.report())?.isServing === true;
    if (await isServing()) return false;
    // Code goes through the control server, so sandboxd cannot refuse it.
    const hadCode = this.#parts.kernels.refuse(isServing);
    await this.#saveToEnd();
    if (hadCode) {
      await this.#parts.kernels.stopAll();
      this.#parts.workspace.changed();
      await this.#saveToEnd();
    }
    this.#parts.restartNotice.ending("platform");
    await this.ctx.storage.sync();
    return true;
  }

  async #saveToEnd(): Promise<void> {
    for (let attempt = 1; attempt <= ENDING_TRIES; attempt++) {
      await this.#parts.workspace.saveToStop();
      if (this.#parts.workspace.mayStop) return;
      await pause(ENDING_PAUSE_MS);
    }
  }

  /** Ends the container with all processes, and destroys what `ending` says. Returns what existed. */
  async destroySandbox(owner: Owner, ending: Ending = "workspace"): Promise<ActorResult<Destroyed>> {
    return { ok: true, value: await this.#parts.lifecycle.destroy(owner, ending) };
  }

  /** Called by the SDK's scheduler: deletes expired runs. */
  override async sweepRuns(): Promise<void> {
    await this.#parts.retention.sweep();
    this.#parts.storage.changed();
  }

  /** Called by the account when the principal's storage is full: deletes `bytes` bytes of runs that ended before `before`. */
  evictRuns(bytes: number, before: number): Promise<Stored> {
    return this.#parts.runs.evict(bytes, before);
  }

  /** Called by the account: whether a container runs or starts, and the previews. */
  condition(): SandboxStatus {
    return {
      isAlive: this.#parts.lifecycle.isAlive,
      previews: this.#parts.previews.list(),
    };
  }

  /** Called by the account at a limit: returns the unused part of the lease. */
  settleLease(): Settlement {
    return this.#parts.lease.settle();
  }

  /**
   * Called by the account for a sandbox that seems unused for `idleMs`. Returns whether it was destroyed; one that was used
   * meanwhile is not.
   */
  destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    const { lifecycle, account } = this.#parts;
    return lifecycle.destroyIfUnused(owner, () => account.wasUsedWithin(idleMs));
  }

  /**
   * Called by the account when another sandbox needs a container at the limit. Returns whether none runs here now.
   * @param waitMs as for `Lifecycle.makeRoom`
   */
  async stopIfIdle(owner: Owner, waitMs: number): Promise<boolean> {
    const { lifecycle, account } = this.#parts;
    await account.setOwner(owner);
    return lifecycle.makeRoom(waitMs);
  }

  /** Does a call that needs the container. @throws {ToolError} `quota_exceeded` if there are too many sandboxes */
  #serve<T>(
    owner: Owner,
    work: (begin: () => void) => Promise<T>,
    hasStream = false,
  ): Promise<ActorResult<T>> {
    const serve = async (begin: () => void) => {
      await this.#parts.lifecycle.admit(owner);
      return work(begin).finally(() => this.#parts.diskUsage.used());
    };
    return this.#toResult(owner, () => this.#inTime(owner, serve, hasStream));
  }

  /**
   * Limits `work` to the time that its client waits. `work` calls `begin` before its first effect; `begin` throws if the caller
   * was already told that the call takes too long. Work that has begun continues.
   * @param hasStream whether the work reads a stream, whose time is not limited
   * @throws {ToolError} `no_answer`
   */
  async #inTime<T>(owner: Owner, work: (begin: () => void) => Promise<T>, hasStream = false): Promise<T> {
    const ms = this.#callerWaitMs(owner);
    let hasBegun = false;
    let isLate = false;
    const begin = () => {
      if (isLate) throw actorUnreachable(owner.sandbox, ms, false);
      hasBegun = true;
    };
    const working = this.#parts.activity.call(async () => ({ value: await work(begin) }));
    const done = (await within(ms, working)) ?? (hasStream && hasBegun ? await working : undefined);
    if (done) return done.value;
    isLate = true;
    this.ctx.waitUntil(working.catch(() => undefined).finally(() => this.#parts.lifecycle.release()));
    throw actorUnreachable(owner.sandbox, ms, hasBegun);
  }

  /** As `#serve`, for calls that are not runs and so wait for the set-up here. */
  #serveFiles<T>(owner: Owner, work: () => Promise<T>, hasStream = false): Promise<ActorResult<T>> {
    return this.#serve(owner, (begin) => this.#afterSetUp(owner, begin, work), hasStream);
  }

  /** As `#serveFiles`, for idempotent work, which is repeated in the next container if this one is gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<ActorResult<T>> {
    return this.#serve(owner, (begin) =>
      this.#parts.lifecycle.retryInNextContainer(owner, () => this.#afterSetUp(owner, begin, work)),
    );
  }

  async #afterSetUp<T>(owner: Owner, begin: () => void, work: () => Promise<T>): Promise<T> {
    const mayBegin = owner.mayStart !== false;
    if (mayBegin) await this.#parts.setUp.begin();
    await this.#parts.setUp.waitUntilDone({ mayBegin });
    begin();
    return await work();
  }

  /** Does one call. Expected errors become data; unexpected ones are thrown, to be logged. */
  async #toResult<T>(owner: Owner, work: () => Promise<T>): Promise<ActorResult<T>> {
    if (await this.#parts.account.setOwner(owner)) await this.setSandboxName(owner.sandbox);
    const called = this.#parts.activity.call(() => this.#outcome(work));
    const outcome = await called.finally(() => this.#parts.lifecycle.release());
    if (owner.takesNotice === false) return outcome;
    const notices = [
      this.#parts.restartNotice.takeNotice(),
      this.#parts.workspace.takeNotice(),
      this.#parts.setUp.takeNotice(),
      this.#parts.service.takeNotice(),
    ];
    return { ...outcome, notice: notices.filter(Boolean).join(" ") || undefined };
  }

  async #outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
    try {
      return { ok: true, value: await work() };
    } catch (cause) {
      const error = await this.#parts.lifecycle.explained(cause);
      if (!(error instanceof ToolError)) throw error;
      const failure = error.toFailure();
      return { ok: false, failure: this.#parts.runs.hasUnendedRun ? failure : withoutRuns(failure) };
    }
  }
}

handleOutbound(Sandbox);
