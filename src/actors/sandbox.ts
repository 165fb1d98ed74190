/** The actor of one sandbox: its container, kernels, files and runs. Our methods sit on the SDK's own class. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { OperationName } from "../../container/sandboxd/operations.ts";
import {
  SANDBOXD_PORT,
  SERVER_HOST,
  TOKEN_HEADER,
  TOKEN_VARIABLE,
} from "../../container/sandboxd/protocol.ts";
import { serveEnding } from "../container/ending.ts";
import { CodeExecutor, type CodeRunSpec } from "../runs/code.ts";
import { type CommandSpec, Commands } from "../runs/command.ts";
import { localID } from "../runs/id.ts";
import type { Executor } from "../runs/executor.ts";
import type { Allowance, RunSummary, RunView } from "../runs/run.ts";
import type { RunKind } from "../shared/run-listing.ts";
import {
  type Beginning,
  type LogPage,
  Runs,
  type OnProgress,
  type Typed,
  type WaitsFor,
} from "../runs/runs.ts";
import type { RunRecord, Stored } from "../runs/store.ts";
import { TaskBudgets } from "../tasks/budget.ts";
import { type QuestionSpec, Questions } from "../tasks/questions.ts";
import { type TaskSpec, Tasks } from "../tasks/tasks.ts";
import type { Admission, ModelAnswer, ModelCall } from "../container/model-calls.ts";
import { questionDetailOf } from "../runs/run.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { type Env, parseConfig } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { OUTBOUND, callModel } from "../container/model-egress.ts";
import { throughPolicy } from "../container/internet.ts";
import type { Connection as SandboxConnection } from "../shared/connection-log.ts";
import { networkLimits } from "../shared/network-limits.ts";
import { type NetworkPlatform, OutboundHandlers, POLICY_HANDLER, SandboxNetwork } from "./network.ts";
import { type Outcome, ToolError, isGone, platformFailure, withoutRuns } from "../shared/errors.ts";
import { Snapshots } from "../container/snapshots.ts";
import { IDLE_STOP_MINUTES } from "../shared/idle-stop.ts";
import { log } from "../shared/log.ts";
import { within } from "../shared/within.ts";
import type { Region } from "../shared/principal.ts";
import { type Secret, secretsFor } from "../shared/secrets.ts";
import { pause } from "../shared/within.ts";
import { SerialQueue } from "../shared/queue.ts";
import { PREVIEW_TOKEN } from "../shared/preview-address.ts";
import { Connection, containerGone, type TerminalInput } from "../container/connection.ts";
import { Files } from "../container/files.ts";
import { Kernels } from "../container/kernels/kernels.ts";
import type { CheckpointSettings, Condition, Destroyed, Ending, Owner, WentBack } from "./account-calls.ts";
import { AccountLink } from "./account-link.ts";
import { notAnswered } from "./actor-errors.ts";
import { Activity } from "./activity.ts";
import { Lifecycle } from "./container-lifecycle.ts";
import { ContainerStarts } from "./container-starts.ts";
import type { FileLink, KeptLink, RunLink } from "../shared/file-link.ts";
import { FileLinks, type UploadLink } from "./file-links.ts";
import { DiskUsage } from "./disk-usage.ts";
import { intercept } from "./interception.ts";
import { Lease } from "./lease.ts";
import { ModelUse } from "./model-use.ts";
import { Operations, hasScope, needsScope, policyOf } from "./operations.ts";
import { Previews } from "./previews.ts";
import type { Settlement } from "./quota.ts";
import { Registration } from "./registration.ts";
import { type CurrentSettings, SandboxSettings, type SettingsChange } from "./settings.ts";
import { SetUp } from "./set-up.ts";
import { SetUpOutcomes } from "./set-up-outcomes.ts";
import { SandboxVariables } from "./sandbox-variables.ts";
import { RestartNotice } from "./restart-notice.ts";
import type { Checkpoint } from "./snapshot-registry.ts";
import { Workspace } from "./workspace.ts";
import { Retention } from "./retention.ts";
import { type ArtifactRange, RunFiles, type RunFileStat } from "./run-files.ts";
import { Storage } from "./storage.ts";
import { migrate } from "../storage/migrations.ts";
import { objectStore } from "../storage/object-store.ts";
import { SANDBOX_SCHEMA } from "../storage/sandbox-schema.ts";

/** What an actor's method answers: the outcome, and a notice when state was lost since the last answer. */
export type Answer<T> = Outcome<T> & { notice?: string };

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
  /** Of a question: characters of the program that are known. While the model writes more, that ends the wait. */
  seenCode?: number;
  onProgress?: OnProgress | undefined;
  until?: WaitsFor;
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

/** Containers that are started for one call or run at most. */
const MAX_STARTS = 3;

/** A sandbox that was used within so many milliseconds, and not for a checkpoint last, makes no room for another. */
const AT_WORK_MS = 30_000;

/**
 * How long an end waits for the save before it, milliseconds; the save goes on. Who waits for the end meanwhile: a policy that is
 * to be enforced with the call that set it, and the platform's alarm, which may take 15 minutes.
 */
const SAVE_TO_STOP_MS = 40_000;

/** How often a save is tried before the platform ends the container, and the pause between two tries, milliseconds. */
const ENDING_TRIES = 3;
const ENDING_PAUSE_MS = 1000;

/** Storage key of the token for sandboxd. */
const TOKEN_KEY = "sandboxd:token";

/** Storage key of the time until which the account knows what runs have used. */
const SETTLED = "told";

export class Sandbox extends BaseSandbox<Env> {
  override sleepAfter: string | number = IDLE_STOP_MINUTES * 60;

  readonly #restartNotice: RestartNotice;
  readonly #starts: ContainerStarts;
  readonly #lifecycle: Lifecycle;
  readonly #accountLink: AccountLink;
  readonly #lease: Lease;
  readonly #registration: Registration;
  readonly #activity: Activity;
  readonly #variables: SandboxVariables;
  readonly #network: SandboxNetwork;
  readonly #setUp: SetUp;
  readonly #connection: Connection;
  readonly #files: Files;
  readonly #operations: Operations;
  readonly #kernels: Kernels;
  readonly #budgets: TaskBudgets;
  readonly #code: CodeExecutor;
  readonly #commands: Commands;
  readonly #tasks: Tasks;
  readonly #questions: Questions;
  readonly #modelUse: ModelUse;
  readonly #runs: Runs;
  readonly #retention: Retention;
  readonly #diskUsage: DiskUsage;
  readonly #storage: Storage;
  readonly #previews: Previews;
  readonly #workspace: Workspace;
  readonly #runFiles: RunFiles;
  readonly #fileLinks: FileLinks;
  readonly #settings: SandboxSettings;
  /** Who waited while the network was enforced by ending a container must not end the next one. */
  readonly #enforcing = new SerialQueue();

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    migrate(ctx.storage, SANDBOX_SCHEMA);
    const { kv, sql } = ctx.storage;
    const config = parseConfig(env);
    const keepMs = config.resultTTLDays * DAY_MS;
    const logCapBytes = config.runLogMaxMiB * 1024 * 1024;
    const running = () => this.#isUp;
    const background = (work: Promise<unknown>) => ctx.waitUntil(work);
    const common = { kv, running, background };
    const report = (where: string) => (error: unknown) =>
      log(config, { event: "error", ref: crypto.randomUUID(), where, error });

    this.#restartNotice = new RestartNotice(kv);
    this.#starts = new ContainerStarts(running);
    this.#lifecycle = new Lifecycle(
      {
        running,
        stop: () => this.stop(),
        isRecordedAsRunning: async () => ["running", "healthy"].includes((await this.getState()).status),
        started: () => {
          this.#kernels.containerStarted();
          this.#accountLink.note("start");
        },
        gone: () => this.#containerGone(),
      },
      this.#restartNotice,
    );
    this.#accountLink = new AccountLink(ctx, env);
    this.#lease = new Lease({
      limits: config.limits,
      ask: (request) => this.#accountLink.account().lease(this.#accountLink.owner, request),
      background,
      settled: () => kv.put(SETTLED, Date.now()),
    });
    this.#activity = new Activity({ background, used: () => this.renewActivityTimeout() });
    this.#registration = new Registration({
      accountLink: this.#accountLink,
      starts: this.#starts,
      lease: this.#lease,
      running,
      isInUse: () => this.#isAtWork,
      prepare: () => this.#leavePrevious(),
    });

    const sandbox = () => this.#accountLink.owner.sandbox;
    const bucket = objectStore(env.RESULTS);
    const objects = { bucket, prefix: (runID: string) => this.#accountLink.prefix(runID) };
    this.#connection = new Connection({
      running,
      isReady: () => this.#workspace.isReady,
      ready: (ms) => this.#workspace.ready(ms),
      fetch: (request) => this.#toSandboxd(request),
      used: () => this.renewActivityTimeout(),
    });
    this.#workspace = new Workspace({
      ...common,
      sync: () => ctx.storage.sync(),
      // Any call of the SDK starts the container, and its error says why it did not start.
      start: async () => void (await this.client.utils.ping()),
      snapshots: new Snapshots(this.#connection),
      bucket,
      prefix: () => this.#accountLink.workspacesPrefix,
      account: () => this.#accountLink.account(),
      sandbox,
      settings: () => this.#settings.kept,
      ...config.workspaces,
      isSettingUp: () => this.#setUp.isHalfDone,
      restartNotice: this.#restartNotice,
      report: report("workspace"),
    });
    this.#files = new Files((...request) => this.#connection.fetch(...request));
    this.#operations = new Operations({
      files: this.#files,
      glancing: new Files((...request) => this.#connection.request(...request)),
      activity: this.#activity,
      workspace: this.#workspace,
      running,
    });
    this.#variables = new SandboxVariables(kv);
    this.#network = new SandboxNetwork({
      kv,
      platform: this.networkPlatform,
      limits: () => networkLimits(config, this.#accountLink.principalID),
      principalID: () => this.#accountLink.principalID,
      secretHosts: () => [...new Set(this.#secrets.flatMap(({ hosts }) => hosts))],
      intercept: (hosts, policy) => intercept(this, ctx, hosts, policy, this.#secrets),
    });
    const link = {
      connection: this.#connection,
      running,
      ready: (isOver: () => boolean) => this.#readyForRun(isOver),
      variables: () => this.#variables.current,
    };
    this.#kernels = new Kernels(this, link, sql);
    this.#code = new CodeExecutor(this.#kernels, this.#files, logCapBytes);
    this.#commands = new Commands(link);
    this.#budgets = new TaskBudgets(sql);
    this.#tasks = new Tasks({
      files: this.#files,
      commands: this.#commands,
      budgets: this.#budgets,
      prepareAgent: (agent) => this.prepareAgent(agent),
      objects,
      boot: () => this.#restartNotice.count,
      maxTokens: config.tasks.maxTokens,
      archives: this.#workspace,
      archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
      keepMs,
      report: report("execute_task"),
    });
    this.#questions = new Questions({
      code: this.#code,
      budgets: this.#budgets,
      maxTokens: config.tasks.maxTokens,
      callModel: (request) => callModel(request, env, ctx.id.toString()),
      startContainer: link.ready,
    });
    this.#modelUse = new ModelUse({
      budgets: this.#budgets,
      tasks: this.#tasks,
      isRunning: (run) => this.#runs.isRunning(run),
      isConfined: () => this.#network.policy.internet !== "full",
      spend: (tokens) => this.#accountLink.account().spendModelTokens(tokens),
      background,
    });
    this.#runs = new Runs({
      sql,
      executors: {
        code: this.#code,
        command: this.#commands,
        task: {
          resume: (run, state) =>
            (questionDetailOf(run.record) ? this.#questions : this.#tasks).resume(run, state),
        },
      },
      quota: this.#lease,
      sandbox,
      objects,
      logCapBytes,
      keepMs,
      background,
      ready: async () => {
        await this.#registerForRun();
        this.#storage.changed();
      },
      completed: (end, startedAt) => this.#network.withRefusals(end, startedAt),
      explained: (error) => this.#lifecycle.explained(error),
      failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
      unneeded: () => background(this.#letGo()),
      ended: (run, hasFiles) => this.#runEnded(run, hasFiles),
      taskRemoved: (id) => this.#accountLink.account().removeArchive(id),
    });
    this.#runFiles = new RunFiles(this.#runs, objects);
    this.#fileLinks = new FileLinks(kv);
    this.#retention = new Retention({
      ...common,
      connection: this.#connection,
      runs: this.#runs,
      keepMs,
      schedule: (at) => this.schedule(at, "sweepRuns"),
    });
    this.#diskUsage = new DiskUsage({
      ...common,
      measure: async () =>
        this.#accountLink.measured((await this.#files.call("usage", { path: "/workspace" })).bytes),
    });
    this.#storage = new Storage({
      runs: this.#runs,
      report: (stored) => this.#accountLink.account().sandboxStored(this.#accountLink.owner, stored),
      background,
    });
    this.#previews = new Previews({
      sql,
      running,
      boot: () => this.#restartNotice.count,
      fetch: (request) => this.#toSandboxd(request),
      used: () => {
        background(this.#accountLink.used());
        this.renewActivityTimeout();
      },
    });
    this.#lease.inherit(this.#runs.secondsSince(kv.get<number>(SETTLED)));
    this.#runs.resume(this.#isUp);
    this.#setUp = new SetUp({
      ...common,
      sandbox,
      outcomes: new SetUpOutcomes({
        workspace: this.#workspace,
        variables: () => this.#variables.current,
        policy: () => this.#network.policy,
        secrets: () => this.#secrets,
        isSaved: config.workspaces.isSaved,
        keepMs: config.workspaces.ttlDays * DAY_MS,
        again: (work) => this.#again(this.#accountLink.owner, work),
        report: report("workspace"),
      }),
      workspace: this.#workspace,
      runs: this.#runs,
      commands: this.#commands,
      report: report("workspace"),
    });
    this.#settings = new SandboxSettings({
      variables: this.#variables,
      network: this.#network,
      setUp: this.#setUp,
      starts: this.#starts,
      register: (owner, settings) => this.#accountLink.configured(owner, settings),
    });
    // What runs in the sandbox does not wait for the next call; that enforces it again where this fails.
    if (this.#accountLink.principalID !== undefined)
      background(this.#enforceNetwork().catch(() => undefined));
  }

  readonly #outbound = new OutboundHandlers(this, this.ctx.storage.kv, () => this.#isUp);

  /** What enforces what the sandbox may reach. The local platform has its own. */
  protected get networkPlatform(): NetworkPlatform {
    return this.#outbound;
  }

  /** Brings a coding agent that sandboxes lack. The image has all of them. @throws Error that says what to do */
  protected async prepareAgent(_agent: string): Promise<void> {}

  /** Those that the sandbox's principal may use. */
  get #secrets(): Secret[] {
    return secretsFor(parseConfig(this.env).secrets, this.#accountLink.principalID);
  }

  /** Called by the egress for each request that it has sent on or refused under a policy. */
  connectionMade(connection: SandboxConnection): void {
    this.#outbound.note(connection);
    this.#network.connections.collectSoon();
  }

  get #isUp(): boolean {
    return this.ctx.container?.running === true;
  }

  /** @param namesID whether the answer names the run also where there is no more to fetch */
  executeCode(
    owner: Owner,
    spec: CodeRunSpec,
    waitMs: number,
    namesID: boolean,
    onProgress?: OnProgress,
  ): Promise<Answer<RunView>> {
    return this.#execute(owner, this.#code, spec.code, spec, waitMs, namesID, onProgress);
  }

  /** @param namesID as for code */
  executeCommand(
    owner: Owner,
    spec: CommandSpec,
    waitMs: number,
    namesID: boolean,
    onProgress?: OnProgress,
  ): Promise<Answer<RunView>> {
    return this.#execute(owner, this.#commands, spec.command, spec, waitMs, namesID, onProgress);
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
  ): Promise<Answer<RunView>> {
    const waitUntil = Date.now() + waitMs;
    const mayBegin = () => this.#tasks.keepApart(owner);
    const beginning = this.#beginning(owner, mayBegin, { waitUntil, namesID, onProgress });
    return this.#answer(owner, () => this.#runs.start(this.#setUp.before(executor), source, spec, beginning));
  }

  /** How a run of this owner begins: its caller has its id in time, whatever the sandbox does. */
  #beginning(
    owner: Owner,
    mayBegin: () => void | Promise<void>,
    waiting: Pick<Beginning, "waitUntil" | "namesID" | "onProgress">,
  ): Beginning {
    const answerBy = Date.now() + this.#answerMs(owner);
    const prepare = async () => {
      await this.#registration.make(owner);
      await mayBegin();
      await this.#setUp.begin();
    };
    return { ...waiting, prepare, answerBy };
  }

  #answerMs({ answerMs }: Owner): number {
    return answerMs ?? parseConfig(this.env).maxWaitSeconds * 1000;
  }

  /**
   * Changes settings of the sandbox, which need not run, and answers them all.
   * @param region where the caller wants it to be made
   */
  configureSandbox(
    owner: Owner,
    change: SettingsChange,
    region: Region | undefined,
  ): Promise<Answer<Configured>> {
    return this.#answer(owner, async () => {
      // A task that is at work takes what is set when it continues.
      this.#tasks.keepApart(owner);
      const made = this.#accountLink.owner.region;
      if (region !== undefined && region !== made) throw isMade(owner.sandbox, region, made);
      await this.#settings.change(owner, change);
      if (change.network !== undefined) await this.#enforceNetwork();
      return { ...this.#settings.current, region: made };
    });
  }

  /** Enforces what the sandbox may reach, and ends a container that keeps more: also when the operator has lowered it. */
  #enforceNetwork(): Promise<void> {
    return this.#enforcing.run(async () => {
      if (!this.#isUp || (await this.#network.enforce())) return;
      // What holds now is enforced late rather than never.
      const isOver = await this.#workspace.saveToStop(SAVE_TO_STOP_MS);
      const isSaved = isOver && this.#workspace.mayStop && !this.#runs.isBusy;
      this.#restartNotice.ending(isSaved ? "network" : "unsaved_network");
      await this.#starts.destroy(async () => {
        this.#runs.containerGone("The sandbox was stopped so that it reaches no more than it may.");
        await this.#end();
      });
    });
  }

  /** What a sandbox connected to, in lines. */
  connectionLines(owner: Owner): Promise<Answer<string>> {
    return this.#answer(owner, () => this.#network.lines());
  }

  /** Answers with the run as soon as it has started; `readRun` waits for its end. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<Answer<RunView>> {
    return this.#handOver(owner, this.#tasks, spec.task, spec);
  }

  /** As `executeTask`; `readRun` waits for its program, too. */
  askQuestion(owner: Owner, spec: QuestionSpec): Promise<Answer<RunView>> {
    return this.#handOver(owner, this.#questions, spec.question, spec);
  }

  /** Starts a run that uses the model, within its tokens of the day. */
  #handOver<Spec extends Allowance>(
    owner: Owner,
    executor: Executor<Spec>,
    source: string,
    spec: Spec,
  ): Promise<Answer<RunView>> {
    const mayBegin = () => this.#modelUse.mayBegin();
    const beginning = this.#beginning(owner, mayBegin, { waitUntil: 0, namesID: true });
    return this.#answer(owner, async () => {
      const run = await this.#runs.start(this.#setUp.before(executor), source, spec, beginning);
      await this.#accountLink.account(owner).taskSeen(run);
      return run;
    });
  }

  taskOrigin(owner: Owner, id: string): Promise<Answer<TaskOrigin>> {
    return this.#answer(owner, async () => {
      const run = await this.#runs.result(id, 0);
      const detail = taskDetailOf(run);
      const alive = this.#isUp && !detail?.ownSandbox && detail?.boot === this.#restartNotice.count;
      return { run, alive };
    });
  }

  /** A range of an artifact of a task. */
  readArtifact(owner: Owner, ...range: Parameters<RunFiles["artifact"]>): Promise<Answer<ArtifactRange>> {
    return this.#answer(owner, () => this.#runFiles.artifact(...range));
  }

  /** Called by the egress for each request to a model: whether this key belongs to a task that runs here. */
  admitModelCall(key: string): Promise<Admission> {
    return this.#modelUse.admitModelCall(key);
  }

  /** Called by the egress while a request to a model is under way. */
  modelCallGoesOn(call: ModelCall): void {
    this.#modelUse.modelCallGoesOn(call);
  }

  /** Called by the egress when a request to a model is over. */
  modelAnswered(call: ModelCall, answer: ModelAnswer): void {
    this.#modelUse.modelAnswered(call, answer);
  }

  /** Waits for the end of a run or, with a cursor, for output after it; then answers the run and the log from there on. */
  readRun(
    owner: Owner,
    { id, waitMs, cursor, maxBytes = 0, seenCode, onProgress, until }: RunToRead,
  ): Promise<Answer<RunReading>> {
    return this.#answer(owner, async () => {
      const wasWriting =
        seenCode !== undefined && (await this.#questions.moreCode(localID(id), seenCode, waitMs));
      const run = await this.#runs.result(id, wasWriting ? 0 : waitMs, cursor, { until, onProgress });
      if (cursor === undefined) return { run };
      return { run, page: await this.#runs.log(id, cursor, maxBytes) };
    });
  }

  listRuns(owner: Owner, limit: number, before?: string, kind?: RunKind): Promise<Answer<RunSummary[]>> {
    return this.#answer(owner, async () => this.#runs.list(limit, before, kind));
  }

  sendInput(owner: Owner, id: string, input: TerminalInput, maxBytes: number): Promise<Answer<Typed>> {
    return this.#answer(owner, () => this.#runs.type(id, input, maxBytes));
  }

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<Answer<RunView>> {
    return this.#answer(owner, () => this.#runs.cancel(id, waitMs));
  }

  /** Does an operation on files, as its row says: what it starts, whether it is repeated, and what is saved after it. */
  operate(owner: Owner, name: OperationName, input: object): Promise<Answer<object>> {
    const row = policyOf(name);
    const work = () => this.#operations.do(owner, name, input);
    if (!hasScope(owner, row)) return this.#outcome(() => Promise.reject(needsScope(row)));
    if (row.start === "glance") return this.#outcome(work);
    if (row.start === "none") return this.#answer(owner, work);
    const mayStart = row.start === "known" ? (owner.mayStart ?? true) && "again" : owner.mayStart;
    const caller = { ...owner, mayStart };
    if (row.retry === "never") return this.#serveFiles(caller, work, row.up === "stream");
    return this.#serveAgain(caller, work);
  }

  /** Keeps links to files of this container, and answers their ids. */
  keepFileLinks(
    owner: Owner,
    links: readonly Omit<FileLink, "actor" | "epoch" | "id">[],
  ): Promise<Answer<string[]>> {
    return this.#serveAgain(owner, async () => {
      // Starts the container, where there is none.
      await this.#files.call("stat", { path: "/" });
      const epoch = this.#fileLinks.epoch();
      return Promise.all(links.map((link) => this.#fileLinks.keep({ ...link, epoch })));
    });
  }

  /** Keeps links to what runs left, and answers their ids. */
  keepRunLinks(owner: Owner, links: readonly Omit<RunLink, "actor">[]): Promise<Answer<string[]>> {
    return this.#answer(owner, () => Promise.all(links.map((link) => this.#fileLinks.keep(link))));
  }

  /** The link of this id; undefined where it has expired, or its container is gone. */
  async findLink(id: string): Promise<KeptLink | undefined> {
    return this.#fileLinks.find(id);
  }

  /**
   * Whose sandbox a link leads to; undefined where its container is gone.
   * @param epoch of a link to a file; links to what a run left have none
   */
  async linkOwner(epoch?: string): Promise<Owner | undefined> {
    if (epoch !== undefined && (!this.#isUp || !this.#fileLinks.isOf(epoch))) return undefined;
    const { principalID, sandbox } = this.#accountLink.owner;
    return { principalID, sandbox, mayStart: false, takesNotice: false };
  }

  statRunFile(owner: Owner, ...file: Parameters<RunFiles["stat"]>): Promise<Answer<RunFileStat>> {
    return this.#answer(owner, () => this.#runFiles.stat(...file));
  }

  openRunFile(
    owner: Owner,
    ...range: Parameters<RunFiles["open"]>
  ): Promise<Answer<ReadableStream<Uint8Array>>> {
    return this.#answer(owner, async () => {
      return this.#activity.passOn(await this.#runFiles.open(...range), { isOfContainer: false });
    });
  }

  /** Takes an upload link, which is good for one upload. */
  async takeLink(link: UploadLink): Promise<ReturnType<FileLinks["take"]>> {
    return this.#fileLinks.take(link);
  }

  async isLinkUsedUp(link: UploadLink): Promise<boolean> {
    return this.#fileLinks.isUsedUp(link);
  }

  /** The upload by a link is over; one that came to nothing may be made again. */
  async leaveLink(link: UploadLink, isUsedUp: boolean): Promise<void> {
    this.#fileLinks.leave(link, isUsedUp);
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
  ): Promise<Answer<ReturnType<Previews["open"]>>> {
    return this.#serveFiles(owner, async () => {
      await this.#workspace.ready();
      return this.#previews.open(port, token, Date.now() + ms);
    });
  }

  /** Answers whether the port could be reached. */
  closePreview(owner: Owner, port: number): Promise<Answer<boolean>> {
    return this.#answer(owner, async () => this.#previews.close(port));
  }

  /** Requests to previews, beside what the SDK asks of its own actor. */
  override fetch(request: Request): Promise<Response> {
    return request.headers.has(PREVIEW_TOKEN) ? this.#previews.serve(request) : super.fetch(request);
  }

  /** Names the state of the workspace, which is saved first, and before that set up where that is under way. */
  makeCheckpoint(owner: Owner, label: string): Promise<Answer<Checkpoint>> {
    const make = async (begin: () => void) => {
      if (this.#setUp.state === "running") await this.#setUp.over({ ms: CHECKPOINT_WAIT_MS });
      begin();
      const keptAt = Date.now();
      const checkpoint = await this.#workspace.checkpoint(label);
      this.#accountLink.kept(keptAt);
      return checkpoint;
    };
    return this.#answer(owner, () => this.#inTime(owner, make));
  }

  /** Ends the container; the next one has the state of a checkpoint. Answers the checkpoint of the state before, too. */
  goBack(owner: Owner, checkpoint: string): Promise<Answer<WentBack>> {
    const goBack = (begin: () => void) => {
      begin();
      // What began meanwhile would begin in a container that ends.
      return this.#starts.destroy(async () => {
        const states = await this.#workspace.goBack(checkpoint);
        await this.#endToGoBack(states.settings);
        return states;
      });
    };
    return this.#answer(owner, () => this.#inTime(owner, goBack));
  }

  /** Called by the account for a sandbox that is about to be made of a saved state. */
  inherit(owner: Owner, settings: CheckpointSettings): Promise<Answer<void>> {
    return this.#answer(owner, async () => {
      this.#settings.inherit(settings);
      await this.ctx.storage.sync();
    });
  }

  async #endToGoBack(settings?: CheckpointSettings): Promise<void> {
    if (this.#isUp) {
      this.#runs.containerGone("The sandbox was put back to a checkpoint while it ran.");
      this.#restartNotice.ending("back");
      await this.#end();
    }
    this.#workspace.wentBack();
    this.#setUp.wentBack(settings?.setup);
  }

  /** Ends the container. Nothing may start one meanwhile. */
  async #end(): Promise<void> {
    await this.#starts.clear(() => this.destroy());
    // The SDK's stop hook runs late and would close the connection of the next call, so this call waits for it.
    await this.#lifecycle.ended();
  }

  /** Called by the local platform before the server stops: saves the workspace. Answers whether all of it is saved. */
  async saveToStop(): Promise<boolean> {
    const isSaved = (await this.#workspace.saveToStop()) && this.#workspace.mayStop;
    if (isSaved && this.#isUp) this.#restartNotice.ending("server");
    await this.#network.connections.collect().catch(() => undefined);
    await this.ctx.storage.sync();
    return isSaved;
  }

  /**
   * Called by sandboxd, through the egress, before the platform ends the container: saves the workspace.
   * @returns whether the token is that of sandboxd
   */
  async containerEnding(token: string): Promise<boolean> {
    if (token !== this.#token) return false;
    if (!this.#isUp) return true;
    // Code goes by the control server, so that sandboxd, which refuses all else, cannot refuse it.
    const hadCode = this.#kernels.refuse();
    await this.#saveToEnd();
    if (hadCode) {
      await this.#kernels.stopAll();
      this.#workspace.changed();
      await this.#saveToEnd();
    }
    this.#restartNotice.ending("platform");
    await this.ctx.storage.sync();
    return true;
  }

  async #saveToEnd(): Promise<void> {
    for (let tries = 1; tries <= ENDING_TRIES; tries++) {
      await this.#workspace.saveToStop();
      if (this.#workspace.mayStop) return;
      await pause(ENDING_PAUSE_MS);
    }
  }

  /** Ends the container with every process in it, and what `ending` says. Answers what there was to end. */
  async destroySandbox(owner: Owner, ending: Ending = "workspace"): Promise<Answer<Destroyed>> {
    return { ok: true, value: await this.#starts.destroy(() => this.#destroy(owner, ending)) };
  }

  async #destroy(owner: Owner, ending: Ending): Promise<Destroyed> {
    this.#runs.containerGone("The sandbox was destroyed while it ran.");
    await this.#end();
    // After the container's end, so that no earlier call registers the sandbox again.
    const had = await this.#accountLink.destroyed(owner, this.#lease.release(), ending);
    this.#workspace.forget();
    this.#restartNotice.forget();
    this.#kernels.forget();
    this.#diskUsage.containerGone();
    this.#previews.forget();
    this.#fileLinks.forget();
    this.#setUp.containerGone();
    if (!had.isKept) this.#settings.forget();
    if (had.wasKnown) this.#accountLink.note("destroy");
    return had;
  }

  /** Called by the SDK's scheduler: removes expired runs. */
  async sweepRuns(): Promise<void> {
    await this.#retention.sweep();
    this.#storage.changed();
  }

  /** Called by the account when the principal's storage is full: removes so many bytes of runs that ended before a time. */
  giveUpRuns(bytes: number, before: number): Promise<Stored> {
    return this.#runs.giveUp(bytes, before);
  }

  /** Called by the account: whether a container runs or is being started, and its previews. */
  condition(): Condition {
    return {
      isAlive: this.#isUp || this.#accountLink.isUnstarted,
      previews: this.#previews.list(),
    };
  }

  /** Called by the account when a limit is reached: gives back what the lease holds beyond what runs. */
  settleLease(): Settlement {
    return this.#lease.settle();
  }

  /**
   * Called by the account for a sandbox that was not used for so many milliseconds, as far as the account knows. Answers
   * whether it was destroyed; one that was used since stays.
   */
  async destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    const isInUse = () => this.#isInUse || this.#accountLink.wasUsedWithin(idleMs);
    // What is saved of it has its own time.
    return this.#endUnused(isInUse, () => this.destroySandbox(owner, "container"));
  }

  /**
   * Called by the account when another sandbox needs a container and the limit is reached. Answers whether none runs here
   * now. One that was used in the last AT_WORK_MS keeps running, because somebody works with its files; not one whose last
   * use was a checkpoint, which would take the place of one of its forks.
   * @param waitMs how long its save is waited for; it goes on, so that the next call finds more of it saved
   */
  async stopIfIdle(owner: Owner, waitMs: number): Promise<boolean> {
    await this.#accountLink.meet(owner);
    const isInUse = () => this.#isInUse || (this.#isUp && this.#accountLink.isAtWork(AT_WORK_MS));
    return this.#endUnused(isInUse, () => this.#stopUnused("room"), waitMs);
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
    if (isInUse()) return false;
    const isOver = await this.#workspace.saveToStop(waitMs);
    if (!isOver || isInUse() || !this.#workspace.mayStop) return false;
    await end();
    return true;
  }

  async #stopUnused(why: "idle" | "room"): Promise<void> {
    if (!this.#isUp) return;
    this.#restartNotice.ending(why);
    await this.#starts.destroy(() => this.#end());
  }

  /** Whether a call, a run or a transfer is under way, or the container is being started or ended. */
  get #isInUse(): boolean {
    const { isStarting, isDestroying } = this.#starts;
    return this.#runs.isBusy || this.#activity.isBusy || isStarting || isDestroying;
  }

  /** Whether a call or a run is under way. */
  get #isAtWork(): boolean {
    return this.#activity.hasCalls || this.#runs.isBusy;
  }

  /** A run may begin after its call has ended, in a sandbox that was stopped meanwhile. */
  async #registerForRun(): Promise<void> {
    if (!this.#registration.holds) await this.#registration.make(this.#accountLink.owner);
  }

  /** Starts the container for a run unless it runs, and waits for its workspace: again where it goes away before that. */
  async #readyForRun(isOver: () => boolean): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (isOver()) {
        this.ctx.waitUntil(this.#letGo());
        throw containerGone();
      }
      try {
        await this.#registerForRun();
        if (isOver()) continue;
        return await this.#workspace.ready();
      } catch (error) {
        if (!isGone(error) || attempt === MAX_STARTS) throw error;
      }
    }
  }

  /** Does the work of one call that needs the container. @throws {ToolError} `quota_exceeded` for a sandbox too many */
  #serve<T>(owner: Owner, work: (begin: () => void) => Promise<T>, hasStream = false): Promise<Answer<T>> {
    const serve = async (begin: () => void) => {
      await this.#registration.make(owner);
      return work(begin).finally(() => this.#diskUsage.used());
    };
    return this.#answer(owner, () => this.#inTime(owner, serve, hasStream));
  }

  /**
   * What the work of a call comes to, while its client still waits for that. `work` calls `begin` before it does anything of the
   * caller's: that throws once the call was answered that it takes too long. What has begun by then goes on.
   * @param hasStream whether the work takes in a stream, for whose time there is no limit
   * @throws {ToolError} `no_answer`
   */
  async #inTime<T>(owner: Owner, work: (begin: () => void) => Promise<T>, hasStream = false): Promise<T> {
    const ms = this.#answerMs(owner);
    let hasBegun = false;
    let isLate = false;
    const begin = () => {
      if (isLate) throw notAnswered(owner.sandbox, ms, false);
      hasBegun = true;
    };
    const working = this.#activity.call(async () => ({ value: await work(begin) }));
    const done = (await within(ms, working)) ?? (hasStream && hasBegun ? await working : undefined);
    if (done) return done.value;
    isLate = true;
    this.ctx.waitUntil(working.catch(() => undefined).finally(() => this.#letGo()));
    throw notAnswered(owner.sandbox, ms, hasBegun);
  }

  /** Ends what there is of an earlier container, before the next one is registered. */
  async #leavePrevious(): Promise<void> {
    // An earlier actor was thrown away before it had ended the container.
    if (this.#workspace.isGoingBack) await this.#starts.destroy(() => this.#endToGoBack());
    await this.#enforceNetwork();
    await this.#lifecycle.ready();
  }

  /** As `#serve`, for what is no run and so waits for the sandbox's set-up here. */
  #serveFiles<T>(owner: Owner, work: () => Promise<T>, hasStream = false): Promise<Answer<T>> {
    return this.#serve(owner, (begin) => this.#afterSetUp(owner, begin, work), hasStream);
  }

  /** As `#serveFiles`, for idempotent work, which is repeated in the next container when this one turns out to be gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#serve(owner, (begin) => this.#again(owner, () => this.#afterSetUp(owner, begin, work)));
  }

  #again<T>(owner: Owner, work: () => Promise<T>): Promise<T> {
    return this.#lifecycle.again(work, () => this.#registration.make(owner), MAX_STARTS);
  }

  /** Whoever may only read starts no set-up. */
  async #afterSetUp<T>(owner: Owner, begin: () => void, work: () => Promise<T>): Promise<T> {
    const mayBegin = owner.mayStart !== false;
    if (mayBegin) await this.#setUp.begin();
    await this.#setUp.over({ mayBegin });
    begin();
    return await work();
  }

  #containerGone(): void {
    this.#connection.close();
    this.#previews.containerGone();
    this.#fileLinks.forget();
    this.#retention.containerGone();
    this.#diskUsage.containerGone();
    this.#kernels.forget();
    this.ctx.waitUntil(this.#network.connections.collect().catch(() => undefined));
    this.#workspace.containerGone();
    this.#setUp.containerGone();
    this.#runs.containerGone("The sandbox stopped while it ran; its processes and kernel state are gone.");
  }

  /** Does the work of one call. Errors for the caller become data; unexpected ones are thrown, for the log. */
  async #answer<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    if (await this.#accountLink.meet(owner)) await this.setSandboxName(owner.sandbox);
    const called = this.#activity.call(() => this.#outcome(work));
    const outcome = await called.finally(() => this.#letGo());
    if (owner.takesNotice === false) return outcome;
    const notices = [
      this.#restartNotice.takeNotice(),
      this.#workspace.takeNotice(),
      this.#setUp.takeNotice(),
    ];
    return { ...outcome, notice: notices.filter(Boolean).join(" ") || undefined };
  }

  async #outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
    try {
      return { ok: true, value: await work() };
    } catch (thrown) {
      const error = await this.#lifecycle.explained(thrown);
      const failure = platformFailure(error);
      if (!failure) throw error;
      return { ok: false, failure: this.#runs.isAtWork ? failure : withoutRuns(failure) };
    }
  }

  /** What sandboxd takes requests with. A container that an earlier version of this server started asks for none. */
  get #token(): string {
    const known = this.ctx.storage.kv.get<string>(TOKEN_KEY);
    if (known !== undefined) return known;
    const made = crypto.randomUUID() + crypto.randomUUID();
    this.ctx.storage.kv.put(TOKEN_KEY, made);
    return made;
  }

  /** Makes a request to sandboxd, with its token. @param request one of this actor's own making */
  #toSandboxd(request: Request): Promise<Response> {
    const { container } = this.ctx;
    if (!container) throw new Error("this actor has no container");
    request.headers.set(TOKEN_HEADER, this.#token);
    return container.getTcpPort(SANDBOXD_PORT).fetch(request);
  }

  /** The SDK calls this whenever it starts or reaches a container. */
  override async startAndWaitForPorts(
    ...args: Parameters<BaseSandbox<Env>["startAndWaitForPorts"]>
  ): Promise<void> {
    const isFirst = !this.#isUp && !this.#starts.isStarting;
    try {
      await this.#starts.start(async () => {
        if (!this.#isUp) {
          this.#workspace.containerGone();
          this.#setUp.containerGone();
        }
        if (isFirst) this.#network.starting();
        await this.#network.enforce();
        this.envVars = { ...this.envVars, [TOKEN_VARIABLE]: this.#token };
        return super.startAndWaitForPorts(...args);
      });
      // What was forbidden while it started is forbidden to it too.
      this.ctx.waitUntil(this.#enforceNetwork().catch(() => undefined));
    } catch (error) {
      this.ctx.waitUntil(this.#registration.withdrawUnstarted());
      throw error;
    }
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    this.#starts.close();
    this.#accountLink.started();
    this.#lifecycle.onStart();
  }

  override async onStop(params?: Parameters<BaseSandbox<Env>["onStop"]>[0]): Promise<void> {
    await this.#lifecycle.onStop(() => super.onStop(params));
    this.#accountLink.stopped();
  }

  /**
   * The SDK restarts the idle time with each new actor and each call to the container. Where no call or run uses the
   * sandbox, as when an actor follows another, only the rest of the idle time is left.
   */
  override renewActivityTimeout(): void {
    const whole = this.sleepAfter;
    if (typeof whole === "number" && !this.#isAtWork)
      this.sleepAfter = Math.max(0, whole - this.#accountLink.unusedMs / 1000);
    super.renewActivityTimeout();
    this.sleepAfter = whole;
  }

  override async onActivityExpired(): Promise<void> {
    if (await this.#previews.isInUse()) return;
    await this.#endUnused(
      () => this.#isInUse,
      () => this.#stopUnused("idle"),
    );
  }

  #runEnded(run: RunRecord, hasFiles: boolean): void {
    if (run.kind === "task") this.#taskEnded(run);
    this.#retention.runEnded(run, hasFiles);
    this.#diskUsage.used();
    this.#workspace.changed();
    this.#storage.changed();
    // A run may be lost together with its sandbox, which must not be registered again.
    if (run.state !== "lost") this.ctx.waitUntil(this.#accountLink.used());
    this.ctx.waitUntil(this.#letGo());
  }

  /** Reports the end to the account, and destroys a sandbox made for the task once its results are kept elsewhere. */
  #taskEnded({ id, state, title, startedAt, endedAt, detail }: RunRecord): void {
    const { owner } = this.#accountLink;
    this.#budgets.close(localID(id));
    const task = detail && "ownSandbox" in detail ? detail : undefined;
    const ended = this.#accountLink.account(owner).taskSeen({ id, state, title, startedAt, endedAt });
    // Where the container has gone, only the account's entry is left to remove.
    const gone = state === "lost" && !this.#isUp;
    const forget = async () => this.#accountLink.destroyed(owner, this.#lease.release(), "workspace");
    const end = () => (gone ? forget() : this.destroySandbox(owner));
    const over = task?.ownSandbox && (task.safe || gone) ? end() : undefined;
    this.ctx.waitUntil(Promise.all([ended, over]));
  }

  /** A call or a run has ended: what only that kept busy is let go. */
  async #letGo(): Promise<void> {
    this.#kernels.hangUp(() => !this.#isAtWork);
    await this.#registration.withdrawUnstarted();
  }
}

function isMade(sandbox: string, asked: Region, made: Region | undefined): ToolError {
  return new ToolError(
    "invalid_argument",
    `Sandbox ${sandbox} cannot be made in ${asked}: it was made at its first use, ${made ? `in ${made}` : "where the platform chose"}, and stays there, also when it is destroyed.`,
    "Give region in the first call that names a sandbox: use another name.",
  );
}

// Not a static field of the class: that would shadow the SDK's setter, and requests would go out to the internet.
Sandbox.outboundByHost = { ...OUTBOUND, [SERVER_HOST]: serveEnding };
Sandbox.outboundHandlers = { [POLICY_HANDLER]: throughPolicy };
