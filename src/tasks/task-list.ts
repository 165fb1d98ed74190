/** Lists a principal's tasks in all sandboxes. The records of the tasks are in the databases of the sandboxes. */
import { createdAt } from "../runs/id.ts";
import type { RunState } from "../shared/run-listing.ts";
import { DAY_MS } from "../shared/days.ts";
import { Rows } from "../storage/rows.ts";

export interface TaskEntry {
  id: string;
  state: RunState;
  title: string;
  /** Milliseconds since the epoch. */
  startedAt: number;
  endedAt?: number;
}

export class TaskIndex {
  readonly #rows: Rows;
  readonly #keepMs: number;

  constructor(sql: SqlStorage, keepDays: number) {
    this.#rows = new Rows(sql);
    this.#keepMs = keepDays * DAY_MS;
  }

  /** Reports may arrive in the wrong order: the end of a task before its start. */
  put({ id, state, title, startedAt, endedAt }: TaskEntry): void {
    this.#rows.write(
      `INSERT INTO tasks (id, state, title, started_at, ended_at) VALUES (?1, ?2, ?3, ?4, ?5)
       ON CONFLICT (id) DO UPDATE SET state = ?2, ended_at = ?5 WHERE ended_at IS NULL`,
      id,
      state,
      title,
      startedAt,
      endedAt ?? null,
    );
    this.#expire();
  }

  /** Lists the newest first. @param before only tasks before this one, which may no longer be in the list */
  list(limit: number, before: string | undefined): TaskEntry[] {
    this.#expire();
    type Row = { id: string; state: RunState; title: string; startedAt: number; endedAt: number | null };
    const rows = this.#rows.all<Row>(
      `SELECT id, state, title, started_at AS startedAt, ended_at AS endedAt FROM tasks
         WHERE ?1 IS NULL OR (started_at, id) < (coalesce((SELECT started_at FROM tasks WHERE id = ?1), ?2), ?1)
         ORDER BY started_at DESC, id DESC LIMIT ?3`,
      before ?? null,
      before === undefined ? null : createdAt(before),
      limit,
    );
    return rows.map((row) => Object.assign(row, { endedAt: row.endedAt ?? undefined }));
  }

  remove(id: string): void {
    this.#rows.write("DELETE FROM tasks WHERE id = ?", id);
  }

  #expire(): void {
    this.#rows.write("DELETE FROM tasks WHERE ended_at < ?", Date.now() - this.#keepMs);
  }
}
