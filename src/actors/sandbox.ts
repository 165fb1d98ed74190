/** The actor of one sandbox: its container, kernels, files and runs. Our methods sit on the SDK's own class. */
import type { OperationName } from "../../container/sandboxd/operations.ts";
import type { TerminalInput } from "../container/connection.ts";
import type { Admission, ModelOutcome, ModelCall } from "../container/model-calls.ts";
import type { CodeRunSpec } from "../runs/code-executor.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import type { Executor } from "../runs/executor.ts";
import { localID } from "../runs/id.ts";
import type { Allowance, RunSummary, RunView } from "../runs/run-types.ts";
import type { RunStart, LogPage, OnProgress, TerminalReply, WaitsFor } from "../runs/runs.ts";
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
import type { Checkpoint } from "./snapshot-registry.ts";

/** What an actor's method answers: the outcome, and a notice when state was lost since the last answer. */
export type ActorResult<T> = Outcome<T> & { notice?: string };

/** A run, and the part of its log that was asked for. */
export interface RunReading {
  run: RunView;
  page?: LogPage;
}

/** What of which run to read. */
export interface RunToRead {
  id: string;
  /** How long to wait, milliseconds. */
  waitMs: number;
  /** The byte of the log to read from; without, there is no page of the log. */
  cursor?: number | undefined;
  /** Bytes of the page at most. */
  maxBytes?: number;
  onProgress?: OnProgress | undefined;
  until?: WaitsFor;
  /** Of a question: characters of the program that are known. While the model writes more, that ends the wait. */
  seenCode?: number;
}

/** A task that a new one continues. */
export interface TaskOrigin {
  run: RunView;
  /** Whether the sandbox still holds what the task left in it. */
  alive: boolean;
}

/** What a sandbox is set to, and where its actor was made; undefined where the platform chose. */
export type Configured = CurrentSettings & { region: Region | undefined };

/** How long a checkpoint waits for a set-up, milliseconds: a save follows. */
const CHECKPOINT_WAIT_MS = 15_000;

/** How often a save is tried before the platform ends the container, and the pause between two tries, milliseconds. */
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
    // What runs in the sandbox does not wait for the next call; that enforces it again where this fails.
    if (account.principalID !== undefined) ctx.waitUntil(lifecycle.enforceNetwork().catch(() => undefined));
  }

  /** Brings a coding agent that sandboxes lack. The image has all of them. @throws Error that says what to do */
  protected async prepareAgent(_agent: string): Promise<void> {}

  /** Called by the egress for each request that it has sent on or refused under a policy. */
  connectionMade(connection: SandboxConnection): void {
    this.noteConnection(connection);
    this.#parts.network.connections.collectSoon();
  }

  /** @param namesID whether the answer names the run also where there is no more to fetch */
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

  /** Starts what the caller wants to run, and waits for it. */
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

  /** How a run of this owner begins: its caller has its id in time, whatever the sandbox does. */
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

  /**
   * Changes settings of the sandbox, which need not run, and answers them all.
   * @param region where the caller wants it to be made
   */
  configureSandbox(
    owner: Owner,
    change: SettingsChange,
    region: Region | undefined,
  ): Promise<ActorResult<Configured>> {
    return this.#toResult(owner, async () => {
      // A task that is at work takes what is set when it continues.
      this.#parts.tasks.keepApart(owner);
      const made = this.#parts.account.owner.region;
      if (region !== undefined && region !== made) throw otherRegion(owner.sandbox, region, made);
      await this.#parts.settings.change(owner, change);
      if (change.network !== undefined) await this.#parts.lifecycle.enforceNetwork();
      return { ...this.#parts.settings.current, region: made };
    });
  }

  /** Asks a person, where a change lets the sandbox reach more. @param waitMs for the answer to what was asked before */
  askForNetwork(owner: Owner, change: NetworkChoice, waitMs: number): Promise<ActorResult<Asked>> {
    return this.#toResult(owner, () => this.#parts.decisions.ask(change, waitMs));
  }

  /** A question that is open, for whoever has its link. */
  async networkQuestion(id: string): Promise<NetworkQuestion | undefined> {
    const { account, decisions } = this.#parts;
    return account.principalID === undefined ? undefined : decisions.find(account.owner.sandbox, id);
  }

  /** The person's decision. Answers whether there was such a question. */
  decideNetwork(owner: Owner, id: string, isAllowed: boolean): Promise<ActorResult<boolean>> {
    return this.#toResult(owner, async () => {
      const wasOpen = await this.#parts.decisions.decide(owner, id, isAllowed);
      if (wasOpen && isAllowed) await this.#parts.lifecycle.enforceNetwork();
      return wasOpen;
    });
  }

  /** What a sandbox connected to, in lines. */
  connectionLines(owner: Owner): Promise<ActorResult<string>> {
    return this.#toResult(owner, () => this.#parts.network.lines());
  }

  /** Answers with the run as soon as it has started; `readRun` waits for its end. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<ActorResult<RunView>> {
    return this.#handOver(owner, this.#parts.tasks, spec.task, spec);
  }

  /** As `executeTask`; `readRun` waits for its program, too. */
  askQuestion(owner: Owner, spec: QuestionSpec): Promise<ActorResult<RunView>> {
    return this.#handOver(owner, this.#parts.questions, spec.question, spec);
  }

  /** Starts a run that uses the model, within its tokens of the day. */
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
    return this.#toResult(owner, async () => {
      const run = await this.#parts.runs.result(id, 0);
      const detail = taskDetailOf(run);
      const alive =
        this.platform.isRunning && !detail?.ownSandbox && detail?.boot === this.#parts.restartNotice.count;
      return { run, alive };
    });
  }

  /** A range of an artifact of a task. */
  readArtifact(
    owner: Owner,
    ...range: Parameters<RunFiles["artifact"]>
  ): Promise<ActorResult<ArtifactRange>> {
    return this.#toResult(owner, () => this.#parts.runFiles.artifact(...range));
  }

  /** Called by the egress for each request to a model: whether this key belongs to a task that runs here. */
  admitModelCall(key: string): Promise<Admission> {
    return this.#parts.modelUse.admitModelCall(key);
  }

  /** Called by the egress while a request to a model is under way. */
  renewModelCall(call: ModelCall): void {
    this.#parts.modelUse.renewModelCall(call);
  }

  /** Called by the egress when a request to a model is over. */
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void {
    this.#parts.modelUse.finishModelCall(call, outcome);
  }

  /** Waits for the end of a run or, with a cursor, for output after it; then answers the run and the log from there on. */
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

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<ActorResult<RunView>> {
    return this.#toResult(owner, () => this.#parts.runs.cancel(id, waitMs));
  }

  /** Does an operation on files, as its row says: what it starts, whether it is repeated, and what is saved after it. */
  operate(owner: Owner, name: OperationName, input: object): Promise<ActorResult<object>> {
    const row = policyOf(name);
    const work = () => this.#parts.operations.run(owner, name, input);
    if (!hasScope(owner, row)) return this.#outcome(() => Promise.reject(needsScope(row.scope)));
    if (row.start === "glance") return this.#outcome(work);
    if (row.start === "none") return this.#toResult(owner, work);
    const mayStart = row.start === "known" ? (owner.mayStart ?? true) && "again" : owner.mayStart;
    const caller = { ...owner, mayStart };
    if (row.retry === "never") return this.#serveFiles(caller, work, row.up === "stream");
    return this.#serveAgain(caller, work);
  }

  /** Keeps links to files of this container, and answers their ids. */
  keepFileLinks(
    owner: Owner,
    links: readonly Omit<FileLink, "actor" | "epoch" | "id">[],
  ): Promise<ActorResult<string[]>> {
    return this.#serveAgain(owner, async () => {
      // Starts the container, where there is none.
      await this.#parts.files.call("stat", { path: "/" });
      const epoch = this.#parts.fileLinks.epoch();
      return Promise.all(links.map((link) => this.#parts.fileLinks.keep({ ...link, epoch })));
    });
  }

  /** Keeps links to what runs left, and answers their ids. */
  keepRunLinks(owner: Owner, links: readonly Omit<RunLink, "actor">[]): Promise<ActorResult<string[]>> {
    return this.#toResult(owner, () => Promise.all(links.map((link) => this.#parts.fileLinks.keep(link))));
  }

  /** The link of this id; undefined where it has expired, or its container is gone. */
  async findLink(id: string): Promise<KeptLink | undefined> {
    return this.#parts.fileLinks.find(id);
  }

  /**
   * Whose sandbox a link leads to; undefined where its container is gone.
   * @param epoch of a link to a file; links to what a run left have none
   */
  async linkOwner(epoch?: string): Promise<Owner | undefined> {
    if (epoch !== undefined && (!this.platform.isRunning || !this.#parts.fileLinks.belongsTo(epoch)))
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

  /** Takes an upload link, which is good for one upload. */
  async takeLink(link: UploadLink): Promise<ReturnType<FileLinks["claim"]>> {
    return this.#parts.fileLinks.claim(link);
  }

  async isLinkUsedUp(link: UploadLink): Promise<boolean> {
    return this.#parts.fileLinks.isUsedUp(link);
  }

  /** The upload by a link is over; one that came to nothing may be made again. */
  async leaveLink(link: UploadLink, isUsedUp: boolean): Promise<void> {
    this.#parts.fileLinks.releaseClaim(link, isUsedUp);
  }

  /**
   * Lets a port be reached from outside for `ms` milliseconds; starts the container when none runs.
   * @param token for the address of a port that is not open yet
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

  /** Answers whether the port could be reached. */
  closePreview(owner: Owner, port: number): Promise<ActorResult<boolean>> {
    return this.#toResult(owner, async () => this.#parts.previews.close(port));
  }

  /** Requests to previews, beside what the SDK asks of its own actor. */
  override fetch(request: Request): Promise<Response> {
    return request.headers.has(PREVIEW_TOKEN) ? this.#parts.previews.serve(request) : super.fetch(request);
  }

  /** Names the state of the workspace, which is saved first, and before that set up where that is under way. */
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

  /** Ends the container; the next one has the state of a checkpoint. Answers the checkpoint of the state before, too. */
  restoreCheckpoint(owner: Owner, checkpoint: string): Promise<ActorResult<RestoredCheckpoint>> {
    const { lifecycle, settings } = this.#parts;
    const restore = (begin: () => void) => {
      begin();
      return lifecycle.restoreCheckpoint(checkpoint, settings);
    };
    return this.#toResult(owner, () => this.#inTime(owner, restore));
  }

  /** Called by the account for a sandbox that is about to be made of a saved state. */
  inherit(owner: Owner, settings: CheckpointSettings): Promise<ActorResult<void>> {
    return this.#toResult(owner, async () => {
      this.#parts.settings.inherit(settings);
      await this.ctx.storage.sync();
    });
  }

  /** Called by the local platform before the server stops: saves the workspace. Answers whether all of it is saved. */
  async saveToStop(): Promise<boolean> {
    const isSaved = (await this.#parts.workspace.saveToStop()) && this.#parts.workspace.mayStop;
    if (isSaved && this.platform.isRunning) this.#parts.restartNotice.ending("server");
    await this.#parts.network.connections.collect().catch(() => undefined);
    await this.ctx.storage.sync();
    return isSaved;
  }

  /**
   * Called by sandboxd, through the egress, before the platform ends the container: saves the workspace.
   * @returns whether the token is that of sandboxd
   */
  async containerEnding(token: string): Promise<boolean> {
    if (!this.#parts.sandboxd.isToken(token)) return false;
    if (!this.platform.isRunning) return true;
    // Code goes by the control server, so that sandboxd, which refuses all else, cannot refuse it.
    const hadCode = this.#parts.kernels.refuse();
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

  /** Ends the container with every process in it, and what `ending` says. Answers what there was to end. */
  async destroySandbox(owner: Owner, ending: Ending = "workspace"): Promise<ActorResult<Destroyed>> {
    return { ok: true, value: await this.#parts.lifecycle.destroy(owner, ending) };
  }

  /** Called by the SDK's scheduler: removes expired runs. */
  override async sweepRuns(): Promise<void> {
    await this.#parts.retention.sweep();
    this.#parts.storage.changed();
  }

  /** Called by the account when the principal's storage is full: removes so many bytes of runs that ended before a time. */
  evictRuns(bytes: number, before: number): Promise<Stored> {
    return this.#parts.runs.evict(bytes, before);
  }

  /** Called by the account: whether a container runs or is being started, and its previews. */
  condition(): SandboxStatus {
    return {
      isAlive: this.#parts.lifecycle.isAlive,
      previews: this.#parts.previews.list(),
    };
  }

  /** Called by the account when a limit is reached: gives back what the lease holds beyond what runs. */
  settleLease(): Settlement {
    return this.#parts.lease.settle();
  }

  /**
   * Called by the account for a sandbox that was not used for so many milliseconds, as far as the account knows. Answers
   * whether it was destroyed; one that was used since stays.
   */
  destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    const { lifecycle, account } = this.#parts;
    return lifecycle.destroyIfUnused(owner, () => account.wasUsedWithin(idleMs));
  }

  /**
   * Called by the account when another sandbox needs a container and the limit is reached. Answers whether none runs here now.
   * @param waitMs as for `Lifecycle.makeRoom`
   */
  async stopIfIdle(owner: Owner, waitMs: number): Promise<boolean> {
    const { lifecycle, account } = this.#parts;
    await account.setOwner(owner);
    return lifecycle.makeRoom(waitMs);
  }

  /** Does the work of one call that needs the container. @throws {ToolError} `quota_exceeded` for a sandbox too many */
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
   * What the work of a call comes to, while its client still waits for that. `work` calls `begin` before it does anything of the
   * caller's: that throws once the call was answered that it takes too long. What has begun by then goes on.
   * @param hasStream whether the work takes in a stream, for whose time there is no limit
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

  /** As `#serve`, for what is no run and so waits for the sandbox's set-up here. */
  #serveFiles<T>(owner: Owner, work: () => Promise<T>, hasStream = false): Promise<ActorResult<T>> {
    return this.#serve(owner, (begin) => this.#afterSetUp(owner, begin, work), hasStream);
  }

  /** As `#serveFiles`, for idempotent work, which is repeated in the next container when this one turns out to be gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<ActorResult<T>> {
    return this.#serve(owner, (begin) =>
      this.#parts.lifecycle.retryInNextContainer(owner, () => this.#afterSetUp(owner, begin, work)),
    );
  }

  /** Whoever may only read starts no set-up. */
  async #afterSetUp<T>(owner: Owner, begin: () => void, work: () => Promise<T>): Promise<T> {
    const mayBegin = owner.mayStart !== false;
    if (mayBegin) await this.#parts.setUp.begin();
    await this.#parts.setUp.waitUntilDone({ mayBegin });
    begin();
    return await work();
  }

  /** Does the work of one call. Errors for the caller become data; unexpected ones are thrown, for the log. */
  async #toResult<T>(owner: Owner, work: () => Promise<T>): Promise<ActorResult<T>> {
    if (await this.#parts.account.setOwner(owner)) await this.setSandboxName(owner.sandbox);
    const called = this.#parts.activity.call(() => this.#outcome(work));
    const outcome = await called.finally(() => this.#parts.lifecycle.release());
    if (owner.takesNotice === false) return outcome;
    const notices = [
      this.#parts.restartNotice.takeNotice(),
      this.#parts.workspace.takeNotice(),
      this.#parts.setUp.takeNotice(),
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
