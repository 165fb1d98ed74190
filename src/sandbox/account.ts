/** One principal's sandboxes: the Durable Object behind `list_sandboxes`. Never on the path of a warm call. */
import { DurableObject } from "cloudflare:workers";
import type { Env } from "../server/config.ts";

export interface SandboxRecord {
  name: string;
  /** Whether its container runs. A stopped sandbox starts with the next call, empty. */
  state: "running" | "stopped";
  /** ISO 8601. */
  created_at: string;
  /** ISO 8601, exact to a minute. */
  last_used_at: string;
}

export class Account extends DurableObject<Env> {
  readonly #sql: SqlStorage;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#sql.exec(
      "CREATE TABLE IF NOT EXISTS sandboxes (name TEXT PRIMARY KEY, state TEXT NOT NULL, created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL) WITHOUT ROWID",
    );
  }

  /** A sandbox was used, or its container started or stopped. */
  sandboxSeen(name: string, state: SandboxRecord["state"], at: number): void {
    this.#sql.exec(
      `INSERT INTO sandboxes (name, state, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)
       ON CONFLICT (name) DO UPDATE SET state = ?2, last_used_at = max(last_used_at, ?3)`,
      name,
      state,
      at,
    );
  }

  /** The container of a known sandbox stopped; one that was destroyed stays gone. */
  sandboxStopped(name: string): void {
    this.#sql.exec("UPDATE sandboxes SET state = 'stopped' WHERE name = ?", name);
  }

  /** Answers whether the sandbox was known. */
  sandboxDestroyed(name: string): boolean {
    return this.#sql.exec("DELETE FROM sandboxes WHERE name = ?", name).rowsWritten > 0;
  }

  /** The most recently used first. */
  listSandboxes(): SandboxRecord[] {
    type Row = { name: string; state: SandboxRecord["state"]; created_at: number; last_used_at: number };
    return this.#sql
      .exec<Row>(
        "SELECT name, state, created_at, last_used_at FROM sandboxes ORDER BY last_used_at DESC, name",
      )
      .toArray()
      .map(({ name, state, created_at, last_used_at }) => ({
        name,
        state,
        created_at: new Date(created_at).toISOString(),
        last_used_at: new Date(last_used_at).toISOString(),
      }));
  }
}
