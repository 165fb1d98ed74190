/** The actor of one sandbox: its container, shells, kernels, files and runs. Our methods sit on the SDK's own class. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { resumeCode, startCode } from "../runs/code.ts";
import { type CommandSpec, type CommandTrace, Commands } from "../runs/command.ts";
import type { ActiveRun } from "../runs/active.ts";
import { localID } from "../runs/id.ts";
import {
  type Allowance,
  type Execution,
  type RunKind,
  type RunSummary,
  type RunView,
  titleOf,
} from "../runs/run.ts";
import { type Launch, type LogPage, Runs } from "../runs/runs.ts";
import type { RunRecord } from "../runs/store.ts";
import { type TaskSpec, type TaskTrace, Tasks } from "../runs/task.ts";
import { type Admission, type ModelAnswer, type ModelCall, TaskBudgets } from "../runs/task-budget.ts";
import { type ArtifactRange, readArtifact, taskDetailOf } from "../runs/task-collect.ts";
import { type Env, parseConfig } from "../server/config.ts";
import { log } from "../server/log.ts";
import { Boots } from "./boots.ts";
import { type Outcome, platformFailure } from "./errors.ts";
import { OUTBOUND } from "./egress.ts";
import { type FileEntry, type FileRange, Files } from "./files.ts";
import { Gate } from "./gate.ts";
import { Housekeeping } from "./housekeeping.ts";
import type { Kernel } from "./kernel-table.ts";
import { type CodeSpec, Kernels } from "./kernels.ts";
import { Lease, type Stake, cutShort } from "./lease.ts";
import { Lifecycle } from "./lifecycle.ts";
import { Measuring } from "./measuring.ts";
import { Membership, type Owner } from "./membership.ts";
import type { Settlement } from "./quota.ts";
import { Shell } from "./shell.ts";

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

/** How long a connection that only an abandoned call keeps busy stays open, milliseconds. */
const HANG_UP_MS = 5000;

const DAY_MS = 86_400_000;

/** Where it is remembered until when the account knows what runs have used, in the actor's storage. */
const TOLD = "told";

export class Sandbox extends BaseSandbox<Env> {
  override sleepAfter = "10m";

  /** Bytes of a run's log at most. */
  readonly #logCapBytes: number;
  readonly #boots: Boots;
  readonly #shell: Shell;
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #kernels: Kernels;
  readonly #runs: Runs;
  readonly #lease: Lease;
  readonly #budgets: TaskBudgets;
  readonly #tasks: Tasks;
  readonly #lifecycle: Lifecycle;
  readonly #membership: Membership;
  readonly #housekeeping: Housekeeping;
  readonly #measuring: Measuring;
  #calls = 0;
  readonly #gate = new Gate(() => this.ctx.container?.running === true);

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    const config = parseConfig(env);
    this.#logCapBytes = config.runLogMaxMiB * 1024 * 1024;
    this.#boots = new Boots(ctx.storage.kv);
    this.#lifecycle = new Lifecycle(
      {
        running: () => ctx.container?.running === true,
        stop: () => this.stop(),
        started: () => this.#membership.note("start"),
        gone: () => this.#containerGone(),
      },
      this.#boots,
    );
    this.#shell = new Shell(this, () => this.#lifecycle.outlived());
    this.#membership = new Membership(ctx, env, this.#shell);
    this.#commands = new Commands(this.#shell);
    this.#files = new Files(this.#shell, this);
    this.#kernels = new Kernels(this, ctx.storage.sql);
    this.#runs = new Runs({
      sql: ctx.storage.sql,
      bucket: env.RESULTS,
      owner: () => this.#membership.owner,
      logCapBytes: this.#logCapBytes,
      keepMs: config.resultTTLDays * DAY_MS,
      background: (work) => ctx.waitUntil(work),
      failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
      ended: (run, hasFiles) => this.#runEnded(run, hasFiles),
    });
    this.#housekeeping = new Housekeeping({
      kv: ctx.storage.kv,
      shell: this.#shell,
      running: () => ctx.container?.running === true,
      keepMs: config.resultTTLDays * DAY_MS,
      background: (work) => ctx.waitUntil(work),
      schedule: (at) => this.schedule(at, "sweepRuns"),
      sweep: () => this.#runs.sweep(),
    });
    this.#measuring = new Measuring({
      running: () => ctx.container?.running === true,
      measure: () => this.#membership.measure(),
      background: (work) => ctx.waitUntil(work),
    });
    const { kv } = ctx.storage;
    this.#lease = new Lease(
      {
        ask: (request) => {
          const { owner } = this.#membership;
          return this.#membership.account(owner).lease(owner, request);
        },
        background: (work) => ctx.waitUntil(work),
        told: () => kv.put(TOLD, Date.now()),
      },
      this.#runs.secondsSince(kv.get<number>(TOLD)),
    );
    this.#budgets = new TaskBudgets(ctx.storage.sql);
    this.#tasks = new Tasks({
      shell: this.#shell,
      commands: this.#commands,
      budgets: this.#budgets,
      bucket: env.RESULTS,
      prefix: (runID) => this.#membership.prefix(runID),
      writeFile: (...file) => this.writeFile(...file),
      boot: () => this.#boots.count,
      maxTokens: config.tasks.maxTokens,
      archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
      report: (error) =>
        log(config, { event: "error", ref: crypto.randomUUID(), where: "execute_task", error }),
    });
    this.#runs.resume(({ kind, trace, startedAt }) => {
      if (kind !== "task" && !trace)
        return "It waited for its turn when the server was restarted, and never ran. Run it again.";
      if (!ctx.container?.running)
        return "The sandbox went away while the server was down, and everything in it.";
      const held = (launch: Launch, until = 0): Launch => {
        return (run) => this.#staked(this.#heldUntil(until, startedAt), launch(run), startedAt);
      };
      if (kind === "task") {
        const task = trace as TaskTrace | undefined;
        const launch = this.#tasks.resume(task);
        return typeof launch === "string" ? launch : held(launch, task?.command?.deadline);
      }
      if (kind === "command") {
        const command = trace as CommandTrace;
        return held((run) => this.#commands.resume(run, command), command.deadline);
      }
      return held((run) => resumeCode(this.#kernels, this.#shell, run, trace as Kernel));
    });
  }

  executeCode(
    owner: Owner,
    spec: Omit<CodeSpec, "runID" | "logCapBytes">,
    waitMs: number,
  ): Promise<Answer<RunView>> {
    return this.#serve(owner, () =>
      this.#start("code", spec.code, spec.timeoutMs, waitMs, (run, allowance) =>
        startCode(
          this.#kernels,
          this.#shell,
          run,
          { ...spec, ...allowance, logCapBytes: this.#logCapBytes },
          (kernel) => run.trace(kernel),
        ),
      ),
    );
  }

  executeCommand(owner: Owner, spec: CommandSpec, waitMs: number): Promise<Answer<RunView>> {
    return this.#serve(owner, () =>
      this.#start("command", spec.command, spec.timeoutMs, waitMs, (run, allowance) =>
        this.#commands.start(run, { ...spec, ...allowance }, (trace) => run.trace(trace)),
      ),
    );
  }

  /** Answers with the run as it has just started; what becomes of it, `readRun` tells. */
  executeTask(owner: Owner, spec: TaskSpec): Promise<Answer<RunView>> {
    return this.#serve(owner, async () => {
      const run = await this.#start("task", spec.task, spec.timeoutMs, 0, (active, allowance) =>
        this.#tasks.start(active, { ...spec, ...allowance }),
      );
      await this.#membership.account(owner).taskSeen(run);
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
      return readArtifact(this.env.RESULTS, this.#membership.prefix(id), run, path, offset, maxBytes);
    });
  }

  /** Asked by the egress for each request to a model: whether this key is one of a task that runs here. */
  async admitModelCall(key: string): Promise<Admission> {
    const admission = await this.#budgets.admit(key);
    if ("refused" in admission || this.#runs.isRunning(admission.call.run)) return admission;
    return { refused: "The task that had this key has ended." };
  }

  /** Told by the egress when a request to a model is over, with an answer or without. */
  modelAnswered(call: ModelCall, answer?: ModelAnswer): void {
    this.#tasks.modelAnswered(call, answer);
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
    return { ok: true, value: await this.#gate.destroy(() => this.#destroy(owner)) };
  }

  async #destroy(owner: Owner): Promise<boolean> {
    this.#runs.containerGone("The sandbox was destroyed while it ran.");
    await this.#gate.clear(() => this.destroy());
    // The SDK's stop hook comes late and hangs up on whoever calls next: the call ends when it has run.
    await this.#lifecycle.ended();
    // After the end, so that nothing of the sandbox's last calls lists it again.
    const known = await this.#membership.destroyed(owner, this.#lease.release());
    this.#boots.forget();
    this.#kernels.forget();
    this.#measuring.containerGone();
    if (known) this.#membership.note("destroy");
    return known;
  }

  /** Called by the SDK's scheduler: removes expired runs. */
  sweepRuns(): Promise<void> {
    return this.#housekeeping.sweep();
  }

  /** Asked by the account when a limit is reached: what the lease holds beyond what runs is given up. */
  settleLease(): Settlement {
    return this.#lease.settle();
  }

  /**
   * Called by the account for a sandbox that, as far as it knows, was not used for so many milliseconds; says whether it
   * is gone. What was used since its account looked is let be.
   */
  async destroyIfIdle(owner: Owner, idleMs: number): Promise<boolean> {
    if (this.#runs.isBusy || this.#calls > 0 || this.#membership.wasUsedWithin(idleMs)) return false;
    await this.destroySandbox(owner);
    return true;
  }

  /** Starts a run within the principal's quota, which may leave it less time than it asked for. */
  async #start(
    kind: RunKind,
    source: string,
    timeoutMs: number,
    waitMs: number,
    launch: (run: ActiveRun, allowance: Allowance) => Execution,
  ): Promise<RunView> {
    const stake = await this.#lease.take(Math.ceil(timeoutMs / 1000));
    if (!this.#gate.isOpen || !this.#membership.isRegistered) {
      await this.#ready(this.#membership.owner).catch((error) => {
        this.#lease.give(stake, 0);
        throw error;
      });
    }
    const grantedMs = stake.seconds * 1000;
    const allowance =
      grantedMs < timeoutMs
        ? { timeoutMs: grantedMs, cut: cutShort(stake.seconds, parseConfig(this.env).limits, Date.now()) }
        : { timeoutMs };
    return this.#runs.start(
      kind,
      titleOf(source),
      (run) => this.#staked(stake, launch(run, allowance)),
      waitMs,
    );
  }

  /** The stake of a run that an earlier actor started, from its start on. */
  #heldUntil(deadline: number, startedAt: number): Stake {
    return this.#lease.hold(Math.max(1, Math.ceil((deadline - startedAt) / 1000)));
  }

  /** Gives the stake back when the execution has ended. */
  #staked(stake: Stake, execution: Execution, startedAt = Date.now()): Execution {
    const give = () => this.#lease.give(stake, (Date.now() - startedAt) / 1000);
    execution.done.then(give, give);
    const done = execution.done.catch(async (error) => {
      throw await this.#lifecycle.explained(error);
    });
    return { ...execution, done };
  }

  /** Does the work of one call that needs the container: a new sandbox must be within the principal's quota. */
  #serve<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#answer(owner, async () => {
      await this.#ready(owner);
      return work().finally(() => this.#measuring.used());
    });
  }

  /** Not while it is being destroyed: what started then would be forgotten with it, and count nowhere. */
  async #ready(owner: Owner): Promise<void> {
    do {
      await this.#gate.passable();
      // Before the account is told: the end of the container before is news that would come after.
      await this.#lifecycle.ready();
      await this.#membership.register(owner);
    } while (this.#gate.isDestroying);
    this.#gate.open();
  }

  /** As `#serve`, for work that can be done twice: again in the next container when this one turns out to be gone. */
  #serveAgain<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    return this.#serve(owner, () => this.#lifecycle.again(work, () => this.#ready(owner)));
  }

  #containerGone(): void {
    this.#housekeeping.containerGone();
    this.#measuring.containerGone();
    this.#kernels.forget();
    this.#runs.containerGone(
      "The sandbox stopped while it ran; its files, processes and kernel state are gone.",
    );
  }

  /** Does the work of one call; what the caller should hear of becomes data, the rest is thrown for the log. */
  async #answer<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    if (await this.#membership.meet(owner)) await this.setSandboxName(owner.sandbox);
    let outcome: Outcome<T>;
    this.#calls++;
    try {
      outcome = { ok: true, value: await work() };
    } catch (thrown) {
      const error = await this.#lifecycle.explained(thrown);
      const failure = platformFailure(error);
      if (!failure) throw error;
      outcome = { ok: false, failure };
    } finally {
      this.#calls--;
      this.#hangUp();
      await this.#leaveNothing();
    }
    return { ...outcome, notice: this.#boots.takeNotice() };
  }

  /** Every way of the SDK's to a container goes through here. */
  override async startAndWaitForPorts(
    ...args: Parameters<BaseSandbox<Env>["startAndWaitForPorts"]>
  ): Promise<void> {
    try {
      await this.#gate.start(() => super.startAndWaitForPorts(...args));
    } catch (error) {
      this.ctx.waitUntil(this.#leaveNothing());
      throw error;
    }
  }

  /** What the account was told for calls that were refused, or had no container, it is told to forget. */
  async #leaveNothing(): Promise<void> {
    const { isStarting, isDestroying } = this.#gate;
    if (!this.#membership.isUnstarted || isStarting || isDestroying || this.ctx.container?.running) return;
    if (this.#calls > 0 || this.#runs.isBusy) return;
    this.#gate.close();
    // When the account cannot be told, it takes the sandbox for one that nobody uses.
    await this.#membership.withdraw(this.#lease.release()).catch(() => undefined);
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    this.#membership.started();
    this.#lifecycle.onStart();
  }

  override async onStop(params?: Parameters<BaseSandbox<Env>["onStop"]>[0]): Promise<void> {
    await this.#lifecycle.onStop(() => super.onStop(params));
    this.#membership.stopped();
  }

  override async onActivityExpired(): Promise<void> {
    if (this.#runs.isBusy) return;
    this.#boots.idle();
    await super.onActivityExpired();
  }

  #runEnded(run: RunRecord, hasFiles: boolean): void {
    if (run.kind === "task") this.#taskEnded(run);
    this.#housekeeping.runEnded(run, hasFiles);
    this.#measuring.used();
    // A lost one may have been lost with its sandbox, which is not to be listed again.
    if (run.state !== "lost") this.ctx.waitUntil(this.#membership.used());
    this.#hangUp();
    this.ctx.waitUntil(this.#leaveNothing());
  }

  /** The account learns of it; a sandbox that was made for the task ends when all of it is safe. */
  #taskEnded({ id, state, title, startedAt, endedAt, detail }: RunRecord): void {
    const { owner } = this.#membership;
    this.#budgets.close(localID(id));
    const task = taskDetailOf({ detail });
    const ended = this.#membership.account(owner).taskSeen({ id, state, title, startedAt, endedAt });
    // Of a container that is gone only the account's entry is left.
    const gone = state === "lost" && !this.ctx.container?.running;
    const forget = async () => this.#membership.destroyed(owner, this.#lease.release());
    const end = () => (gone ? forget() : this.destroySandbox(owner));
    const over = task?.ownSandbox && (task.safe || gone) ? end() : undefined;
    this.ctx.waitUntil(Promise.all([ended, over]));
  }

  /** A call that its kernel never answers keeps the connection busy, and with it the container awake. */
  #hangUp(): void {
    const idle = () => this.#kernels.abandoned > 0 && this.#calls === 0 && !this.#runs.isBusy;
    if (!idle()) return;
    // Not at once: the kernel is still being put away over the same connection.
    setTimeout(() => idle() && this.client.disconnect(), HANG_UP_MS);
  }
}

// Not a static field of the class: that would shadow the SDK's setter, and requests would go out to the internet.
Sandbox.outboundByHost = OUTBOUND;
