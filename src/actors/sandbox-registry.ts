/** Tables of an account: its sandboxes, their settings, and how much their runs store. */
import type { Stored } from "../runs/run-store.ts";
import type { NetworkChoice } from "./network.ts";

/** A sandbox as the account knows it. Times are milliseconds since the epoch. */
export interface RegisteredSandbox {
  name: string;
  state: "running" | "stopped";
  createdAt: number;
  lastUsedAt: number;
  /** Bytes of its files; undefined if not measured. */
  sizeBytes: number | undefined;
}

export interface ListedSettings {
  variables: readonly string[];
  /** The network choice; undefined if made before the account stored it. */
  network: NetworkChoice | undefined;
}

export class SandboxRegistry {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** Most recently used first. */
  list(): RegisteredSandbox[] {
    type Row = {
      name: string;
      state: RegisteredSandbox["state"];
      created_at: number;
      last_used_at: number;
      size_bytes: number | null;
    };
    return this.#sql
      .exec<Row>("SELECT * FROM sandboxes ORDER BY last_used_at DESC, name")
      .toArray()
      .map(({ name, state, created_at: createdAt, last_used_at: lastUsedAt, size_bytes: bytes }) => {
        return { name, state, createdAt, lastUsedAt, sizeBytes: bytes ?? undefined };
      });
  }

  get count(): number {
    return this.#sql.exec<{ count: number }>("SELECT count(*) AS count FROM sandboxes").one().count;
  }

  has(name: string): boolean {
    const row = "SELECT count(*) AS count FROM sandboxes WHERE name = ?";
    return this.#sql.exec<{ count: number }>(row, name).one().count > 0;
  }

  running(): string[] {
    const rows = "SELECT name FROM sandboxes WHERE state = 'running' ORDER BY last_used_at";
    return this.#namesOf(rows);
  }

  unusedSince(time: number): string[] {
    return this.#namesOf("SELECT name FROM sandboxes WHERE last_used_at < ?", time);
  }

  #namesOf(query: string, ...bindings: unknown[]): string[] {
    return this.#sql
      .exec<{ name: string }>(query, ...bindings)
      .toArray()
      .map(({ name }) => name);
  }

  used(name: string): void {
    this.#sql.exec(
      `INSERT INTO sandboxes VALUES (?1, 'running', ?2, ?2, NULL)
       ON CONFLICT (name) DO UPDATE SET state = 'running', last_used_at = ?2,
         size_bytes = CASE state WHEN 'stopped' THEN NULL ELSE size_bytes END`,
      name,
      Date.now(),
    );
  }

  /** Records that a sandbox was configured. One that was never used counts as stopped. */
  configured(name: string): void {
    this.#sql.exec(
      `INSERT INTO sandboxes VALUES (?1, 'stopped', ?2, ?2, 0)
       ON CONFLICT (name) DO UPDATE SET last_used_at = ?2`,
      name,
      Date.now(),
    );
  }

  measured(name: string, bytes: number): void {
    this.#sql.exec("UPDATE sandboxes SET size_bytes = ? WHERE name = ? AND state = 'running'", bytes, name);
  }

  stopped(name: string): void {
    this.#sql.exec("UPDATE sandboxes SET state = 'stopped', size_bytes = 0 WHERE name = ?", name);
  }

  /** Removes a sandbox but keeps its settings and stored sizes. Returns whether it existed. */
  remove(name: string): boolean {
    return this.#sql.exec("DELETE FROM sandboxes WHERE name = ?", name).rowsWritten > 0;
  }

  putSettings(sandbox: string, { variables, network }: ListedSettings): void {
    const values = [sandbox, JSON.stringify(variables), JSON.stringify(network ?? {})];
    this.#sql.exec("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", ...values);
  }

  removeSettings(sandbox: string): void {
    this.#sql.exec("DELETE FROM settings WHERE sandbox = ?", sandbox);
  }

  /** The settings of all sandboxes that were ever configured. */
  settings(): Map<string, ListedSettings> {
    type Row = { sandbox: string; variables: string; network: string | null };
    const rows = this.#sql.exec<Row>("SELECT * FROM settings").toArray();
    return new Map(
      rows.map(({ sandbox, variables, network }) => [
        sandbox,
        {
          variables: JSON.parse(variables) as string[],
          network: network === null ? undefined : (JSON.parse(network) as NetworkChoice),
        },
      ]),
    );
  }

  /** Records how much a sandbox's runs store. It stays when the sandbox is destroyed. */
  putStored(sandbox: string, { bytes, oldest }: Stored): void {
    if (bytes === 0) this.#sql.exec("DELETE FROM storage WHERE sandbox = ?", sandbox);
    else this.#sql.exec("INSERT OR REPLACE INTO storage VALUES (?, ?, ?)", sandbox, bytes, oldest ?? null);
  }

  /** Bytes stored for all sandboxes, including destroyed ones. */
  storedBytes(): number {
    return this.#sql.exec<{ sum: number }>("SELECT coalesce(sum(bytes), 0) AS sum FROM storage").one().sum;
  }

  /** Sandboxes with removable runs, and the end of each one's oldest run. Oldest first. */
  storedByAge(): { sandbox: string; oldest: number }[] {
    const rows = "SELECT sandbox, oldest FROM storage WHERE oldest IS NOT NULL ORDER BY oldest";
    return this.#sql.exec<{ sandbox: string; oldest: number }>(rows).toArray();
  }
}
