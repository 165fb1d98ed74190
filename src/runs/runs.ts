/**
 * Every execution of one sandbox, from its start until its record expires. A run belongs to the actor and not to the
 * request that started it: whoever waits for it may go away.
 */
import { unknownRun } from "../shared/errors.ts";
import type { TerminalInput } from "../container/connection.ts";
import { ActiveRun } from "./active-run.ts";
import { Backlog } from "./backlog.ts";
import { deferred } from "./deferred.ts";
import { HeadAndTail } from "./head-and-tail.ts";
import { isTaskID, newRunID } from "./id.ts";
import { type LogStore, LogWriter, type RunObjects, deleteLog, readLog } from "./run-log.ts";
import type { Executor, Resumer } from "./executor.ts";
import {
  type Allowance,
  type End,
  type Execution,
  CANCELLED_BEFORE_START,
  type LogPiece,
  type RunSummary,
  type RunView,
} from "./run-types.ts";
import type { RunKind } from "../shared/run-listing.ts";
import { keptSource, type RunRecord, RunStore, viewOf, type Stored } from "./run-store.ts";
import { DAY_MS } from "../shared/days.ts";
import { pause, within } from "../shared/within.ts";
import { deleteBelow } from "../storage/object-store.ts";
import { titleOf } from "../shared/text.ts";
import {
  NEVER_BEGAN,
  NEVER_BEGAN_HERE,
  OTHER_VERSION,
  WENT_AWAY_MEANWHILE,
  hasEnded,
  notInteractive,
} from "./texts.ts";

/** What a run holds of its principal's quota while it runs. */
export interface Reservation {
  /** Seconds it may run. */
  seconds: number;
  /** Why that is less than was asked for, when it is, in sentences. */
  cut?: string;
}

/** The principal's quota, from which a run reserves. */
export interface RunQuota {
  /** @throws {ToolError} `quota_exceeded` */
  take(seconds: number): Promise<Reservation>;
  /** A reservation for a run that an earlier actor started: it runs, whatever the account says. */
  hold(seconds: number): Reservation;
  /** Gives a reservation back after its run, which took so many seconds. */
  give(reservation: Reservation, spent: number): void;
}

/** What the actor gives its runs. */
export interface RunsHost {
  /** Resume the runs of an earlier actor, by kind. */
  executors: Record<RunKind, Resumer>;
  quota: RunQuota;
  /** Makes the sandbox ready for a run. @throws why it cannot be */
  ready(): Promise<void>;
  /** The cause of a platform error, which may say that the sandbox is gone when only the connection broke. */
  explained(error: unknown): Promise<unknown>;
  sql: SqlStorage;
  objects: RunObjects;
  /** The sandbox's name. */
  sandbox(): string;
  /** Bytes of a run's log at most. */
  logCapBytes: number;
  /** How long a record outlives its run, milliseconds. */
  keepMs: number;
  /** Keeps the actor alive for work that no request waits for. */
  background(work: Promise<unknown>): void;
  /** The end of a run that began at a time, with what else there is to say of it. Never rejects. */
  completed(end: End, startedAt: number): End | Promise<End>;
  /** An unexpected error ended a run: for the log, under the run's id. */
  failed(id: string, error: unknown): void;
  /** Removes what is kept elsewhere of a task whose record goes. */
  taskRemoved(id: string): Promise<void>;
  /** What was made ready for a run is of no use: it ended before. */
  discard(): void;
}

/** Takes a run that has ended: its files in the sandbox can be removed, and its record will expire. */
export type OnEnded = (run: RunRecord, hasFiles: boolean) => void;

/** A part of a run's log, with where to go on. */
export interface LogPage {
  pieces: LogPiece[];
  /** The cursor after the last byte of `pieces`. */
  next: number;
}

/** How a run is begun, and how its caller waits. */
export interface RunStart {
  /** Makes ready what the run needs beside the quota. It may go on when the caller has its answer. @throws why it cannot be */
  prepare?(): Promise<void>;
  /** When the caller is answered at the latest, whatever the sandbox does, milliseconds since the epoch. */
  replyBy?: number;
  /** Until when the caller waits for the end of a run that has begun. */
  waitUntil: number;
  /** Whether the answer names the run in any case, and not only where there is more to fetch. */
  namesID: boolean;
  /** Takes the last line of the output while the caller waits. */
  onProgress?: OnProgress | undefined;
}

/** Takes the last line of a run's output, whenever that is another. */
export type OnProgress = (line: string) => unknown;

/** What a terminal has printed after something was typed. */
export interface TerminalReply {
  run: RunView;
  page: LogPage;
  /** Bytes of the log before the page that were not shown either. */
  skipped: number;
}

/** Records that one sweep removes at most. */
const SWEEP_BATCH = 200;

/** How long the records of ended runs are collected before they are written together, milliseconds. */
const BATCH_MS = 100;

/** What a caller with a cursor waits for. */
export type WaitsFor = "output" | "page";

/** Bytes of a log in one answer. */
export const PAGE_BYTES = 48 * 1024;

/**
 * How long output must pause until a model is shown what there is, milliseconds. Most programs print more often while they work, so that
 * a job of minutes takes a call for each `wait_seconds` and not one for each line.
 */
const LOG_REST_MS = 10_000;

export class Runs {
  readonly #host: RunsHost;
  readonly #store: RunStore;
  readonly #active = new Map<string, ActiveRun>();
  readonly #backlog = new Backlog(() => this.#active.values());
  /** Ended runs that are not on disk yet. They are written before anything is read from the store. */
  readonly #unsaved = new Set<ActiveRun>();
  #isSaveDue = false;
  /** Whether the principal's storage is full with nothing left to remove: then logs stop growing. */
  isFull = false;
  #onEnded: OnEnded = () => undefined;

  constructor(host: RunsHost) {
    this.#host = host;
    this.#store = new RunStore(host.sql);
  }

  onEnded(listener: OnEnded): void {
    this.#onEnded = listener;
  }

  get isBusy(): boolean {
    return this.#active.size > 0;
  }

  /** Whether there is a run that cancel_run could end. */
  get hasUnendedRun(): boolean {
    return this.#active.values().some((run) => !run.ended);
  }

  /**
   * Starts a run within the principal's quota, which may leave it less time than it asks for, and waits for it. One for which
   * that takes too long is answered as a run that has not started yet.
   * @throws what kept it from running, when that shows while the caller waits
   */
  async start<Spec extends Allowance>(
    executor: Executor<Spec>,
    source: string,
    spec: Spec,
    { prepare, replyBy, waitUntil, namesID, onProgress }: RunStart,
  ): Promise<RunView> {
    const { kind } = executor;
    const reserving = this.#reserve(spec.timeoutMs, prepare);
    const reservation = await (replyBy === undefined
      ? reserving
      : within(Math.max(0, replyBy - Date.now()), reserving));
    const title = titleOf(source);
    const record: RunRecord = {
      id: newRunID(this.#host.sandbox(), kind === "task"),
      kind,
      state: "running",
      title,
      source: keptSource(source, title),
      startedAt: Date.now(),
      output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
      logBytes: 0,
      droppedBytes: 0,
    };
    const run = this.#begin(record, true);
    if (reservation)
      this.#follow(run, executor.start(run, allowed(spec, reservation)), reservation, record.startedAt);
    else this.#followLate(run, executor, spec, reserving);
    const waitMs = Math.max(0, Math.min(waitUntil, replyBy ?? waitUntil) - Date.now());
    if (run.isInteractive) await run.rest(waitMs);
    else await (onProgress ? run.watch(waitMs, onProgress) : run.waitUntilEnded(waitMs));
    const { failure } = run;
    if (failure?.end.state === "failed") {
      this.#unsaved.delete(run);
      await deleteLog(this.#host.sql, record.id, this.#logStore(record.id));
      this.#store.delete(record.id);
    }
    if (failure && !failure.isLoss) throw failure.error;
    const view = run.view();
    run.seenBytes = run.logBytes;
    // On disk before its id leaves the actor, so that the id is good after a restart.
    if (namesID || !run.ended || view.stdout.omitted + view.stderr.omitted > 0) this.#save(run);
    return view;
  }

  /** Reserves quota for a run and makes the sandbox ready for it. */
  async #reserve(timeoutMs: number, prepare?: () => Promise<void>): Promise<Reservation> {
    const { quota } = this.#host;
    await prepare?.();
    const reservation = await quota.take(Math.ceil(timeoutMs / 1000));
    await this.#host.ready().catch((error) => {
      quota.give(reservation, 0);
      throw error;
    });
    return reservation;
  }

  /** Resumes the runs of an earlier actor. @param isUp whether their container runs */
  resume(isUp: boolean): void {
    for (const record of this.#store.unfinished()) {
      if (neverBegan(record)) this.#markLost(record, NEVER_BEGAN);
      else if (!isUp) this.#markLost(record, WENT_AWAY_MEANWHILE);
      else this.#resume(record);
    }
  }

  #resume(record: RunRecord): void {
    const run = this.#begin(record, false);
    let execution: Execution;
    try {
      execution = this.#host.executors[record.kind].resume(run, record.resumeState);
    } catch (error) {
      this.#active.delete(record.id);
      this.#host.failed(record.id, error);
      return this.#markLost(record, OTHER_VERSION);
    }
    const { startedAt } = record;
    const seconds = Math.ceil(((execution.deadline ?? 0) - startedAt) / 1000);
    this.#follow(run, execution, this.#host.quota.hold(Math.max(1, seconds)), startedAt);
  }

  #markLost(record: RunRecord, note: string): void {
    const lost: RunRecord = { ...record, state: "lost", note, endedAt: Date.now() };
    this.#store.put(lost);
    this.#onEnded(lost, true);
  }

  /** Whether a run, by its sandbox's own name for it, is under way. */
  isRunning(id: string): boolean {
    return this.#active.values().some((run) => run.id === id && !run.ended);
  }

  /** Seconds of today (UTC) taken by runs that ended after `time`, milliseconds since the epoch; 0 without a time. */
  secondsSince(time: number | undefined): number {
    if (time === undefined) return 0;
    const today = Math.floor(Date.now() / DAY_MS) * DAY_MS;
    this.#saveAll();
    return Math.ceil(this.#store.millisecondsSince(Math.max(time, today), today) / 1000);
  }

  /** The container has gone, and with it everything that ran in it. */
  containerGone(note: string): void {
    for (const run of this.#active.values())
      run.finish({ state: "lost", note: neverBegan(run.record) ? NEVER_BEGAN_HERE : note });
  }

  /**
   * A run as it is now, after waiting up to `waitMs` for its end or, with a cursor, for output after it.
   * @param until with a cursor: `output` waits for the first new output, `page` for as much as one answer shows or for output that rests
   * @param onProgress takes the last line of the output meanwhile
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
    if (!run) return viewOf(this.#known(id));
    const deadline = Date.now() + waitMs;
    if (cursor === undefined) await (onProgress ? run.watch(waitMs, onProgress) : run.waitUntilEnded(waitMs));
    else
      while (!run.ended && Date.now() < deadline) {
        const { logBytes } = run;
        const missing = logBytes - cursor;
        if (missing > 0 && (until === "output" || missing >= PAGE_BYTES)) break;
        await run.changed(Math.min(deadline - Date.now(), missing > 0 ? LOG_REST_MS : Infinity));
        if (missing > 0 && run.logBytes === logBytes) break;
      }
    run.save();
    return run.view();
  }

  /** The log of a run from `cursor` on. */
  async log(id: string, cursor: number, maxBytes: number): Promise<LogPage> {
    this.#saveAll();
    this.#active.get(id)?.save();
    const pieces = await readLog(this.#host.sql, id, this.#logStore(id), cursor, maxBytes);
    return { pieces, next: cursor + pieces.reduce((sum, { bytes }) => sum + bytes.length, 0) };
  }

  /**
   * Types into a run's terminal. Answers with what the terminal has printed since the last such answer: the last `maxBytes`
   * of it, and in `skipped` how many bytes came before them. With 0 it does not wait for what the terminal prints.
   * @throws {ToolError} `not_found` and what `ActiveRun.type` throws
   */
  async type(id: string, input: TerminalInput, maxBytes: number): Promise<TerminalReply> {
    const run = this.#active.get(id);
    if (!run) throw viewOf(this.#known(id)).isInteractive ? hasEnded(id) : notInteractive(id);
    await run.type(input, maxBytes > 0);
    if (maxBytes === 0) return { run: run.view(), page: { pieces: [], next: run.logBytes }, skipped: 0 };
    const from = Math.max(run.seenBytes, run.logBytes - maxBytes);
    const skipped = from - run.seenBytes;
    const page = await this.log(id, from, maxBytes);
    run.seenBytes = page.next;
    return { run: run.view(), page, skipped };
  }

  /** The newest first. */
  list(limit: number, before?: string, kind?: RunKind): RunSummary[] {
    this.#saveAll();
    for (const run of this.#active.values()) run.save();
    const found = this.#store.list(limit, before, kind);
    for (const summary of found) summary.waiting = this.#active.get(summary.id)?.waiting;
    return found;
  }

  /** Ends a run early; one that has ended stays as it is. @throws {ToolError} `not_found` */
  async cancel(id: string, waitMs: number): Promise<RunView> {
    const run = this.#active.get(id);
    if (!run) return viewOf(this.#known(id));
    // Not awaited: the run ends by its limit also when the sandbox cannot be reached.
    run.cancel().catch(() => undefined);
    await run.waitUntilEnded(waitMs);
    return run.view();
  }

  /** Removes expired runs. Answers when the next one expires, milliseconds since the epoch. */
  async sweep(): Promise<number | undefined> {
    this.#saveAll();
    const expired = this.#store.endedBefore(Date.now() - this.#host.keepMs, SWEEP_BATCH);
    for (const id of expired) await this.#remove(id);
    const first = this.#store.firstEnd();
    return first === undefined ? undefined : first + this.#host.keepMs;
  }

  /** What the runs have stored. */
  stored(): Stored {
    this.#saveAll();
    return this.#store.stored();
  }

  /** Removes ended runs, the oldest first, until `bytes` are freed or none is left that ended before `before`. */
  async evict(bytes: number, before: number): Promise<Stored> {
    let left = this.stored();
    const enough = left.bytes - bytes;
    while (left.bytes > enough) {
      const [id] = this.#store.endedBefore(before, 1);
      if (id === undefined) break;
      await this.#remove(id);
      left = this.#store.stored();
    }
    return left;
  }

  async #remove(id: string): Promise<void> {
    const store = this.#logStore(id);
    await deleteLog(this.#host.sql, id, store);
    if (isTaskID(id)) {
      await deleteBelow(store.bucket, store.prefix);
      await this.#host.taskRemoved(id);
    }
    this.#store.delete(id);
  }

  #begin(record: RunRecord, isNew: boolean): ActiveRun {
    const { sql, logCapBytes, explained } = this.#host;
    const log = new LogWriter(sql, record.id, () => (this.isFull ? 0 : logCapBytes), isNew);
    const run = new ActiveRun(record, log, this.#logStore(record.id), {
      store: this.#store,
      backlog: this.#backlog,
      saveLater: (ended) => this.#saveLater(ended),
      explained,
    });
    this.#active.set(record.id, run);
    return run;
  }

  /** Follows a run that starts when its reservation is there, and never where it has ended before. */
  #followLate<Spec extends Allowance & { interactive?: boolean }>(
    run: ActiveRun,
    executor: Executor<Spec>,
    spec: Spec,
    reserving: Promise<Reservation>,
  ): void {
    const { quota, discard, background } = this.#host;
    const start = async () => {
      const reservation = await reserving;
      const startedAt = Date.now();
      const give = () => quota.give(reservation, (Date.now() - startedAt) / 1000);
      if (run.ended) {
        give();
        discard();
        return CANCELLED_BEFORE_START;
      }
      return () => {
        const execution = executor.start(run, allowed(spec, reservation));
        execution.done.then(give, give);
        return execution;
      };
    };
    this.#watch(run, deferred(run, start, { isInteractive: spec.interactive }));
    background(reserving.catch(() => undefined));
  }

  /** @param startedAt from when on the reservation is used, milliseconds since the epoch */
  #follow(run: ActiveRun, execution: Execution, reservation: Reservation, startedAt: number): void {
    const give = () => this.#host.quota.give(reservation, (Date.now() - startedAt) / 1000);
    execution.done.then(give, give);
    this.#watch(run, execution);
  }

  #watch(run: ActiveRun, execution: Execution): void {
    const { record } = run;
    const completed = execution.done.then((end) => this.#host.completed(end, record.startedAt));
    const done = run.follow(execution, completed).finally(() => {
      this.#active.delete(record.id);
      if (run.failure?.cause !== undefined) this.#host.failed(record.id, run.failure.cause);
      this.#onEnded(record, run.hasFiles);
    });
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
        this.#host.failed(run.record.id, error);
      }
    }
  }

  #known(id: string): RunRecord {
    this.#saveAll();
    const record = this.#store.get(id);
    if (record) return record;
    throw unknownRun(id);
  }

  #logStore(id: string): LogStore {
    const { bucket, prefix } = this.#host.objects;
    return { bucket, prefix: prefix(id) };
  }
}

/** The specification, with the time that the quota leaves it. */
function allowed<Spec extends Allowance>(spec: Spec, { seconds, cut }: Reservation): Spec {
  return cut === undefined ? spec : { ...spec, timeoutMs: seconds * 1000, cut };
}

/** Whether a run has not had its turn: one that has started has a resume state or has printed something. */
function neverBegan({ resumeState, output }: RunRecord): boolean {
  return resumeState === undefined && output.stdout.bytes + output.stderr.bytes === 0;
}
