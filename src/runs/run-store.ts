/** The records of runs in the actor's SQLite. */
import { isRecord } from "../shared/is-record.ts";
import { shortened } from "../shared/text.ts";
import { Rows } from "../storage/rows.ts";
import { HeadAndTail } from "./head-and-tail.ts";
import { SQLITE_LOG_BYTES } from "./run-log.ts";
import type { Stream } from "../../container/sandboxd/protocol.ts";
import type { End, RunDetail, RunSummary, RunView } from "./run-types.ts";
import type { RunKind, RunState } from "../shared/run-listing.ts";

export interface RunRecord extends Omit<RunSummary, "waiting">, Omit<Partial<End>, "state"> {
  /** The stored part of the source, from `sourceToStore`. */
  source?: string | undefined;
  /** The state for resuming the run; undefined if nothing was started. */
  resumeState?: unknown;
  output: Record<Stream, HeadAndTail>;
  logBytes: number;
  droppedBytes: number;
}

/** A run's record when the run begins: it has every field, except those that the executor reports. */
export type NewRun = RunRecord & Record<Exclude<keyof RunRecord, ReportedField>, unknown>;

type ReportedField = "resumeState" | "endedAt" | Exclude<keyof End, "state">;

type Row = {
  id: string;
  kind: RunKind;
  state: RunState;
  title: string;
  started_at: number;
  ended_at: number | null;
  exit_code: number | null;
  note: string | null;
  /** `ELSEWHERE` if the table `run_details` has it. */
  detail: string | null;
  resume_state: string | null;
  out_bytes: number;
  out_head: ArrayBuffer;
  out_tail: ArrayBuffer;
  err_bytes: number;
  err_head: ArrayBuffer;
  err_tail: ArrayBuffer;
  log_bytes: number;
  dropped_bytes: number;
  source: string | null;
};

/** The columns for lists, without results and output, which may be megabytes. */
const SUMMARY = ["id", "kind", "state", "title", "started_at", "ended_at", "exit_code"] as const;
type SummaryRow = Pick<Row, (typeof SUMMARY)[number]>;
const COLUMNS = SUMMARY.join(", ");

/** Longer details have a table with rowids. To search a table without them, SQLite loads the rows that it compares. */
const INLINE_CHARACTERS = 16_384;
const ELSEWHERE = "";

/** Sorts after all ids. */
const AFTER_ALL = "~";

/** Ids sort by the time of the request, so the query passes only a few running runs before an ended one. */
const FIRST_END = "SELECT ended_at AS first FROM runs WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1";

/** How much all runs of a sandbox store. */
export interface Stored {
  bytes: number;
  /** When the oldest ended run ended, in milliseconds since the epoch. */
  oldest?: number;
}

export class RunStore {
  readonly #sql: SqlStorage;
  readonly #rows: Rows;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.#rows = new Rows(sql);
  }

  put(run: RunRecord): void {
    const { stdout, stderr } = run.output;
    const detail = run.detail === undefined ? null : JSON.stringify(run.detail);
    const isLarge = detail !== null && detail.length > INLINE_CHARACTERS;
    if (isLarge) this.#rows.write("INSERT OR REPLACE INTO run_details VALUES (?, ?)", run.id, detail);
    const row: Row = {
      id: run.id,
      kind: run.kind,
      state: run.state,
      title: run.title,
      started_at: run.startedAt,
      ended_at: run.endedAt ?? null,
      exit_code: run.exitCode ?? null,
      note: run.note ?? null,
      detail: isLarge ? ELSEWHERE : detail,
      resume_state: run.resumeState === undefined ? null : JSON.stringify(run.resumeState),
      out_bytes: stdout.bytes,
      out_head: buffer(stdout.head),
      out_tail: buffer(stdout.tail),
      err_bytes: stderr.bytes,
      err_head: buffer(stderr.head),
      err_tail: buffer(stderr.tail),
      log_bytes: run.logBytes,
      dropped_bytes: run.droppedBytes,
      source: run.source ?? null,
    };
    const values = Object.values(row);
    this.#rows.write(
      `INSERT OR REPLACE INTO runs (${Object.keys(row).join(", ")}) VALUES (${values.map(() => "?").join(", ")})`,
      ...values,
    );
    const bytes = bytesOutside(run);
    if (bytes > 0) this.#rows.write("INSERT OR REPLACE INTO stored_bytes VALUES (?, ?)", run.id, bytes);
  }

  get(id: string): RunRecord | undefined {
    const [row] = this.#rows.all<Row>("SELECT * FROM runs WHERE id = ?", id);
    return row && this.#recordOf(row);
  }

  /** Runs without an end, oldest first. */
  listUnfinished(): RunRecord[] {
    const rows = this.#rows.all<Row>("SELECT * FROM runs WHERE ended_at IS NULL ORDER BY id");
    return rows.map((row) => this.#recordOf(row));
  }

  #recordOf(row: Row): RunRecord {
    if (row.detail !== ELSEWHERE) return recordOf(row);
    const query = "SELECT detail FROM run_details WHERE run = ?";
    return recordOf({ ...row, ...this.#rows.one<{ detail: string }>(query, row.id) });
  }

  /** Newest first; only runs before the run `before`, and only runs of one kind, if given. */
  list(limit: number, before = AFTER_ALL, kind?: RunKind): RunSummary[] {
    const query = `SELECT ${COLUMNS} FROM runs WHERE id < ?1 AND kind = coalesce(?2, kind) ORDER BY id DESC LIMIT ?3`;
    return this.#rows.all<SummaryRow>(query, before, kind ?? null, limit).map(summaryOf);
  }

  /**
   * The id of the run that was requested first, among those that ended before `time`, in milliseconds since the epoch.
   * @param beforeID bounds the search: an id that sorts after the ids of all runs that began before `time`
   */
  firstEndedBefore(time: number, beforeID: string): string | undefined {
    const query = "SELECT id FROM runs WHERE id < ? AND ended_at < ? ORDER BY id LIMIT 1";
    return this.#rows.all<{ id: string }>(query, beforeID, time)[0]?.id;
  }

  get hasEnded(): boolean {
    return this.#rows.all(FIRST_END).length > 0;
  }

  /**
   * The total duration, in milliseconds, of runs that ended after `time`. Time before `from` does not count. Services do not
   * count, nor do lost runs, because their duration is unknown.
   * @param time milliseconds since the epoch, like `from`
   * @param afterID bounds the search: an id that sorts before the ids of all these runs
   */
  millisecondsSince(time: number, afterID: string, from: number): number {
    return this.#rows.one<{ sum: number }>(
      "SELECT coalesce(sum(ended_at - max(started_at, ?)), 0) AS sum FROM runs WHERE id > ? AND ended_at > ? AND state <> 'lost' AND coalesce(json_extract(resume_state, '$.session'), '') <> '_service'",
      from,
      afterID,
      time,
    ).sum;
  }

  /**
   * Returns the stored bytes: the database, long logs, and artifacts of tasks; 0 if there are no runs, because then nothing can be
   * removed.
   */
  measureStored(): Stored {
    const { runs, bytes, oldest } = this.#rows.one<{ runs: number; bytes: number; oldest: number | null }>(
      `SELECT EXISTS (SELECT 1 FROM runs) AS runs, (${FIRST_END}) AS oldest,
         (SELECT coalesce(sum(bytes), 0) FROM stored_bytes) AS bytes`,
    );
    return runs === 0 ? { bytes: 0 } : { bytes: bytes + this.#sql.databaseSize, oldest: oldest ?? undefined };
  }

  /** Returns how many bytes the run stored outside the database. */
  delete(id: string): number {
    this.#rows.write("DELETE FROM runs WHERE id = ?", id);
    this.#rows.write("DELETE FROM run_details WHERE run = ?", id);
    const query = "DELETE FROM stored_bytes WHERE run = ? RETURNING bytes";
    return this.#rows.all<{ bytes: number }>(query, id)[0]?.bytes ?? 0;
  }
}

/** The bytes of a run in R2: a log that is too long for the database, and the artifacts of a task. */
function bytesOutside({ logBytes, detail }: RunRecord): number {
  const artifacts = detail && "artifacts" in detail ? detail.artifacts : [];
  const longLog = logBytes > SQLITE_LOG_BYTES ? logBytes : 0;
  return artifacts.reduce((sum, { size }) => sum + size, longLog);
}

/** Whether a run was never started. Such a run has neither a resume state nor output. A task that waits has both, but no command. */
export function hasNeverStarted({ detail, resumeState, output }: RunRecord): boolean {
  if (detail && "agent" in detail) return !(isRecord(resumeState) && resumeState.command);
  return resumeState === undefined && output.stdout.bytes + output.stderr.bytes === 0;
}

const SOURCE_CHARACTERS = 16_384;

/** The part of the source that is stored; undefined if the title contains the whole source. */
export function sourceToStore(source: string, title: string): string | undefined {
  if (source.trim() === title) return undefined;
  return shortened(source, SOURCE_CHARACTERS);
}

export function viewOf(run: RunRecord): RunView {
  const { output, resumeState, unconfirmed: _unconfirmed, ...shown } = run;
  return {
    ...shown,
    stdout: output.stdout.toShownOutput(),
    stderr: output.stderr.toShownOutput(),
    isInteractive: run.kind === "command" && isRecord(resumeState) && resumeState.interactive === true,
  };
}

function summaryOf(row: SummaryRow): RunSummary {
  return {
    id: row.id,
    kind: row.kind,
    state: row.state,
    title: row.title,
    startedAt: row.started_at,
    endedAt: row.ended_at ?? undefined,
    exitCode: row.exit_code ?? undefined,
  } satisfies Record<Exclude<keyof RunSummary, "waiting">, unknown>;
}

function recordOf(row: Row): RunRecord {
  return {
    ...summaryOf(row),
    note: row.note ?? undefined,
    detail: row.detail === null ? undefined : (JSON.parse(row.detail) as RunDetail),
    resumeState: row.resume_state === null ? undefined : JSON.parse(row.resume_state),
    source: row.source ?? undefined,
    output: {
      stdout: new HeadAndTail(new Uint8Array(row.out_head), new Uint8Array(row.out_tail), row.out_bytes),
      stderr: new HeadAndTail(new Uint8Array(row.err_head), new Uint8Array(row.err_tail), row.err_bytes),
    },
    logBytes: row.log_bytes,
    droppedBytes: row.dropped_bytes,
  } satisfies Record<Exclude<keyof RunRecord, "unconfirmed" | keyof RunSummary>, unknown>;
}

function buffer(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer;
}
