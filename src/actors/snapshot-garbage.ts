/** Removes what no saved state needs: rows at once, objects in R2 when their deletion is due. */
import { manifestPrefix, packPrefix } from "./saved-states.ts";

export type StateStorage = Pick<DurableObjectStorage, "sql" | "transactionSync">;

/** The pause before a failed R2 deletion is retried, in milliseconds. */
const DELETE_RETRY_MS = 300_000;

const BATCH = 20;

export class SnapshotGarbage {
  readonly #storage: StateStorage;

  constructor(storage: StateStorage) {
    this.#storage = storage;
  }

  discard(id: string, dueAt: number): void {
    this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", `${id}/`, dueAt);
  }

  collect(now: number): void {
    const snapshots = this.#rows<{ id: string }>(
      `DELETE FROM snapshots WHERE id NOT IN (SELECT snapshot FROM workspaces)
       AND id NOT IN (SELECT snapshot FROM checkpoints) AND id NOT IN (SELECT snapshot FROM archives) RETURNING id`,
    );
    for (const { id } of snapshots) {
      this.#sql("DELETE FROM pack_refs WHERE snapshot = ?", id);
      this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", manifestPrefix(id), now);
    }
    this.#sql(
      `DELETE FROM checkpoint_settings WHERE checkpoint NOT IN (SELECT id FROM checkpoints)
       AND checkpoint NOT IN (SELECT run FROM archives)`,
    );
    const packs = this.#rows<{ id: string }>(
      "DELETE FROM packs WHERE id NOT IN (SELECT pack FROM pack_refs) RETURNING id",
    );
    for (const { id } of packs) this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", packPrefix(id), now);
  }

  /** Deletes due garbage with `remove`, which takes a key prefix. Failures are retried later. */
  async sweep(remove: (prefix: string) => Promise<void>, now = Date.now()): Promise<void> {
    for (;;) {
      const due = this.#rows<{ prefix: string }>(
        "SELECT prefix FROM garbage WHERE due_at <= ? ORDER BY due_at LIMIT ?",
        now,
        BATCH,
      );
      if (due.length === 0) return;
      for (const { prefix } of due) {
        const isGone = await remove(prefix).then(
          () => true,
          () => false,
        );
        if (isGone) this.#sql("DELETE FROM garbage WHERE prefix = ?", prefix);
        else this.#sql("UPDATE garbage SET due_at = ? WHERE prefix = ?", now + DELETE_RETRY_MS, prefix);
      }
    }
  }

  #sql(query: string, ...values: SqlStorageValue[]) {
    return this.#storage.sql.exec(query, ...values);
  }

  #rows<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row[] {
    return this.#storage.sql.exec<Row>(query, ...values).toArray();
  }
}
