/** A principal's tasks in all sandboxes. Their records are in the databases of the sandboxes. */
import { createdAt } from "../runs/id.ts";
import type { RunSummary } from "../runs/run-types.ts";
import type { RunState } from "../shared/run-listing.ts";
import { DAY_MS } from "../shared/days.ts";
import { Rows } from "../storage/rows.ts";

/** The fields of a task that the list stores: every field of a listed run, except the fields that are named here. */
export type TaskEntry = Omit<RunSummary, "kind" | "exitCode" | "waiting">;

/** Makes optional fields required. */
type AllFields = Record<keyof TaskEntry, unknown>;

type Row = { id: string; state: RunState; title: string; started_at: number; ended_at: number | null };

export class TaskIndex {
  readonly #rows: Rows;
  readonly #keepMs: number;

  constructor(sql: SqlStorage, keepDays: number) {
    this.#rows = new Rows(sql);
    this.#keepMs = keepDays * DAY_MS;
  }

  /** The end of a task may be reported before its start. */
  put({ id, state, title, startedAt, endedAt }: TaskEntry): void {
    const row: Row = { id, state, title, started_at: startedAt, ended_at: endedAt ?? null };
    const columns = Object.keys(row);
    const reported = columns.filter((name) => name !== "started_at");
    this.#rows.write(
      `INSERT INTO tasks (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})
       ON CONFLICT (id) DO UPDATE SET ${reported.map((name) => `${name} = excluded.${name}`).join(", ")} WHERE ended_at IS NULL`,
      ...Object.values(row),
    );
    this.#expire();
  }

  /** Lists the newest first. @param before only tasks before this one, which may no longer be in the list */
  list(limit: number, before: string | undefined): TaskEntry[] {
    this.#expire();
    // A bound in one comparison, so that the query reads only the listed rows from the index.
    const rows = this.#rows.all<Row>(
      `SELECT * FROM tasks WHERE (started_at, id) < (coalesce((SELECT started_at FROM tasks WHERE id = ?1), ?2), ?1)
       ORDER BY started_at DESC, id DESC LIMIT ?3`,
      before ?? "",
      before === undefined ? Number.MAX_SAFE_INTEGER : createdAt(before),
      limit,
    );
    return rows.map((row) => {
      const entry = { ...row, startedAt: row.started_at, endedAt: row.ended_at ?? undefined };
      return taskEntry(entry satisfies AllFields);
    });
  }

  remove(id: string): void {
    this.#rows.write("DELETE FROM tasks WHERE id = ?", id);
  }

  #expire(): void {
    const time = Date.now() - this.#keepMs;
    // There is an index of the starts, and none of the ends. No task lasts so long, so without an end its report was lost.
    const query = "DELETE FROM tasks WHERE started_at < ?1 AND coalesce(ended_at, started_at) < ?1";
    this.#rows.write(query, time);
  }
}

export function taskEntry({ id, state, title, startedAt, endedAt }: TaskEntry): TaskEntry {
  return { id, state, title, startedAt, endedAt } satisfies AllFields;
}
