/**
 * All runs of one sandbox, from start until their records expire. A run belongs to the actor, not to the request that started
 * it, so its callers may disconnect.
 */
import { unknownRun } from "../shared/errors.ts";
import type { TerminalInput } from "../container/connection.ts";
import { ActiveRun } from "./active-run.ts";
import { isServiceState } from "./command-executor.ts";
import { Backlog } from "./backlog.ts";
import { startAfter } from "./deferred.ts";
import { HeadAndTail } from "./head-and-tail.ts";
import { firstIDAt, isTaskID, newRunID } from "./id.ts";
import { LogWriter, LogWrites, type RunObjects, deleteLog, readLog } from "./run-log.ts";
import type { Executor, Resumer } from "./executor.ts";
import {
  type Allowance,
  type End,
  type Execution,
  type LogPiece,
  type RunSummary,
  type RunView,
  type WaitState,
} from "./run-types.ts";
import type { RunKind } from "../shared/run-listing.ts";
import {
  type NewRun,
  type RunRecord,
  RunStore,
  type Stored,
  hasNeverStarted,
  sourceToStore,
  viewOf,
} from "./run-store.ts";
import { DAY_MS } from "../shared/days.ts";
import { countdown, pause, waitAtMost } from "../shared/timers.ts";
import { deleteBelow } from "../storage/object-store.ts";
import { titleOf } from "../shared/text.ts";
import * as texts from "./texts.ts";

/** The part of the principal's quota that is reserved for a run. */
export interface Reservation {
  seconds: number;
  /** Why the time is less than requested, in sentences. */
  cut?: string;
}

export interface RunQuota {
  /** @throws {ToolError} `quota_exceeded` */
  take(seconds: number): Promise<Reservation>;
  /** Reserves for a run that continues after its actor was replaced. */
  takeUnchecked(seconds: number): Reservation;
  /** @param spent the seconds that the run took. More than the reservation has do not count */
  giveBack(reservation: Reservation, spent: number): void;
}

interface RunContainer {
  /** Registers the sandbox with its account, so that a container may start. @throws the reason if it fails */
  admitRun(): Promise<void>;
  /** Called if a run ended before its quota was reserved. Withdraws the sandbox's registration if nothing else needs it. */
  release(): void;
  /** Returns the real cause of a platform error: the platform may report a lost sandbox when only the connection broke. */
  explainError(error: unknown): Promise<unknown>;
}

export interface RunsHost {
  quota: RunQuota;
  lifecycle: RunContainer;
  sql: SqlStorage;
  objects: RunObjects;
  sandbox(): string;
  principalID(): string | undefined;
  /** The limit of a log, in bytes. Each stream may use a quarter of it even if the other stream has filled the log. */
  logCapBytes: number;
  /** Keeps the actor alive for background work. */
  background(work: Promise<unknown>): void;
  /** Adds notes, for example about connections refused since `startedAt`. Never rejects. */
  completeEnd(end: End, startedAt: number): End | Promise<End>;
  logError(id: string, error: unknown): void;
  /** Deletes the stored files of a task when its record is deleted. */
  removeTaskFiles(id: string): Promise<void>;
}

/** A part that reacts to runs. */
export interface RunSubscriber {
  /** A run began, ended or was removed. */
  onRunsChange?(): void;
  /** A run ended. If it has files in the sandbox, they can be deleted. */
  onRunEnd?(run: RunRecord, hasFiles: boolean): void;
}

/** Something that runs wait for between reservation and start, such as a set-up. */
export interface Gate {
  isOpen(): boolean;
  /** Resolves when the run may start. Resolves with an end if the run must not start. */
  pass(run: ActiveRun): Promise<End | undefined>;
  waiting?(): WaitState | undefined;
}

export interface LogPage {
  pieces: LogPiece[];
  /** The cursor after the last byte of `pieces`. */
  next: number;
}

/** How a run begins, and how its caller waits. */
interface RunStart {
  /**
   * Prepares what the run needs besides quota. May continue after the caller has its response.
   * @throws the reason if the preparation fails
   */
  prepare?(): Promise<void>;
  gate?: Gate;
  /** The latest time for the caller's response, in milliseconds since the epoch. */
  replyBy?: number;
  /** Until when the caller waits for the end of a run that has begun, in milliseconds since the epoch. */
  waitUntil: number;
  /** Whether the result names the run's id even if the run has ended and the result shows all of its output. */
  namesID: boolean;
  onProgress?: OnProgress | undefined;
  /** Whether the run is a service. It does not count in the quota and does not prevent an idle stop. */
  isService?: boolean;
}

const UNMETERED: RunQuota = {
  take: async (seconds) => ({ seconds }),
  takeUnchecked: (seconds) => ({ seconds }),
  giveBack: () => undefined,
};

/** Receives a run's last output line whenever it changes. */
export type OnProgress = (line: string) => unknown;

export interface TerminalReply {
  run: RunView;
  page: LogPage;
  /** Bytes of the log before the page that were never shown. */
  skipped: number;
}

/** How long ended runs are collected before their records are written together. */
const BATCH_MS = 100;

type WaitsFor = "output" | "page";

/** A run, and the requested part of its log. */
export interface RunReading {
  run: RunView;
  page?: LogPage;
}

export interface RunToRead {
  id: string;
  waitMs: number;
  /** The position in the log to read from, in bytes; undefined to read no log. */
  cursor?: number | undefined;
  maxBytes?: number;
  onProgress?: OnProgress | undefined;
  until?: WaitsFor;
  /** For a question, how many characters of the model's program the caller already has. The wait ends when there are more. */
  seenCode?: number;
}

/** The most bytes of a log in one result. */
export const PAGE_BYTES = 48 * 1024;

/**
 * A call that waits for a page of output also returns when the output pauses for this long. The pause is long, because most
 * programs print more often while they work, and the call must not return after each line.
 */
const LOG_REST_MS = 10_000;

export class Runs {
  readonly #host: RunsHost;
  readonly #store: RunStore;
  readonly #active = new Map<string, ActiveRun>();
  readonly #backlog = new Backlog(() => this.#active.values());
  readonly #logWrites = new LogWrites();
  /** Ended runs that are not on disk yet. They are written before the store is read. */
  readonly #unsaved = new Set<ActiveRun>();
  #isSaveDue = false;
  /** Whether the principal's storage is full and nothing can be evicted. Logs stop growing then. */
  isFull = false;
  #subscribers: readonly RunSubscriber[] = [];

  constructor(host: RunsHost) {
    this.#host = host;
    this.#store = new RunStore(host.sql);
  }

  /** Sets the parts that react to runs, in the order in which they are called. */
  subscribe(...subscribers: RunSubscriber[]): void {
    this.#subscribers = subscribers;
  }

  #notifyEnd(run: RunRecord, hasFiles: boolean): void {
    for (const part of this.#subscribers) part.onRunEnd?.(run, hasFiles);
    this.#notifyChange();
  }

  #notifyChange(): void {
    for (const part of this.#subscribers) part.onRunsChange?.();
  }

  /** Whether there are runs that prevent an idle stop of the container. */
  get isBusy(): boolean {
    return this.#active.values().some(({ isService, isEnded }) => !isService && !isEnded);
  }

  get hasActive(): boolean {
    return this.#active.size > 0;
  }

  /** Whether cancel_run could end a run. */
  get hasUnendedRun(): boolean {
    return this.#active.values().some((run) => !run.isEnded);
  }

  /**
   * Starts a run and waits for it. The principal's quota may shorten its time limit. If preparation takes too long, the result
   * shows a run that has not started. @throws the reason, if the run fails to start while the caller waits
   */
  async start<Spec extends Allowance & { interactive?: boolean }>(
    executor: Executor<Spec>,
    source: string,
    spec: Spec,
    { prepare, gate, replyBy, waitUntil, namesID, onProgress, isService = false }: RunStart,
  ): Promise<RunView> {
    const { kind } = executor;
    const quota = isService ? UNMETERED : this.#host.quota;
    const reserving = this.#reserve(quota, spec.timeoutMs, prepare);
    const reservation = await (replyBy === undefined
      ? reserving
      : waitAtMost(Math.max(0, replyBy - Date.now()), reserving));
    const title = titleOf(source);
    const record: NewRun = {
      id: newRunID(this.#host.sandbox(), kind === "task"),
      kind,
      state: "running",
      title,
      source: sourceToStore(source, title),
      startedAt: Date.now(),
      detail: executor.detailOf?.(spec),
      output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
      logBytes: 0,
      droppedBytes: 0,
    };
    const run = this.#begin(record);
    run.isService = isService;
    this.#notifyChange();
    const { interactive: isInteractive } = spec;
    const execute = (reserved: Reservation): Execution => {
      const start = () => executor.start(run, applyCut(spec, reserved));
      if (!gate || gate.isOpen()) return start();
      const passed = async () => (await gate.pass(run)) ?? start;
      return startAfter(run, passed, { isInteractive, waiting: () => gate.waiting?.() });
    };
    if (reservation) this.#watch(run, meter(execute(reservation), quota, reservation, run));
    else this.#followLate(run, execute, isInteractive, reserving);
    const waitMs = Math.max(0, Math.min(waitUntil, replyBy ?? waitUntil) - Date.now());
    if (run.isInteractive) await run.waitUntilQuiet(waitMs);
    else await (onProgress ? run.watch(waitMs, onProgress) : run.waitUntilEnded(waitMs));
    const { failure } = run;
    if (failure?.end.state === "failed") {
      this.#unsaved.delete(run);
      await this.#remove(record.id).catch((error: unknown) => this.#host.logError(record.id, error));
    }
    if (failure && !failure.isLoss) throw failure.error;
    const view = run.view();
    run.seenBytes = run.logBytes;
    // The record is stored before the id leaves the actor, so that the id is valid after a restart.
    if (namesID || !run.isEnded || view.stdout.omitted + view.stderr.omitted > 0) this.#save(run);
    return view;
  }

  async #reserve(quota: RunQuota, timeoutMs: number, prepare?: () => Promise<void>): Promise<Reservation> {
    await prepare?.();
    const reservation = await quota.take(Math.ceil(timeoutMs / 1000));
    await this.#host.lifecycle.admitRun().catch((error) => {
      quota.giveBack(reservation, 0);
      throw error;
    });
    return reservation;
  }

  /** Resumes an earlier actor's runs. @param isUp whether their container runs */
  resume(executors: Record<RunKind, Resumer>, isUp: boolean): void {
    for (const record of this.#store.listUnfinished()) {
      if (hasNeverStarted(record)) this.#markLost(record, texts.NOT_STARTED_SERVER_RESTARTED);
      else if (!isUp) this.#markLost(record, texts.SANDBOX_STOPPED_WHILE_SERVER_DOWN);
      else this.#resume(record, executors[record.kind]);
    }
  }

  #resume(record: RunRecord, executor: Resumer): void {
    const run = this.#begin(record);
    run.isService = isServiceState(record.resumeState);
    let execution: Execution;
    try {
      execution = executor.resume(run, record.resumeState);
    } catch (error) {
      this.#active.delete(record.id);
      this.#host.logError(record.id, error);
      return this.#markLost(record, texts.OTHER_VERSION);
    }
    const seconds = Math.ceil(((execution.deadline ?? 0) - record.startedAt) / 1000);
    const quota = run.isService ? UNMETERED : this.#host.quota;
    this.#watch(run, meter(execution, quota, quota.takeUnchecked(Math.max(1, seconds)), run));
  }

  #markLost(record: RunRecord, note: string): void {
    const endedAt = Date.now();
    const startedAt = hasNeverStarted(record) ? endedAt : record.startedAt;
    const lost: RunRecord = { ...record, state: "lost", note, startedAt, endedAt };
    this.#store.put(lost);
    this.#notifyEnd(lost, true);
  }

  /** Whether a run is under way. @param id the run's id inside the sandbox */
  isRunning(id: string): boolean {
    return this.#active.values().some((run) => run.id === id && !run.isEnded);
  }

  /**
   * How many seconds the runs that ended after `time` have run today (UTC).
   * @param time in milliseconds since the epoch; the result is 0 if it is undefined
   */
  secondsSince(time: number | undefined): number {
    if (time === undefined) return 0;
    const today = Math.floor(Date.now() / DAY_MS) * DAY_MS;
    this.#saveAll();
    const since = Math.max(time, today);
    // Every metered run takes less than a day.
    const afterID = firstIDAt(this.#host.sandbox(), since - DAY_MS);
    return Math.ceil(this.#store.millisecondsSince(since, afterID, today) / 1000);
  }

  /**
   * Ends all runs because their container is gone. If it ended by itself (`isLost`), commands and code that have not started run in
   * the next container.
   */
  endAll(note: string, isLost: boolean): void {
    for (const run of this.#active.values()) {
      const hasStarted = !hasNeverStarted(run.record);
      const maySkip = run.record.kind !== "task" && !run.isService;
      if (isLost && !hasStarted && maySkip) continue;
      run.finish({ state: "lost", note: hasStarted ? note : texts.NOT_STARTED_SANDBOX_STOPPED });
    }
  }

  /**
   * Waits up to `waitMs` for the run's end or, with a cursor, for output after the cursor. Returns the run's current view.
   * @param until with a cursor: `output` waits for the first new output, `page` for a full page or a pause of the output
   * @param onProgress receives the last output line during the wait
   * @throws {ToolError} `not_found`
   */
  async result(
    id: string,
    waitMs: number,
    cursor?: number,
    {
      until = "output",
      onProgress,
    }: { until?: WaitsFor | undefined; onProgress?: OnProgress | undefined } = {},
  ): Promise<RunView> {
    const run = this.#active.get(id);
    if (!run) return viewOf(this.#requireRecord(id));
    const leftMs = countdown(waitMs);
    if (cursor === undefined) await (onProgress ? run.watch(waitMs, onProgress) : run.waitUntilEnded(waitMs));
    else
      while (!run.isEnded && leftMs() > 0) {
        const { logBytes } = run;
        const missing = logBytes - cursor;
        if (missing > 0 && (until === "output" || missing >= PAGE_BYTES)) break;
        await run.waitForChange(Math.min(leftMs(), missing > 0 ? LOG_REST_MS : Infinity));
        if (missing > 0 && run.logBytes === logBytes) break;
      }
    run.save();
    return run.view();
  }

  /** A page of the log: at most `maxBytes` bytes. */
  async log(id: string, cursor: number, maxBytes: number): Promise<LogPage> {
    this.#saveAll();
    this.#active.get(id)?.save();
    const pieces = await readLog(this.#host.sql, id, this.#host.objects, cursor, maxBytes);
    return { pieces, next: cursor + pieces.reduce((sum, { bytes }) => sum + bytes.length, 0) };
  }

  /**
   * Types into a run's terminal. Returns the last `maxBytes` bytes of the output since the previous call, and in `skipped` how
   * many bytes came before them. With `maxBytes` 0 the call does not wait for output.
   * @throws {ToolError} `not_found`, and errors of `ActiveRun.type`
   */
  async type(id: string, input: TerminalInput, maxBytes: number): Promise<TerminalReply> {
    const run = this.#active.get(id);
    if (!run)
      throw viewOf(this.#requireRecord(id)).isInteractive ? texts.hasEnded(id) : texts.notInteractive(id);
    await run.type(input, maxBytes > 0);
    if (maxBytes === 0) return { run: run.view(), page: { pieces: [], next: run.logBytes }, skipped: 0 };
    const from = Math.max(run.seenBytes, run.logBytes - maxBytes);
    const skipped = from - run.seenBytes;
    const page = await this.log(id, from, maxBytes);
    run.seenBytes = page.next;
    return { run: run.view(), page, skipped };
  }

  /** Newest first. */
  list(limit: number, before?: string, kind?: RunKind): RunSummary[] {
    this.#saveAll();
    for (const run of this.#active.values()) run.saveFirst();
    const summaries = this.#store.list(limit, before, kind);
    return summaries.map((summary) => this.#active.get(summary.id)?.summary ?? summary);
  }

  /** An ended run does not change. @throws {ToolError} `not_found` */
  async cancel(id: string, waitMs: number): Promise<RunView> {
    const run = this.#active.get(id);
    if (!run) return viewOf(this.#requireRecord(id));
    // If the sandbox cannot be reached, `Limit` ends the run.
    run.cancel().catch(() => undefined);
    await run.waitUntilEnded(waitMs);
    return run.view();
  }

  /** @throws {ToolError} `not_found`; `invalid_argument` if the run has not ended */
  async remove(id: string): Promise<void> {
    this.#saveAll();
    if (this.#requireRecord(id).state === "running") throw texts.stillRunning(id);
    await this.#remove(id);
    this.#notifyChange();
  }

  /** Whether an ended run is stored. */
  get hasStored(): boolean {
    return this.#store.hasEnded;
  }

  measureStored(): Stored {
    this.#saveAll();
    return this.#store.measureStored();
  }

  /** Deletes ended runs, oldest first, until `bytes` are freed or no run is left that ended before `before`. */
  async evict(bytes: number, before: number): Promise<Stored> {
    this.#saveAll();
    const { sql } = this.#host;
    const size = sql.databaseSize;
    for (let outside = 0; outside + size - sql.databaseSize < bytes;) {
      const id = this.#store.firstEndedBefore(before, firstIDAt(this.#host.sandbox(), before));
      if (id === undefined) break;
      outside += await this.#remove(id);
    }
    return this.#store.measureStored();
  }

  /** Returns how many bytes the run stored outside the database. */
  async #remove(id: string): Promise<number> {
    const { sql, objects } = this.#host;
    // An object on its way would arrive after the deletion, and nothing would delete or count it.
    await this.#active.get(id)?.shipAll();
    await deleteLog(sql, id, objects);
    if (isTaskID(id)) {
      await deleteBelow(objects.bucket, objects.prefix(id));
      await this.#host.removeTaskFiles(id);
    }
    return this.#store.delete(id);
  }

  #begin(record: RunRecord): ActiveRun {
    const { sql, objects, logCapBytes, lifecycle } = this.#host;
    const log = new LogWriter(sql, objects, this.#logWrites, record, () => (this.isFull ? 0 : logCapBytes));
    const run = new ActiveRun(record, log, {
      store: this.#store,
      backlog: this.#backlog,
      saveLater: (ended) => this.#saveLater(ended),
      explainError: (error) => lifecycle.explainError(error),
    });
    this.#active.set(record.id, run);
    return run;
  }

  /** Waits for a run's reservation, then starts and follows the run, unless the run has ended meanwhile. */
  #followLate(
    run: ActiveRun,
    execute: (reservation: Reservation) => Execution,
    isInteractive: boolean | undefined,
    reserving: Promise<Reservation>,
  ): void {
    const { quota, lifecycle, background } = this.#host;
    let reservation: Reservation;
    const start = async () => {
      reservation = await reserving;
      return () => meter(execute(reservation), quota, reservation, run);
    };
    const onUnused = () => {
      quota.giveBack(reservation, 0);
      lifecycle.release();
    };
    this.#watch(run, startAfter(run, start, { isInteractive, onUnused }));
    background(reserving.catch(() => undefined));
  }

  #watch(run: ActiveRun, execution: Execution): void {
    const { record } = run;
    const completed = execution.done.then((end) => this.#host.completeEnd(end, record.startedAt));
    const ended = run.follow(execution, completed).finally(() => {
      if (run.failure?.cause !== undefined) this.#host.logError(record.id, run.failure.cause);
      this.#notifyEnd(record, run.hasFiles);
    });
    // The rest of the log needs no container, so the parts that react to the end do not wait for R2.
    const done = ended.finally(() => run.shipAll()).finally(() => this.#active.delete(record.id));
    this.#host.background(done);
  }

  #save(run: ActiveRun): void {
    this.#unsaved.delete(run);
    run.save();
  }

  #saveLater(run: ActiveRun): void {
    this.#unsaved.add(run);
    if (this.#isSaveDue) return;
    this.#isSaveDue = true;
    this.#host.background(this.#saveBatch());
  }

  async #saveBatch(): Promise<void> {
    await pause(BATCH_MS);
    this.#isSaveDue = false;
    this.#saveAll();
  }

  #saveAll(): void {
    for (const run of this.#unsaved) {
      try {
        this.#save(run);
      } catch (error) {
        this.#host.logError(run.record.id, error);
      }
    }
  }

  #requireRecord(id: string): RunRecord {
    this.#saveAll();
    const record = this.#store.get(id);
    if (record) return record;
    throw unknownRun(id);
  }
}

/**
 * Gives the reservation back to the quota when the execution ends. The run's wait before its start does not count. If the delivery of
 * output follows, the run keeps only its place among the concurrent runs: `secondsSince` expects that the seconds of a run were counted
 * at its end, which is the end of its code.
 */
function meter(execution: Execution, quota: RunQuota, reservation: Reservation, run: ActiveRun): Execution {
  let held = reservation;
  const giveBack = () => quota.giveBack(held, run.executedSeconds);
  run.onExecuted = () => {
    giveBack();
    held = quota.takeUnchecked(0);
  };
  execution.done.then(giveBack, giveBack);
  return execution;
}

/** The specification with the time that the quota allows. */
function applyCut<Spec extends Allowance>(spec: Spec, { seconds, cut }: Reservation): Spec {
  return cut === undefined ? spec : { ...spec, timeoutMs: seconds * 1000, cut };
}
