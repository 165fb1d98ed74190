/** An account's tables of sandboxes, their settings, and how much their runs store. */
import type { Stored } from "../runs/run-store.ts";
import { Rows } from "../storage/rows.ts";
import type { NetworkChoice } from "./network.ts";

/** A sandbox as the account knows it. Times are milliseconds since the epoch. */
export type RegisteredSandbox = {
  name: string;
  state: "running" | "stopped";
  createdAt: number;
  lastUsedAt: number;
  sizeBytes: number | null;
};

export interface ListedSettings {
  variables: readonly string[];
  /** The network choice; undefined if the account has not stored one, or does not list it. */
  network: NetworkChoice | undefined;
}

/** The most characters of settings that one list has. A sandbox may have 90 KB of names. */
const LISTED_CHARS = 256 * 1024;

/** The row of a sandbox that nobody has configured. */
const NO_SETTINGS = { variables: "[]", network: "{}" };

export class SandboxRegistry {
  readonly #rows: Rows;

  constructor(sql: SqlStorage) {
    this.#rows = new Rows(sql);
  }

  /** Most recently used first. */
  list(): RegisteredSandbox[] {
    const columns =
      "name, state, created_at AS createdAt, last_used_at AS lastUsedAt, size_bytes AS sizeBytes";
    return this.#rows.all(`SELECT ${columns} FROM sandboxes ORDER BY last_used_at DESC, name`);
  }

  get count(): number {
    return this.#rows.one<{ count: number }>("SELECT count(*) AS count FROM sandboxes").count;
  }

  has(name: string): boolean {
    return this.#rows.all("SELECT name FROM sandboxes WHERE name = ?", name).length > 0;
  }

  running(): string[] {
    return this.#namesOf("SELECT name FROM sandboxes WHERE state = 'running' ORDER BY last_used_at");
  }

  unusedSince(time: number): string[] {
    return this.#namesOf("SELECT name FROM sandboxes WHERE last_used_at < ?", time);
  }

  #namesOf(query: string, ...values: SqlStorageValue[]): string[] {
    return this.#rows.all<{ name: string }>(query, ...values).map(({ name }) => name);
  }

  recordUse(name: string): void {
    this.#rows.write(
      `INSERT INTO sandboxes VALUES (?1, 'running', ?2, ?2, NULL)
       ON CONFLICT (name) DO UPDATE SET state = 'running', last_used_at = ?2,
         size_bytes = CASE state WHEN 'stopped' THEN NULL ELSE size_bytes END`,
      name,
      Date.now(),
    );
  }

  /** Records that a sandbox was configured. One that was never used counts as stopped. */
  recordConfiguration(name: string): void {
    this.#rows.write(
      `INSERT INTO sandboxes VALUES (?1, 'stopped', ?2, ?2, 0)
       ON CONFLICT (name) DO UPDATE SET last_used_at = ?2`,
      name,
      Date.now(),
    );
  }

  recordSize(name: string, bytes: number): void {
    this.#rows.write("UPDATE sandboxes SET size_bytes = ? WHERE name = ? AND state = 'running'", bytes, name);
  }

  /** When a sandbox was last used, in milliseconds since the epoch; 0 for an unknown sandbox. */
  lastUseOf(name: string): number {
    const query = "SELECT last_used_at AS usedAt FROM sandboxes WHERE name = ?";
    return this.#rows.all<{ usedAt: number }>(query, name)[0]?.usedAt ?? 0;
  }

  /**
   * Adds no row, because a destroyed sandbox stays removed.
   * @param usedAt the last use before the stop: a sandbox with another one has started again. A later time is no sign of that, because
   * the clock may be set back
   */
  recordStop(name: string, usedAt = this.lastUseOf(name)): void {
    this.#rows.write(
      "UPDATE sandboxes SET state = 'stopped', size_bytes = 0 WHERE name = ? AND last_used_at = ?",
      name,
      usedAt,
    );
  }

  /**
   * Removes a sandbox but keeps its settings and stored sizes. Returns whether it existed. If it has a lease, it may have runs that its
   * actor has not reported yet. The actor may end before that, so the row has it asked when they expire.
   */
  remove(name: string): boolean {
    const query = "INSERT OR IGNORE INTO storage SELECT sandbox, 0, ? FROM leases WHERE sandbox = ?";
    this.#rows.write(query, Date.now(), name);
    return this.#rows.write("DELETE FROM sandboxes WHERE name = ?", name) > 0;
  }

  putSettings(sandbox: string, { variables, network }: ListedSettings): void {
    const values = [sandbox, JSON.stringify(variables), JSON.stringify(network ?? {})];
    this.#rows.write("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", ...values);
  }

  hasSettings(sandbox: string): boolean {
    return this.#rows.all("SELECT sandbox FROM settings WHERE sandbox = ?", sandbox).length > 0;
  }

  removeSettings(sandbox: string): void {
    this.#rows.write("DELETE FROM settings WHERE sandbox = ?", sandbox);
  }

  /** The settings of these sandboxes, up to the first whose settings no longer fit into `LISTED_CHARS`. */
  settings(sandboxes: Iterable<string>): Map<string, ListedSettings> {
    type Row = { variables: string; network: string };
    const found = new Map<string, ListedSettings>();
    let room = LISTED_CHARS;
    // A search for each sandbox that has no settings would load large rows to compare their keys: 0.3 ms each.
    const configured = new Set(this.#namesOf("SELECT sandbox AS name FROM settings"));
    const query = "SELECT variables, network FROM settings WHERE sandbox = ?";
    for (const sandbox of sandboxes) {
      const [row] = configured.has(sandbox) ? this.#rows.all<Row>(query, sandbox) : [];
      const { variables, network } = row ?? NO_SETTINGS;
      room -= variables.length + network.length;
      if (room < 0) break;
      found.set(sandbox, {
        variables: JSON.parse(variables) as string[],
        network: JSON.parse(network) as NetworkChoice,
      });
    }
    return found;
  }

  /** Records how much a sandbox's runs store. The record stays when the sandbox is destroyed. */
  putStored(sandbox: string, { bytes, oldest }: Stored): void {
    if (bytes === 0) this.#rows.write("DELETE FROM storage WHERE sandbox = ?", sandbox);
    else this.#rows.write("INSERT OR REPLACE INTO storage VALUES (?, ?, ?)", sandbox, bytes, oldest ?? null);
  }

  /** Bytes stored for all sandboxes, including destroyed ones. */
  storedBytes(): number {
    return this.#rows.one<{ sum: number }>("SELECT coalesce(sum(bytes), 0) AS sum FROM storage").sum;
  }

  /** At most `limit` sandboxes whose first runs ended before a time, in the order of these ends. */
  storedBefore(time: number, limit: number): string[] {
    const query = "SELECT sandbox AS name FROM storage WHERE oldest < ? ORDER BY oldest LIMIT ?";
    return this.#namesOf(query, time, limit);
  }

  /** The two sandboxes, except these, whose first runs ended first, and when they did. */
  oldestStored(except: readonly string[]): { sandbox: string; oldest: number }[] {
    return this.#rows.all(
      `SELECT sandbox, oldest FROM storage WHERE oldest IS NOT NULL AND sandbox NOT IN (SELECT value FROM json_each(?))
       ORDER BY oldest LIMIT 2`,
      JSON.stringify(except),
    );
  }
}
