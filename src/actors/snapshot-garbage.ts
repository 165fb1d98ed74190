/** Removes data that no saved state needs: rows at once, objects in R2 when their deletion is due. */
import type { Rows } from "../storage/rows.ts";
import { countdown } from "../shared/timers.ts";
import { manifestPrefix, packPrefix } from "./saved-states.ts";

const DELETE_RETRY_MS = 300_000;

const BATCH = 20;

export class SnapshotGarbage {
  readonly #rows: Rows;

  constructor(rows: Rows) {
    this.#rows = rows;
  }

  discard(id: string, dueAt: number): void {
    this.#rows.write("INSERT OR IGNORE INTO garbage VALUES (?, ?)", `${id}/`, dueAt);
  }

  /** Deletes discarded objects at `dueAt` if they would be deleted later. */
  advance(id: string, dueAt: number): void {
    this.#rows.write("UPDATE garbage SET due_at = ?1 WHERE prefix = ?2 AND due_at > ?1", dueAt, `${id}/`);
  }

  collect(now: number): void {
    const snapshots = this.#rows.all<{ id: string }>(
      `DELETE FROM snapshots WHERE id NOT IN (SELECT snapshot FROM workspaces)
       AND id NOT IN (SELECT snapshot FROM checkpoints) AND id NOT IN (SELECT snapshot FROM archives) RETURNING id`,
    );
    for (const { id } of snapshots) {
      this.#rows.write("DELETE FROM pack_refs WHERE snapshot = ?", id);
      this.#rows.write("INSERT OR IGNORE INTO garbage VALUES (?, ?)", manifestPrefix(id), now);
    }
    this.#rows.write(
      `DELETE FROM checkpoint_settings WHERE checkpoint NOT IN (SELECT id FROM checkpoints)
       AND checkpoint NOT IN (SELECT run FROM archives)`,
    );
    const packs = this.#rows.all<{ id: string }>(
      "DELETE FROM packs WHERE id NOT IN (SELECT pack FROM pack_refs) RETURNING id",
    );
    for (const { id } of packs)
      this.#rows.write("INSERT OR IGNORE INTO garbage VALUES (?, ?)", packPrefix(id), now);
  }

  /** Deletes due garbage with `remove`, which takes a key prefix. Begins no deletion after `ms`. Failures are retried later. */
  async sweep(remove: (prefix: string) => Promise<void>, ms: number, now = Date.now()): Promise<void> {
    const leftMs = countdown(ms);
    for (;;) {
      const due = this.#rows.all<{ prefix: string }>(
        "SELECT prefix FROM garbage WHERE due_at <= ? ORDER BY due_at LIMIT ?",
        now,
        BATCH,
      );
      if (due.length === 0) return;
      for (const { prefix } of due) {
        if (leftMs() <= 0) return;
        const isGone = await remove(prefix).then(
          () => true,
          () => false,
        );
        if (isGone) this.#rows.write("DELETE FROM garbage WHERE prefix = ?", prefix);
        else
          this.#rows.write("UPDATE garbage SET due_at = ? WHERE prefix = ?", now + DELETE_RETRY_MS, prefix);
      }
    }
  }
}
