/** The actor of one sandbox: its container, shells, kernels, files and runs. Our methods sit on the SDK's own class. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { ActiveRun } from "../runs/active-run.ts";
import { startCode } from "../runs/code.ts";
import type { CommandSpec } from "../runs/command.ts";
import { localID } from "../runs/id.ts";
import {
  type Allowance,
  type Execution,
  type RunKind,
  type RunSummary,
  type RunView,
  titleOf,
} from "../runs/run.ts";
import type { LogPage } from "../runs/runs.ts";
import type { RunRecord, Stored } from "../runs/store.ts";
import type { TaskSpec } from "../tasks/tasks.ts";
import type { BudgetCheck, ModelAnswer, ModelCall } from "../container/model-calls.ts";
import { type ArtifactRange, readArtifact, taskDetailOf } from "../tasks/collect.ts";
import type { Env } from "../shared/config.ts";
import { OUTBOUND } from "../container/egress.ts";
import { type Outcome, ToolError, platformFailure, withoutRuns } from "../shared/errors.ts";
import type { FileEntry, FileRange, Files } from "../container/files.ts";
import { PREVIEW_TOKEN } from "../shared/preview-address.ts";
import type { CodeSpec } from "../container/kernels/kernels.ts";
import { quotaError } from "./lease.ts";
import type { Owner } from "./account-link.ts";
import { type Parts, assemble } from "./parts.ts";
import type { Preview } from "./previews.ts";
import type { Settlement } from "./quota.ts";
import { resumption } from "./resume.ts";

/** What an actor's method answers: the outcome, and what the caller must be told about state that was lost. */
export type Answer<T> = Outcome<T> & { notice?: string };

/** A run, and the part of its log that was asked for. */
export interface RunReading {
  run: RunView;
  page?: LogPage;
}

/** A task that another is to go on from. */
export interface TaskOrigin {
  run: RunView;
  /** Whether the sandbox still holds what the task left in it. */
  alive: boolean;
}

/** What of a sandbox is listed. */
export interface Condition {
  isAlive: boolean;
  previews: Preview[];
}

/** How long a connection that only an abandoned call keeps busy stays open, milliseconds. */
const HANG_UP_MS = 5000;

/** How long a sandbox that nobody uses keeps its container, seconds. */
const SLEEP_AFTER_S = 600;
/** A sandbox that was used within so many milliseconds makes no room for another. */
const AT_WORK_MS = 30_000;

export class Sandbox extends BaseSandbox<Env> {
  override sleepAfter: string | number = SLEEP_AFTER_S;

  readonly #parts: Parts;
  /** Under way. */
  #calls = 0;

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    this.#parts = assemble(this, ctx, env, {
      containerGone: () => this.#containerGone(),
      runEnded: (run, hasFiles) => this.#runEnded(run, hasFiles),
    });
    this.#parts.runs.resume((record) => resumption(this.#parts, this.#isUp, record));
  }

  get #isUp(): boolean {
    return this.ctx.container?.running === true;
  }

  /** @param mayUseModel whether whoever sends the code may hand tasks to an agent, beside which it then may run */
  executeCode(
    owner: Owner,
    spec: Omit<CodeSpec, "runID" | "logCapBytes">,
    waitMs: number,
    mayUseModel: boolean,
  ): Promise<Answer<RunView>> {
    const waitUntil = Date.now() + waitMs;
    return this.#serve(owner, () => {
      if (!mayUseModel) this.#parts.tasks.keepApart(owner.sandbox);
      return this.#start("code", spec.code, spec.timeoutMs, waitUntil, (run, allowance) =>
        startCode(
          this.#parts.kernels,
          this.#parts.shell,
          run,
          { ...spec, ...allowance, logCapBytes: this.#parts.logCapBytes },
          (kernel) => run.trace(kernel),
        ),
      );
    });
  }

  /** @param mayUseModel as for code */
  executeCommand(
    owner: Owner,
    spec: CommandSpec,
    waitMs: number,
    mayUseModel: boolean,
  ): Promise<Answer<RunView>> {
    const waitUntil = Date.now() + waitMs;
    return this.#serve(owner, () => {
      if (!mayUseModel) this.#parts.tasks.keepApart(owner.sandbox);
      return this.#start("command", spec.command, spec.timeoutMs, waitUntil, (run, allowance) =>
        this.#parts.commands.start(run, { ...spec, ...allowance }, (trace) => run.trace(trace)),
      );
    });
  }

  /** Answers with the run as it has just started; what becomes of it, `readRun` tells. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<Answer<RunView>> {
    return this.#serve(owner, async () => {
      const { used, allowed } = await this.#tellModelTokens();
      if (used >= allowed) throw quotaError({ limit: "modelTokensPerDay", allowed, used });
      const run = await this.#start("task", spec.task, spec.timeoutMs, 0, (active, allowance) =>
        this.#parts.tasks.start(active, { ...spec, ...allowance }),
      );
      await this.#parts.accountLink.account(owner).taskSeen(run);
      return run;
    });
  }

  taskOrigin(owner: Owner, id: string): Promise<Answer<TaskOrigin>> {
    return this.#answer(owner, async () => {
      const run = await this.#parts.runs.result(id, 0);
      const detail = taskDetailOf(run);
      const alive = this.#isUp && !detail?.ownSandbox && detail?.boot === this.#parts.restartNotice.count;
      return { run, alive };
    });
  }

  /** A range of a file that a task has left. */
  readArtifact(owner: Owner, id: string, path: string, offset: number, maxBytes: number) {
    return this.#answer(owner, async (): Promise<ArtifactRange> => {
      const run = await this.#parts.runs.result(id, 0);
      return readArtifact(this.env.RESULTS, this.#parts.accountLink.prefix(id), run, path, offset, maxBytes);
    });
  }

  /** Asked by the egress for each request to a model: whether this key is one of a task that runs here. */
  async admitModelCall(key: string): Promise<BudgetCheck> {
    const { budgets, runs } = this.#parts;
    const admission = await budgets.admit(key);
    if ("refused" in admission) return admission;
    const { call } = admission;
    if (!runs.isRunning(call.run)) return { refused: "The task that had this key has ended." };
    const { used, allowed } = await this.#tellModelTokens();
    if (used < allowed) return admission;
    budgets.refuseForToday(call);
    return { refused: quotaError({ limit: "modelTokensPerDay", allowed, used }).message };
  }

  /** Tells the account what of the model was used since it was last told; answers what is used of the day. */
  async #tellModelTokens(): Promise<{ used: number; allowed: number }> {
    const { budgets, accountLink } = this.#parts;
    const untold = budgets.takeUntold();
    try {
      return await accountLink.account(accountLink.owner).spendModelTokens(untold);
    } catch (error) {
      budgets.putBack(untold);
      throw error;
    }
  }

  /** Told by the egress when a request to a model is over. */
  modelAnswered(call: ModelCall, answer: ModelAnswer): void {
    this.#parts.tasks.modelAnswered(call, answer);
    // What cannot be told now is told with the next.
    this.ctx.waitUntil(this.#tellModelTokens().catch(() => undefined));
  }

  /** A run after waiting for its end, or with a cursor for more of its log, and the log from there on. */
  readRun(
    owner: Owner,
    id: string,
    waitMs: number,
    cursor?: number,
    maxBytes = 0,
  ): Promise<Answer<RunReading>> {
    return this.#answer(owner, async () => {
      const run = await this.#parts.runs.result(id, waitMs, cursor);
      return cursor === undefined ? { run } : { run, page: await this.#parts.runs.log(id, cursor, maxBytes) };
    });
  }

  listRuns(owner: Owner, limit: number, before?: string, kind?: RunKind): Promise<Answer<RunSummary[]>> {
    return this.#answer(owner, async () => this.#parts.runs.list(limit, before, kind));
  }

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<Answer<RunView>> {
    return this.#answer(owner, () => this.#parts.runs.cancel(id, waitMs));
  }

  /** Answers the file's size afterwards, in bytes. */
  putFile(owner: Owner, ...file: Parameters<Files["write"]>): Promise<Answer<number>> {
    const [, , append] = file;
    // An append in another container would make a file of the last piece alone.
    const serve = append ? this.#serve.bind(this) : this.#serveAgain.bind(this);
    return serve(owner, () => this.#parts.files.write(...file));
  }

  getFile(owner: Owner, ...range: Parameters<Files["read"]>): Promise<Answer<FileRange>> {
    return this.#serveAgain(owner, () => this.#parts.files.read(...range));
  }

  listDirectory(owner: Owner, ...what: Parameters<Files["list"]>): Promise<Answer<FileEntry[]>> {
    return this.#serveAgain(owner, () => this.#parts.files.list(...what));
  }

  /**
   * Lets a port be reached from outside for so many milliseconds, in the container that runs or is started for it.
   * @param token what the address is to hold where the port has none
   */
  openPreview(owner: Owner, port: number, token: string, ms: number): Promise<Answer<Preview>> {
    return this.#serve(owner, async () => {
      while (!this.#isUp) await this.client.utils.ping();
      return this.#parts.previews.open(port, token, Date.now() + ms);
    });
  }

  /** Answers whether the port could be reached. */
  closePreview(owner: Owner, port: number): Promise<Answer<boolean>> {
    return this.#answer(owner, async () => this.#parts.previews.close(port));
  }

  /** Requests to previews, beside what the SDK asks of its own actor. */
  override fetch(request: Request): Promise<Response> {
    return request.headers.has(PREVIEW_TOKEN) ? this.#parts.previews.serve(request) : super.fetch(request);
  }

  /** Ends the container with every process and file in it. Answers whether there was anything to end. */
  async destroySandbox(owner: Owner): Promise<Answer<boolean>> {
    return { ok: true, value: await this.#parts.gate.destroy(() => this.#destroy(owner)) };
  }

  async #destroy(owner: Owner): Promise<boolean> {
    this.#parts.runs.containerGone("The sandbox was destroyed while it ran.");
    await this.#parts.gate.clear(() => this.destroy());
    // The SDK's stop hook comes late and hangs up on whoever calls next: the call ends when it has run.
    await this.#parts.lifecycle.ended();
    // After the end, so that nothing of the sandbox's last calls lists it again.
    const known = await this.#parts.accountLink.destroyed(owner, this.#parts.lease.release());
    this.#parts.restartNotice.forget();
    this.#parts.kernels.forget();
    this.#parts.shell.forget();
    this.#parts.diskUsage.containerGone();
    this.#parts.previews.forget();
    if (known) this.#parts.accountLink.note("destroy");
    return known;
  }

  /** Called by the SDK's scheduler: removes expired runs. */
  async sweepRuns(): Promise<void> {
    await this.#parts.retention.sweep();
    this.#parts.storage.changed();
  }

  /** Called by the account when the principal's storage is full: so many bytes of runs that ended before a time go. */
  giveUpRuns(bytes: number, before: number): Promise<Stored> {
    return this.#parts.runs.giveUp(bytes, before);
  }

  /** Asked by the account: whether there is a container, or one is being started, and what of it is shown. */
  condition(): Condition {
    return {
      isAlive: this.#isUp || this.#parts.accountLink.isUnstarted,
      previews: this.#parts.previews.list(),
    };
  }

  /** Asked by the account when a limit is reached: what the lease holds beyond what runs is given up. */
  settleLease(): Settlement {
    return this.#parts.lease.settle();
  }

  /**
   * Called by the account for a sandbox that, as far as it knows, was not used for so many milliseconds; says whether it
   * is gone. What was used since its account looked is let be.
   */
  async destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    if (this.#parts.runs.isBusy || this.#calls > 0 || this.#parts.accountLink.wasUsedWithin(idleMs))
      return false;
    await this.destroySandbox(owner);
    return true;
  }

  /**
   * Called by the account when another sandbox needs a container and there are as many as may be. Answers whether there
   * is none here now. One that was used a moment ago is let be: whoever uses it is at work with its files.
   */
  async stopIfIdle(owner: Owner): Promise<boolean> {
    const { runs, accountLink, gate, restartNotice, lifecycle } = this.#parts;
    if (runs.isBusy || this.#calls > 0 || gate.isStarting || gate.isDestroying) return false;
    if (!this.#isUp) return true;
    if (accountLink.wasUsedWithin(AT_WORK_MS)) return false;
    await accountLink.meet(owner);
    restartNotice.ending("room");
    await gate.destroy(async () => {
      await gate.clear(() => this.destroy());
      await lifecycle.ended();
    });
    return true;
  }

  /**
   * Starts a run within the principal's quota, which may leave it less time than it asked for.
   * @param waitUntil when the caller is answered at the latest: what comes before the start takes from the time to wait
   */
  async #start(
    kind: RunKind,
    source: string,
    timeoutMs: number,
    waitUntil: number,
    launch: (run: ActiveRun, allowance: Allowance) => Execution,
  ): Promise<RunView> {
    const { stakes, gate, accountLink, runs } = this.#parts;
    const grant = await stakes.take(timeoutMs);
    if (!gate.isOpen || !accountLink.isRegistered) {
      await this.#ready(accountLink.owner).catch((error) => {
        grant.cancel();
        throw error;
      });
    }
    const waitMs = Math.max(0, waitUntil - Date.now());
    this.#parts.storage.changed();
    return runs.start(kind, titleOf(source), (run) => grant.held(launch(run, grant.allowance)), waitMs);
  }

  /** Does the work of one call that needs the container: a new sandbox must be within the principal's quota. */
  #serve<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#answer(owner, async () => {
      await this.#ready(owner);
      return work().finally(() => this.#parts.diskUsage.used());
    });
  }

  /** Not while it is being destroyed: what started then would be forgotten with it, and count nowhere. */
  async #ready(owner: Owner): Promise<void> {
    if (owner.mayStart === false && !this.#isUp) throw notRunning(owner.sandbox);
    do {
      await this.#parts.gate.passable();
      // Before the account is told: the end of the container before is news that would come after.
      await this.#parts.lifecycle.ready();
      await this.#parts.accountLink.register(owner);
    } while (this.#parts.gate.isDestroying);
    this.#parts.gate.open();
  }

  /** As `#serve`, for work that can be done twice: again in the next container when this one turns out to be gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#serve(owner, () => this.#parts.lifecycle.again(work, () => this.#ready(owner)));
  }

  #containerGone(): void {
    this.#parts.previews.containerGone();
    this.#parts.retention.containerGone();
    this.#parts.diskUsage.containerGone();
    this.#parts.kernels.forget();
    this.#parts.shell.forget();
    this.#parts.runs.containerGone(
      "The sandbox stopped while it ran; its files, processes and kernel state are gone.",
    );
  }

  /** Does the work of one call; what the caller should hear of becomes data, the rest is thrown for the log. */
  async #answer<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    if (await this.#parts.accountLink.meet(owner)) await this.setSandboxName(owner.sandbox);
    let outcome: Outcome<T>;
    this.#calls++;
    try {
      outcome = { ok: true, value: await work() };
    } catch (thrown) {
      const error = await this.#parts.lifecycle.explained(thrown);
      const failure = platformFailure(error);
      if (!failure) throw error;
      outcome = { ok: false, failure: this.#parts.runs.isAtWork ? failure : withoutRuns(failure) };
    } finally {
      this.#calls--;
      this.#hangUp();
      await this.#leaveNothing();
    }
    return { ...outcome, notice: this.#parts.restartNotice.takeNotice() };
  }

  /** Every way of the SDK's to a container goes through here. */
  override async startAndWaitForPorts(
    ...args: Parameters<BaseSandbox<Env>["startAndWaitForPorts"]>
  ): Promise<void> {
    try {
      await this.#parts.gate.start(() => super.startAndWaitForPorts(...args));
    } catch (error) {
      this.ctx.waitUntil(this.#leaveNothing());
      throw error;
    }
  }

  /** What the account was told for calls that were refused, or had no container, it is told to forget. */
  async #leaveNothing(): Promise<void> {
    const { isStarting, isDestroying } = this.#parts.gate;
    if (!this.#parts.accountLink.isUnstarted || isStarting || isDestroying || this.#isUp) return;
    if (this.#calls > 0 || this.#parts.runs.isBusy) return;
    this.#parts.gate.close();
    // When the account cannot be told, it takes the sandbox for one that nobody uses.
    await this.#parts.accountLink.withdraw(this.#parts.lease.release()).catch(() => undefined);
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    this.#parts.accountLink.started();
    this.#parts.lifecycle.onStart();
  }

  override async onStop(params?: Parameters<BaseSandbox<Env>["onStop"]>[0]): Promise<void> {
    await this.#parts.lifecycle.onStop(() => super.onStop(params));
    this.#parts.accountLink.stopped();
  }

  /**
   * The SDK has the time begin anew with each actor, and each call to the container. What only follows another actor, or
   * ends idle shells, goes on with what is left of it.
   */
  override renewActivityTimeout(): void {
    const { accountLink, runs } = this.#parts;
    const whole = this.sleepAfter;
    if (typeof whole === "number" && !runs.isBusy && this.#calls === 0)
      this.sleepAfter = Math.max(0, whole - accountLink.unusedMs / 1000);
    super.renewActivityTimeout();
    this.sleepAfter = whole;
  }

  override async onActivityExpired(): Promise<void> {
    if (this.#parts.runs.isBusy) return;
    this.#parts.restartNotice.ending("idle");
    await super.onActivityExpired();
  }

  #runEnded(run: RunRecord, hasFiles: boolean): void {
    if (run.kind === "task") this.#taskEnded(run);
    this.#parts.retention.runEnded(run, hasFiles);
    this.#parts.diskUsage.used();
    this.#parts.storage.changed();
    // A lost one may have been lost with its sandbox, which is not to be listed again.
    if (run.state !== "lost") this.ctx.waitUntil(this.#parts.accountLink.used());
    this.#hangUp();
    this.ctx.waitUntil(this.#leaveNothing());
  }

  /** The account learns of it; a sandbox that was made for the task ends when all of it is safe. */
  #taskEnded({ id, state, title, startedAt, endedAt, detail }: RunRecord): void {
    const { owner } = this.#parts.accountLink;
    this.#parts.budgets.close(localID(id));
    const task = taskDetailOf({ detail });
    const ended = this.#parts.accountLink.account(owner).taskSeen({ id, state, title, startedAt, endedAt });
    // Of a container that is gone only the account's entry is left.
    const gone = state === "lost" && !this.#isUp;
    const forget = async () => this.#parts.accountLink.destroyed(owner, this.#parts.lease.release());
    const end = () => (gone ? forget() : this.destroySandbox(owner));
    const over = task?.ownSandbox && (task.safe || gone) ? end() : undefined;
    this.ctx.waitUntil(Promise.all([ended, over]));
  }

  /** A call that its kernel never answers keeps the connection busy, and with it the container awake. */
  #hangUp(): void {
    const idle = () => this.#parts.kernels.abandoned > 0 && this.#calls === 0 && !this.#parts.runs.isBusy;
    if (!idle()) return;
    // Not at once: the kernel is still being put away over the same connection.
    setTimeout(() => idle() && this.client.disconnect(), HANG_UP_MS);
  }
}

function notRunning(sandbox: string): ToolError {
  return new ToolError(
    "not_found",
    `Sandbox ${sandbox} is not running, so it holds no files; your token may read and start none.`,
    "list_sandboxes shows those that run.",
  );
}

// Not a static field of the class: that would shadow the SDK's setter, and requests would go out to the internet.
Sandbox.outboundByHost = OUTBOUND;
