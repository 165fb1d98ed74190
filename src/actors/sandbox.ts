/** The actor of one sandbox: its container, kernels, files and runs, on top of the SDK's class. */
import type { OperationName } from "../../container/sandboxd/operations.ts";
import type { Admission, ModelCall, ModelOutcome } from "../container/model-calls.ts";
import type { CodeRunSpec } from "../runs/code-executor.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import type { Stored } from "../runs/run-store.ts";
import type { RunSummary, RunView } from "../runs/run-types.ts";
import type { RunReading, Runs, RunToRead, TerminalReply } from "../runs/runs.ts";
import type { Env } from "../shared/config.ts";
import { outcomeOf } from "../shared/errors.ts";
import { whileHolding } from "../shared/limits.ts";
import type { Connection as SandboxConnection } from "../shared/connection-log.ts";
import type { KeptLink, RunLink } from "../shared/link-token.ts";
import { PREVIEW_TOKEN } from "../shared/preview-address.ts";
import type { Region } from "../shared/principal.ts";
import type { QuestionSpec } from "../tasks/questions.ts";
import type { TaskSpec } from "../tasks/task-executor.ts";
import type {
  CheckpointSettings,
  Destroyed,
  DestroyExtent,
  Owner,
  RestoredCheckpoint,
  SandboxStatus,
} from "./account-calls.ts";
import type { ActorResult, CallPlan, RunWait } from "./calls.ts";
import type { ChangeState, NetworkQuestion } from "./decisions.ts";
import type { FileLinks, UploadLink } from "./file-links.ts";
import type { NetworkChoice } from "./network.ts";
import { type Parts, createParts } from "./parts.ts";
import { handleOutbound } from "./platform/outbound-handlers.ts";
import { SandboxActor } from "./platform/sdk-actor.ts";
import type { Settlement } from "./quota.ts";
import type { RunFileStat, RunOutputs, TaskOrigin } from "./run-outputs.ts";
import type { Checkpoint } from "./saved-states.ts";
import type { SettingsChange } from "./settings.ts";

/** A checkpoint waits only 15 s for a set-up under way, because the save of the checkpoint also takes time. */
const CHECKPOINT: CallPlan = { isLimited: true, setUpMs: 15_000 };
const RESTORE: CallPlan = { isLimited: true };
const FILE_LINK: CallPlan = { usesContainer: true, isRepeated: true };
const PREVIEW: CallPlan = { usesContainer: true };
/**
 * For settings, because a running task's agent would get the new ones, such as variables and a service. For typed text, because a shell
 * would run it.
 */
const NOT_DURING_TASK: CallPlan = { isRefusedDuringTask: true };

export class Sandbox extends SandboxActor {
  readonly #parts: Parts;

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    this.#parts = createParts({
      ctx,
      env,
      platform: this.platform,
      interpreter: this.interpreter,
      network: this.networkPlatform,
      intercept: (...what) => this.intercept(...what),
      prepareAgent: (agent) => this.prepareAgent(agent),
      setName: (sandbox) => this.setSandboxName(sandbox),
    });
  }

  /** Installs a coding agent that the sandbox lacks. The image has all of them. @throws Error that says what to do */
  protected async prepareAgent(_agent: string): Promise<void> {}

  protected get principalID(): string | undefined {
    return this.#parts.account.principalID;
  }

  // Runs.

  executeCode(owner: Owner, spec: CodeRunSpec, ...wait: RunWait): Promise<ActorResult<RunView>> {
    return this.#parts.calls.run(owner, "code", spec, ...wait);
  }

  executeCommand(owner: Owner, spec: CommandSpec, ...wait: RunWait): Promise<ActorResult<RunView>> {
    return this.#parts.calls.run(owner, "command", spec, ...wait);
  }

  /** Returns when the run has started; `readRun` waits for its end. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<ActorResult<RunView>> {
    return this.#parts.calls.run(owner, "task", spec);
  }

  /** Returns when the run has started; `readRun` can wait for the program that the model writes. */
  askQuestion(owner: Owner, spec: QuestionSpec): Promise<ActorResult<RunView>> {
    return this.#parts.calls.run(owner, "question", spec);
  }

  taskOrigin(owner: Owner, id: string): Promise<ActorResult<TaskOrigin>> {
    return this.#perform(owner, ({ outputs }) => outputs.taskOrigin(id));
  }

  readRun(owner: Owner, run: RunToRead): Promise<ActorResult<RunReading>> {
    return this.#perform(owner, ({ outputs }) => outputs.read(run));
  }

  listRuns(owner: Owner, ...which: Parameters<Runs["list"]>): Promise<ActorResult<RunSummary[]>> {
    return this.#perform(owner, ({ runs }) => runs.list(...which));
  }

  sendInput(owner: Owner, ...input: Parameters<Runs["type"]>): Promise<ActorResult<TerminalReply>> {
    return this.#perform(owner, ({ outputs }) => outputs.type(...input), NOT_DURING_TASK);
  }

  /** Removes an ended run: its record, its log, and the files of a task. */
  removeRun(owner: Owner, id: string): Promise<ActorResult<void>> {
    return this.#perform(owner, ({ runs }) => runs.remove(id));
  }

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<ActorResult<RunView>> {
    return this.#perform(owner, ({ runs }) => runs.cancel(id, waitMs));
  }

  readArtifact(owner: Owner, ...range: Parameters<RunOutputs["artifact"]>) {
    return this.#perform(owner, ({ outputs }) => outputs.artifact(...range));
  }

  statRunFile(owner: Owner, ...file: Parameters<RunOutputs["stat"]>): Promise<ActorResult<RunFileStat>> {
    return this.#perform(owner, ({ outputs }) => outputs.stat(...file));
  }

  openRunFile(owner: Owner, ...range: Parameters<RunOutputs["open"]>) {
    return this.#perform(owner, ({ outputs }) => outputs.open(...range));
  }

  // Files, links and previews.

  operate(owner: Owner, name: OperationName, input: object): Promise<ActorResult<object>> {
    return this.#parts.calls.operate(owner, name, input);
  }

  /** Returns the links' ids. */
  keepFileLinks(owner: Owner, links: Parameters<FileLinks["keepFiles"]>[0]): Promise<ActorResult<string[]>> {
    return this.#perform(owner, ({ fileLinks }) => fileLinks.keepFiles(links), FILE_LINK);
  }

  /** Returns the links' ids. */
  keepRunLinks(owner: Owner, links: readonly Omit<RunLink, "actor">[]): Promise<ActorResult<string[]>> {
    return this.#perform(owner, ({ fileLinks }) => Promise.all(links.map((link) => fileLinks.keep(link))));
  }

  /** The stored link of this id, which may have expired. For a link to a file, `linkOwner` checks the container. */
  async findLink(id: string): Promise<KeptLink | undefined> {
    return this.#parts.fileLinks.find(id);
  }

  /**
   * The owner for calls that use a link; undefined if the link's container is gone. @param epoch the id of the container, for a
   * link to a file; undefined for a link to a run output
   */
  async linkOwner(epoch?: string): Promise<Owner | undefined> {
    const { lifecycle, fileLinks, account } = this.#parts;
    if (epoch !== undefined && !(lifecycle.isRunning && fileLinks.isCurrentEpoch(epoch))) return undefined;
    const { principalID, sandbox } = account.owner;
    return { principalID, sandbox, mayStart: false, isByLink: true };
  }

  async claimLink(link: UploadLink): Promise<ReturnType<FileLinks["claim"]>> {
    return this.#parts.fileLinks.claim(link);
  }

  /** Ends an upload. If it failed, the link may be used again. */
  async releaseLink(link: UploadLink, isUsedUp: boolean): Promise<void> {
    this.#parts.fileLinks.releaseClaim(link, isUsedUp);
  }

  /**
   * Starts a container if none runs. @param token for a port that is not open yet @param ms how long the port is reachable
   * @param invalid a token that the port does not keep
   */
  openPreview(owner: Owner, port: number, token: string, ms: number, invalid?: string) {
    const open = async ({ lifecycle, previews }: Parts) => {
      await lifecycle.waitUntilReady();
      const preview = previews.open(port, token, Date.now() + ms, invalid);
      return { ...preview, isSilent: await previews.isSilent(port) };
    };
    return this.#perform(owner, open, PREVIEW);
  }

  /** Returns whether the port was open. */
  closePreview(owner: Owner, port: number): Promise<ActorResult<boolean>> {
    return this.#perform(owner, ({ previews }) => previews.close(port));
  }

  /** Serves preview requests. */
  protected serve(request: Request): Promise<Response> | undefined {
    return request.headers.has(PREVIEW_TOKEN) ? this.#parts.previews.serve(request) : undefined;
  }

  // Settings and the network.

  /** Changes settings and returns all of them. The sandbox need not run. @param region where to create its actor */
  configureSandbox(owner: Owner, change: SettingsChange, region: Region | undefined) {
    return this.#perform(owner, ({ settings }) => settings.configure(owner, change, region), NOT_DURING_TASK);
  }

  /** Called by the account before the sandbox is created from a saved state: replaces the sandbox's settings. */
  inherit(owner: Owner, change: CheckpointSettings): Promise<ActorResult<void>> {
    return this.#perform(owner, async ({ settings }) => {
      await settings.inherit(change);
      await this.ctx.storage.sync();
    });
  }

  /**
   * Stores a question to a person if the change gives more access. @param waitMs how long to wait for the decision, if an earlier
   * call has stored this question
   */
  askForNetwork(owner: Owner, change: NetworkChoice, waitMs: number): Promise<ActorResult<ChangeState>> {
    return this.#perform(owner, ({ decisions }) => decisions.ask(change, waitMs));
  }

  async networkQuestion(id: string): Promise<NetworkQuestion | undefined> {
    return this.#parts.decisions.find(id);
  }

  /** Records the person's decision. Returns whether the question was open. */
  decideNetwork(owner: Owner, id: string, isAllowed: boolean): Promise<ActorResult<boolean>> {
    return this.#perform(owner, ({ decisions }) => decisions.decide(owner, id, isAllowed));
  }

  /** Called by the account when the principal has signed in to a git host. */
  async gitHostsChanged(hosts: string[]): Promise<void> {
    this.#parts.account.gitHosts = hosts;
    await this.#parts.lifecycle.enforceNetwork();
  }

  connectionLines(owner: Owner): Promise<ActorResult<string>> {
    return this.#perform(owner, ({ network }) => network.lines());
  }

  /** Called by the egress for each request, forwarded or refused. */
  connectionMade(connection: SandboxConnection): void {
    this.noteConnection(connection);
    this.#parts.network.connections.collectSoon();
  }

  /** Called by the egress for each model request: admits it if its key belongs to a run here and tokens are left. */
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

  /** Called by the Worker when the client of a result with this notice is still connected. */
  async confirmNotice(notice: string): Promise<void> {
    this.#parts.restartNotice.confirm(notice);
  }

  // The container's state and end.

  /** Creates a checkpoint of the workspace. Waits for a set-up under way, then saves. */
  makeCheckpoint(owner: Owner, label: string): Promise<ActorResult<Checkpoint>> {
    return this.#perform(
      owner,
      ({ lifecycle, settings }) => lifecycle.checkpoint(label, settings),
      CHECKPOINT,
    );
  }

  /** Ends the container; the next one starts from a checkpoint. Also returns the checkpoint of the previous state. */
  restoreCheckpoint(owner: Owner, id: string): Promise<ActorResult<RestoredCheckpoint>> {
    return this.#perform(
      owner,
      ({ lifecycle, settings }) => lifecycle.restoreCheckpoint(id, settings),
      RESTORE,
    );
  }

  /** Ends the container with all processes, and deletes the data that `extent` names. Returns what existed. */
  async destroySandbox(owner: Owner, extent: DestroyExtent = "workspace"): Promise<ActorResult<Destroyed>> {
    // Counted separately, because a sandbox whose calls do not end must be destroyed.
    const destroy = () => this.#parts.lifecycle.destroy(owner, extent);
    return await outcomeOf(() => whileHolding(`ends of ${owner.principalID}`, 0, destroy));
  }

  /** Called by the local platform before the server stops. Saves the workspace; returns whether everything was saved. */
  saveToStop(): Promise<boolean> {
    return this.#parts.containerEnd.saveForServer();
  }

  /** Called by the local platform after `saveToStop`. Returns whether nothing has changed since the last save. */
  async isSaved(): Promise<boolean> {
    return this.#parts.containerEnd.isSaved;
  }

  /** Called by sandboxd, through the egress, before the platform ends the container. Saves the workspace. */
  containerEnding(token: string): Promise<boolean> {
    return this.#parts.containerEnd.saveForPlatform(token);
  }

  // Calls of the account.

  /** Called by the account when the principal's storage is full: deletes `bytes` bytes of runs that ended before `before`. */
  evictRuns(bytes: number, before: number): Promise<Stored> {
    return this.#parts.runs.evict(bytes, before);
  }

  condition(): SandboxStatus {
    const { lifecycle, previews } = this.#parts;
    return { isAlive: lifecycle.isAlive, previews: previews.list() };
  }

  /** Gives back the unused part of the lease. */
  settleLease(): Settlement {
    return this.#parts.account.lease.settle();
  }

  /** Destroys the sandbox unless it was used in the last `idleMs` milliseconds. Returns whether it was destroyed. */
  destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    const { lifecycle, account } = this.#parts;
    return lifecycle.destroyIfUnused(owner, () => account.wasUsedWithin(idleMs));
  }

  /** Makes room for another sandbox. Returns whether this container ended. @param waitMs how long to wait for its save */
  async stopIfIdle(owner: Owner, waitMs: number): Promise<boolean> {
    await this.#parts.account.setOwner(owner);
    return this.#parts.lifecycle.makeRoom(waitMs);
  }

  #perform<T>(
    owner: Owner,
    work: (parts: Parts) => T | Promise<T>,
    plan?: CallPlan,
  ): Promise<ActorResult<T>> {
    return this.#parts.calls.perform(owner, () => work(this.#parts), plan);
  }
}

handleOutbound(Sandbox);
