/**
 * Every execution of one sandbox, from its start until its record expires. A run belongs to the actor and not to the
 * request that started it: whoever waits for it may go away.
 */
import { unknownRun } from "../shared/errors.ts";
import { ActiveRun } from "./active-run.ts";
import { Backlog } from "./backlog.ts";
import { OutputEnds } from "./output-ends.ts";
import { isTaskID, newRunID } from "./id.ts";
import { type LogStore, LogWriter, deleteLog, deleteObjects, readLog } from "./log.ts";
import type { Execution, LogPiece, RunKind, RunSummary, RunView } from "./run.ts";
import { type RunRecord, RunStore, viewOf, type Stored } from "./store.ts";
import { DAY_MS } from "../shared/days.ts";

/** What the actor gives its runs. */
export interface RunsHost {
  sql: SqlStorage;
  bucket: R2Bucket;
  /** Of the principal and the sandbox; known from the first call on. */
  owner(): { principalHash: string; sandbox: string };
  /** Bytes of a run's log at most. */
  logCapBytes: number;
  /** How long a record outlives its run, milliseconds. */
  keepMs: number;
  /** Something goes on without a request: nothing waits for it, and it must not be thrown away. */
  background(work: Promise<unknown>): void;
  /** Something nobody foresaw ended a run: for the log, under the run's id. */
  failed(id: string, error: unknown): void;
  /** A run has ended: its files in the sandbox are of no more use, and its record will expire. */
  ended(run: RunRecord, hasFiles: boolean): void;
}

/** How an execution of some kind is started or gone on with. */
export type Launch = (run: ActiveRun) => Execution;

/** A part of a run's log, with where to go on. */
export interface LogPage {
  pieces: LogPiece[];
  /** The cursor after the last byte of `pieces`. */
  next: number;
}

/** Records removed in one go. */
const SWEEP_BATCH = 200;

/** How long the record of a run that has ended may wait for others to be written with, milliseconds. */
const BATCH_MS = 100;

export class Runs {
  readonly #host: RunsHost;
  readonly #store: RunStore;
  readonly #active = new Map<string, ActiveRun>();
  readonly #backlog = new Backlog(() => this.#active.values());
  /** Runs that have ended and are not on disk yet. Whoever asks the store for anything has them written first. */
  readonly #unsaved = new Set<ActiveRun>();
  #isSaveDue = false;
  /** Whether the principal's storage is full, and nothing is left to give up: logs grow no more. */
  isFull = false;

  constructor(host: RunsHost) {
    this.#host = host;
    this.#store = new RunStore(host.sql);
  }

  get isBusy(): boolean {
    return this.#active.size > 0;
  }

  /** Whether there is a run that cancel_run could end. */
  get isAtWork(): boolean {
    return this.#active.values().some((run) => !run.ended);
  }

  /**
   * Starts a run and waits for it up to so long.
   * @param namesID whether the answer names the run in any case, and not only where there is more to fetch
   * @throws what kept it from running, when that shows while the caller waits
   */
  async start(
    kind: RunKind,
    title: string,
    launch: Launch,
    waitMs: number,
    namesID: boolean,
  ): Promise<RunView> {
    const record: RunRecord = {
      id: newRunID(this.#host.owner().sandbox, kind),
      kind,
      state: "running",
      title,
      startedAt: Date.now(),
      ends: { stdout: new OutputEnds(), stderr: new OutputEnds() },
      logBytes: 0,
      droppedBytes: 0,
    };
    const run = this.#follow(record, launch, true);
    await run.over(waitMs);
    const { failure } = run;
    if (failure?.end.state === "failed") {
      this.#unsaved.delete(run);
      await deleteLog(this.#host.sql, record.id, this.#shelf(record.id));
      this.#store.delete(record.id);
    }
    if (failure && !failure.isLoss) throw failure.error;
    const view = run.view();
    // On disk before its id leaves the actor for good.
    if (namesID || !run.ended || view.stdout.omitted + view.stderr.omitted > 0) this.#save(run);
    return view;
  }

  /** Goes on with the runs of an earlier actor, as far as `launch` finds a way. */
  resume(launch: (record: RunRecord) => Launch | string): void {
    for (const record of this.#store.unfinished()) {
      const found = launch(record);
      if (typeof found === "string") {
        const lost: RunRecord = { ...record, state: "lost", note: found, endedAt: Date.now() };
        this.#store.put(lost);
        this.#host.ended(lost, true);
      } else this.#follow(record, found, false);
    }
  }

  /** Whether a run, by its sandbox's own name for it, is under way. */
  isRunning(id: string): boolean {
    return this.#active.values().some((run) => run.id === id && !run.ended);
  }

  /** Seconds of today (UTC) that runs took which ended after a time, milliseconds since the epoch; none of no time. */
  secondsSince(time: number | undefined): number {
    if (time === undefined) return 0;
    const today = Math.floor(Date.now() / DAY_MS) * DAY_MS;
    this.#saveAll();
    return Math.ceil(this.#store.millisecondsSince(Math.max(time, today), today) / 1000);
  }

  /** The container is gone: so is everything that ran in it. */
  containerGone(note: string): void {
    for (const run of this.#active.values())
      run.finish({ state: "lost", note: neverBegan(run.record) ? NEVER_BEGAN : note });
  }

  /**
   * A run as it is now, after waiting up to so long for its end or, with a cursor, for output after it.
   * @throws {ToolError} `not_found`
   */
  async result(id: string, waitMs: number, cursor?: number): Promise<RunView> {
    const run = this.#active.get(id);
    if (!run) return viewOf(this.#known(id));
    const deadline = Date.now() + waitMs;
    while (!run.ended && Date.now() < deadline && !(cursor !== undefined && run.logBytes > cursor))
      await run.changed(deadline - Date.now());
    run.save();
    return run.view();
  }

  /** The log of a run from `cursor` on. */
  async log(id: string, cursor: number, maxBytes: number): Promise<LogPage> {
    this.#saveAll();
    this.#active.get(id)?.save();
    const pieces = await readLog(this.#host.sql, id, this.#shelf(id), cursor, maxBytes);
    return { pieces, next: cursor + pieces.reduce((sum, { bytes }) => sum + bytes.length, 0) };
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
    // A sandbox that cannot be told is no reason for the caller to wait: the run ends all the same.
    run.cancel().catch(() => undefined);
    await run.over(waitMs);
    return run.view();
  }

  /** Removes what has expired. Answers when the next record does, milliseconds since the epoch. */
  async sweep(): Promise<number | undefined> {
    this.#saveAll();
    const expired = this.#store.endedBefore(Date.now() - this.#host.keepMs, SWEEP_BATCH);
    for (const id of expired) await this.#remove(id);
    const first = this.#store.firstEnd();
    return first === undefined ? undefined : first + this.#host.keepMs;
  }

  /** What is kept of the runs. */
  stored(): Stored {
    this.#saveAll();
    return this.#store.stored();
  }

  /** Removes runs that have ended, the oldest first: so many bytes of them, as far as they ended before a time. */
  async giveUp(bytes: number, before: number): Promise<Stored> {
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
    const shelf = this.#shelf(id);
    await deleteLog(this.#host.sql, id, shelf);
    if (isTaskID(id)) await deleteObjects(shelf);
    this.#store.delete(id);
  }

  #follow(record: RunRecord, launch: Launch, isNew: boolean): ActiveRun {
    const { sql, logCapBytes } = this.#host;
    const log = new LogWriter(sql, record.id, () => (this.isFull ? 0 : logCapBytes), isNew);
    const run = new ActiveRun(record, log, this.#shelf(record.id), {
      store: this.#store,
      backlog: this.#backlog,
      saveLater: (ended) => this.#saveLater(ended),
    });
    this.#active.set(record.id, run);
    const done = run.follow(launch(run)).finally(() => {
      this.#active.delete(record.id);
      if (run.failure?.cause !== undefined) this.#host.failed(record.id, run.failure.cause);
      this.#host.ended(record, run.hasFiles);
    });
    this.#host.background(done);
    return run;
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

  #shelf(id: string): LogStore {
    return { bucket: this.#host.bucket, prefix: `${this.#host.owner().principalHash}/${id}/` };
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const NEVER_BEGAN = "It waited for its turn when the sandbox stopped, and never ran. Run it again.";

/** Whether code or a command has not had its turn: what starts leaves a trace, or has printed something. */
function neverBegan({ kind, trace, ends }: RunRecord): boolean {
  return kind !== "task" && trace === undefined && ends.stdout.bytes + ends.stderr.bytes === 0;
}
