/** The actor of one sandbox: its container, shells, kernels, files and runs. Our methods sit on the SDK's own class. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { startCode } from "../runs/code.ts";
import { type CommandSpec, type CommandTrace, Commands } from "../runs/command.ts";
import type { ActiveRun } from "../runs/active.ts";
import { localID } from "../runs/id.ts";
import { type Execution, type RunKind, type RunSummary, type RunView, titleOf } from "../runs/run.ts";
import { type LogPage, Runs } from "../runs/runs.ts";
import type { RunRecord } from "../runs/store.ts";
import { type TaskSpec, type TaskTrace, Tasks } from "../runs/task.ts";
import { type Admission, TaskBudgets, type UpstreamError } from "../runs/task-budget.ts";
import { type ArtifactRange, readArtifact, taskDetailOf } from "../runs/task-collect.ts";
import { type Env, parseConfig } from "../server/config.ts";
import { type SandboxEvent, log } from "../server/log.ts";
import type { Account } from "./account.ts";
import { Boots } from "./boots.ts";
import { type Outcome, connectionLost, isGone, platformFailure, unwrap } from "./errors.ts";
import { OUTBOUND } from "./egress.ts";
import { type FileEntry, type FileRange, Files } from "./files.ts";
import { within } from "./kernel-process.ts";
import { type CodeSpec, Kernels } from "./kernels.ts";
import { Lease, type Stake } from "./lease.ts";
import { principalHash } from "./naming.ts";
import type { Settlement } from "./quota.ts";
import { Shell } from "./shell.ts";

/** Whose sandbox this is. The actor's own name already holds both, hashed; this is what it shows and registers. */
export interface Owner {
  principalID: string;
  /** The sandbox's name as the principal knows it. */
  sandbox: string;
}

interface KnownOwner extends Owner {
  principalHash: string;
}

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

/** How long the registration in `Account` may lag behind, milliseconds. */
const REGISTER_EVERY = 60_000;

/** Ended runs whose files in the sandbox are removed in one call. */
const CLEAN_BATCH = 16;

/** How long a connection that only an abandoned call keeps busy stays open, milliseconds. */
const HANG_UP_MS = 5000;

/** How long the SDK's stop hook is waited for, milliseconds. */
const STOP_MS = 5000;

/** How long after an interrupted call the end of its container may show, milliseconds. */
const OUTLIVED_MS = 1000;

const DAY_MS = 86_400_000;

/** When a sweep that failed is tried again, milliseconds. */
const SWEEP_AGAIN_MS = 3_600_000;

type StopParameters = Parameters<BaseSandbox<Env>["onStop"]>[0];

export class Sandbox extends BaseSandbox<Env> {
  override sleepAfter = "10m";

  readonly #boots: Boots;
  readonly #shell: Shell;
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #kernels: Kernels;
  readonly #runs: Runs;
  readonly #lease: Lease;
  readonly #budgets: TaskBudgets;
  readonly #tasks: Tasks;
  #owner: KnownOwner | undefined;
  #registeredAt = 0;
  #calls = 0;
  #toClean: string[] = [];
  /** Whether what there is here of a container belongs to one that, as far as is known, runs. */
  #isUp: boolean;
  /** Settles when the SDK has noticed that the container stopped. */
  #stopped = Promise.withResolvers<void>();
  /** Set once the SDK is to see to the end of the container before, until the next one has started. */
  #settled: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    const config = parseConfig(env);
    this.#owner = ctx.storage.kv.get<KnownOwner>("owner");
    this.#isUp = ctx.container?.running === true;
    this.#shell = new Shell(this, () => this.#outlived());
    this.#boots = new Boots(ctx.storage.kv);
    this.#commands = new Commands(this.#shell);
    this.#files = new Files(this.#shell, this);
    this.#kernels = new Kernels(this, ctx.storage.sql);
    this.#runs = new Runs({
      sql: ctx.storage.sql,
      bucket: env.RESULTS,
      owner: () => this.#known(),
      logCapBytes: config.runLogMaxMiB * 1024 * 1024,
      keepMs: config.resultTTLDays * DAY_MS,
      background: (work) => ctx.waitUntil(work),
      failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
      ended: (run, hasFiles) => this.#runEnded(run, hasFiles),
    });
    this.#lease = new Lease({
      ask: (request) => this.#account(this.#known()).lease(this.#known(), request),
      background: (work) => ctx.waitUntil(work),
    });
    this.#budgets = new TaskBudgets(ctx.storage.sql);
    this.#tasks = new Tasks({
      shell: this.#shell,
      commands: this.#commands,
      budgets: this.#budgets,
      bucket: env.RESULTS,
      prefix: (runID) => this.#prefix(runID),
      writeFile: (...file) => this.writeFile(...file),
      boot: () => this.#boots.count,
      maxTokens: config.tasks.maxTokens,
      archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
      report: (error) =>
        log(config, { event: "error", ref: crypto.randomUUID(), where: "execute_task", error }),
    });
    this.#runs.resume(({ kind, trace }) => {
      if (!ctx.container?.running)
        return "The sandbox went away while the server was down, and everything in it.";
      if (kind === "task" && trace) {
        const task = trace as TaskTrace;
        const resume = this.#tasks.resume(task);
        if (typeof resume === "string") return resume;
        const seconds = Math.max(1, Math.ceil(((task.command?.deadline ?? 0) - Date.now()) / 1000));
        return (run) => this.#staked(this.#lease.hold(seconds), resume(run));
      }
      if (kind === "command" && trace) {
        const command = trace as CommandTrace;
        const seconds = Math.max(1, Math.ceil((command.deadline - Date.now()) / 1000));
        return (run) => this.#staked(this.#lease.hold(seconds), this.#commands.resume(run, command));
      }
      if (kind === "command")
        return "It waited for its turn when the server was restarted, and never ran. Run it again.";
      return "The server was restarted while it ran, and lost the way to its result.";
    });
  }

  executeCode(owner: Owner, spec: Omit<CodeSpec, "runID">, waitMs: number): Promise<Answer<RunView>> {
    return this.#serve(owner, () =>
      this.#start("code", spec.code, spec.timeoutMs, waitMs, (run, timeoutMs) =>
        startCode(this.#kernels, this.#shell, run, { ...spec, timeoutMs }),
      ),
    );
  }

  executeCommand(owner: Owner, spec: CommandSpec, waitMs: number): Promise<Answer<RunView>> {
    return this.#serve(owner, () =>
      this.#start("command", spec.command, spec.timeoutMs, waitMs, (run, timeoutMs) =>
        this.#commands.start(run, { ...spec, timeoutMs }, (trace) => run.trace(trace)),
      ),
    );
  }

  /** Answers with the run as it has just started; what becomes of it, `readRun` tells. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<Answer<RunView>> {
    return this.#serve(owner, async () => {
      const run = await this.#start("task", spec.task, spec.timeoutMs, 0, (active, timeoutMs) =>
        this.#tasks.start(active, { ...spec, timeoutMs }),
      );
      await this.#account(owner).taskSeen(run);
      return run;
    });
  }

  taskOrigin(owner: Owner, id: string): Promise<Answer<TaskOrigin>> {
    return this.#answer(owner, async () => {
      const run = await this.#runs.result(id, 0);
      const detail = taskDetailOf(run);
      const alive =
        this.ctx.container?.running === true && !detail?.ownSandbox && detail?.boot === this.#boots.count;
      return { run, alive };
    });
  }

  /** A range of a file that a task has left. */
  readArtifact(owner: Owner, id: string, path: string, offset: number, maxBytes: number) {
    return this.#answer(owner, async (): Promise<ArtifactRange> => {
      const run = await this.#runs.result(id, 0);
      return readArtifact(this.env.RESULTS, this.#prefix(id), run, path, offset, maxBytes);
    });
  }

  /** Asked by the egress for each request to a model: whether this key is one of a task that runs here. */
  async admitModelCall(key: string): Promise<Admission> {
    const admission = await this.#budgets.admit(key);
    if ("refused" in admission || this.#runs.isRunning(admission.run)) return admission;
    return { refused: "The task that had this key has ended." };
  }

  /** Told by the egress when a model's answer has ended: the tokens it took, and what was wrong when something was. */
  modelAnswered(run: string, tokens: number, error?: UpstreamError): void {
    this.#tasks.modelAnswered(run, tokens, error);
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
      const run = await this.#runs.result(id, waitMs, cursor);
      return cursor === undefined ? { run } : { run, page: await this.#runs.log(id, cursor, maxBytes) };
    });
  }

  listRuns(owner: Owner, limit: number, before?: string, kind?: RunKind): Promise<Answer<RunSummary[]>> {
    return this.#answer(owner, async () => this.#runs.list(limit, before, kind));
  }

  cancelRun(owner: Owner, id: string, waitMs: number): Promise<Answer<RunView>> {
    return this.#answer(owner, () => this.#runs.cancel(id, waitMs));
  }

  /** Answers the file's size afterwards, in bytes. */
  putFile(owner: Owner, path: string, content: Uint8Array, append: boolean): Promise<Answer<number>> {
    // An append in another container would make a file of the last piece alone.
    const serve = append ? this.#serve.bind(this) : this.#serveAgain.bind(this);
    return serve(owner, () => this.#files.write(path, content, append));
  }

  getFile(owner: Owner, ...range: Parameters<Files["read"]>): Promise<Answer<FileRange>> {
    return this.#serveAgain(owner, () => this.#files.read(...range));
  }

  listDirectory(owner: Owner, ...what: Parameters<Files["list"]>): Promise<Answer<FileEntry[]>> {
    return this.#serveAgain(owner, () => this.#files.list(...what));
  }

  /** Ends the container with every process and file in it. Answers whether there was anything to end. */
  async destroySandbox(owner: Owner): Promise<Answer<boolean>> {
    this.#runs.containerGone("The sandbox was destroyed while it ran.");
    await this.destroy();
    // The SDK's stop hook comes late and hangs up on whoever calls next: the call ends when it has run.
    if (this.#isUp) await within(STOP_MS, this.#stopped.promise);
    // After the end, so that nothing of the sandbox's last calls lists it again.
    const known = await this.#account(owner).sandboxDestroyed(owner.sandbox);
    this.#registeredAt = 0;
    this.#boots.forget();
    this.#kernels.forget();
    this.#note("destroy");
    return { ok: true, value: known };
  }

  /** Called by the SDK's scheduler: removes expired runs. */
  async sweepRuns(): Promise<void> {
    this.ctx.storage.kv.delete("sweep");
    // What the bucket does not delete now is left to a later sweep.
    const next = await this.#runs.sweep().catch(() => Date.now() + SWEEP_AGAIN_MS);
    if (next !== undefined) await this.#planSweep(next);
  }

  /** Asked by the account when a limit is reached: what the lease holds beyond what runs is given up. */
  settleLease(): Settlement {
    return this.#lease.settle();
  }

  /** Called by the account for a sandbox that was long not used; says whether it is gone. */
  async destroyIfIdle(owner: Owner): Promise<boolean> {
    if (this.#runs.isBusy || this.#calls > 0) return false;
    await this.destroySandbox(owner);
    return true;
  }

  /** Starts a run within the principal's quota, which may leave it less time than it asked for. */
  async #start(
    kind: RunKind,
    source: string,
    timeoutMs: number,
    waitMs: number,
    launch: (run: ActiveRun, timeoutMs: number) => Execution,
  ): Promise<RunView> {
    const stake = await this.#lease.take(Math.ceil(timeoutMs / 1000));
    const granted = Math.min(timeoutMs, stake.seconds * 1000);
    return this.#runs.start(
      kind,
      titleOf(source),
      (run) => this.#staked(stake, launch(run, granted)),
      waitMs,
    );
  }

  /** Gives the stake back when the execution has ended. */
  #staked(stake: Stake, execution: Execution): Execution {
    const startedAt = Date.now();
    const give = () => this.#lease.give(stake, (Date.now() - startedAt) / 1000);
    execution.done.then(give, give);
    const done = execution.done.catch(async (error) => {
      throw await this.#explained(error);
    });
    return { ...execution, done };
  }

  /** The SDK's error for an interrupted call says that the sandbox is gone; when it is not, the connection was. */
  async #explained(error: unknown): Promise<unknown> {
    return isGone(error) && (await this.#outlived()) ? connectionLost() : error;
  }

  /** Whether the container goes on although a call to it was interrupted. Its end can be known a moment later. */
  async #outlived(): Promise<boolean> {
    for (let look = 0; look < OUTLIVED_MS / 100; look++) {
      if (!this.ctx.container?.running) return false;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return this.ctx.container?.running ?? false;
  }

  /** Does the work of one call that needs the container: a new sandbox must be within the principal's quota. */
  #serve<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#answer(owner, async () => {
      await this.#register(owner);
      await this.#goneIfDown();
      return work();
    });
  }

  /** As `#serve`, for work that can be done twice: again in the next container when this one turns out to be gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#serve(owner, async () => {
      try {
        return await work();
      } catch (error) {
        if (!isGone(error)) throw error;
        await within(STOP_MS, this.#stopped.promise);
        await this.#goneIfDown();
        return work();
      }
    });
  }

  /**
   * Ends what ran in a container that is seen to be gone, before anything begins in the next one: the SDK's word of it
   * may come late, and would end that too.
   */
  async #goneIfDown(): Promise<void> {
    if (this.ctx.container?.running) return;
    this.#gone();
    // The SDK closes the old container's connection when it sees to its end: on its own time, or else when it starts the
    // next one, over the head of the call that waits for that. Of a container that does not run this is all that `stop`
    // does; once, because one that is just being started would get the signal.
    this.#settled ??= this.stop().catch(() => undefined);
    await within(STOP_MS, this.#settled);
    await this.#stopping;
  }

  #gone(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#toClean = [];
    this.#kernels.forget();
    this.#runs.containerGone(
      "The sandbox stopped while it ran; its files, processes and kernel state are gone.",
    );
  }

  /** Does the work of one call; what the caller should hear of becomes data, the rest is thrown for the log. */
  async #answer<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    if (!this.#owner) {
      this.#owner = { ...owner, principalHash: await principalHash(owner.principalID) };
      this.ctx.storage.kv.put("owner", this.#owner);
      await this.setSandboxName(owner.sandbox);
    }
    let outcome: Outcome<T>;
    this.#calls++;
    try {
      outcome = { ok: true, value: await work() };
    } catch (thrown) {
      const error = await this.#explained(thrown);
      const failure = platformFailure(error);
      if (!failure) throw error;
      outcome = { ok: false, failure };
    } finally {
      this.#calls--;
      this.#hangUp();
    }
    return { ...outcome, notice: this.#boots.takeNotice() };
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    if (!this.#isUp) {
      this.#isUp = true;
      this.#settled = undefined;
      this.#stopped = Promise.withResolvers();
      this.#boots.started();
      this.#note("start");
    }
  }

  override onStop(params?: StopParameters): Promise<void> {
    this.#stopping = this.#onStop(params);
    return this.#stopping;
  }

  async #onStop(params?: StopParameters): Promise<void> {
    await super.onStop(params);
    // Only the next call may have started another container by now: it has ended what ran in this one.
    if (!this.ctx.container?.running) this.#gone();
    this.#stopped.resolve();
    this.#registeredAt = 0;
    this.#note("stop");
    const owner = this.#owner;
    if (owner) this.ctx.waitUntil(this.#account(owner).sandboxStopped(owner.sandbox));
  }

  override async onActivityExpired(): Promise<void> {
    if (this.#runs.isBusy) return;
    this.#boots.idle();
    await super.onActivityExpired();
  }

  #runEnded(run: RunRecord, hasFiles: boolean): void {
    if (run.kind === "task") this.#taskEnded(run);
    if (hasFiles && this.ctx.container?.running) {
      this.#toClean.push(localID(run.id));
      if (this.#toClean.length >= CLEAN_BATCH || run.logBytes + run.droppedBytes > 1024 * 1024) {
        const ids = this.#toClean.splice(0);
        this.ctx.waitUntil(this.#shell.call("run.sh", `sbx_clean ${ids.join(" ")}`).catch(() => undefined));
      }
    }
    this.#hangUp();
    const { resultTTLDays } = parseConfig(this.env);
    if (!this.ctx.storage.kv.get("sweep"))
      this.ctx.waitUntil(this.#planSweep(Date.now() + resultTTLDays * DAY_MS));
  }

  /** The account learns of it; a sandbox that was made for the task ends when all of it is safe. */
  #taskEnded({ id, state, title, startedAt, endedAt, detail }: RunRecord): void {
    const owner = this.#known();
    this.#budgets.close(localID(id));
    const task = taskDetailOf({ detail });
    const ended = this.#account(owner).taskSeen({ id, state, title, startedAt, endedAt });
    const over = task?.ownSandbox && task.safe ? this.destroySandbox(owner) : undefined;
    this.ctx.waitUntil(Promise.all([ended, over]));
  }

  #prefix(runID: string): string {
    return `${this.#known().principalHash}/${runID}/`;
  }

  async #planSweep(at: number): Promise<void> {
    this.ctx.storage.kv.put("sweep", at);
    await this.schedule(new Date(at + 1000), "sweepRuns");
  }

  /** A call that its kernel never answers keeps the connection busy, and with it the container awake. */
  #hangUp(): void {
    const idle = () => this.#kernels.abandoned > 0 && this.#calls === 0 && !this.#runs.isBusy;
    if (!idle()) return;
    // Not at once: the kernel is still being put away over the same connection.
    setTimeout(() => idle() && this.client.disconnect(), HANG_UP_MS);
  }

  /**
   * Tells the principal's account that this sandbox is in use: before its first call, then in the background and rarely.
   * @throws {ToolError} `quota_exceeded` for one sandbox too many
   */
  async #register(owner: Owner): Promise<void> {
    const now = Date.now();
    if (now - this.#registeredAt < REGISTER_EVERY) return;
    const known = this.#registeredAt > 0;
    const answer = this.#account(owner)
      .sandboxUsed(owner)
      .then((outcome) => unwrap(outcome));
    if (known) this.ctx.waitUntil(answer.then(() => this.#measure(owner)).catch(() => undefined));
    else await answer;
    this.#registeredAt = now;
  }

  /** Tells the account how much the sandbox holds. */
  async #measure(owner: Owner): Promise<void> {
    const { words } = await this.#shell.call("files.sh", "sbx_usage /workspace");
    await this.#account(owner).sandboxSize(owner.sandbox, Number(words[0]) || 0);
  }

  #note(action: SandboxEvent["action"]): void {
    if (!this.#owner) return;
    const { principalID: principal, sandbox } = this.#owner;
    log(parseConfig(this.env), { event: "sandbox", action, principal, sandbox });
  }

  #known(): KnownOwner {
    if (!this.#owner) throw new Error("a sandbox without an owner has no runs");
    return this.#owner;
  }

  #account(owner: Owner): DurableObjectStub<Account> {
    const accounts = this.env.Account as DurableObjectNamespace<Account>;
    return accounts.getByName(owner.principalID);
  }
}

// Not a static field of the class: that would shadow the SDK's setter, and requests would go out to the internet.
Sandbox.outboundByHost = OUTBOUND;
