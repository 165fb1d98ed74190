/** Versions of the databases of Durable Objects. Each object brings its own up to date when it starts, before anything reads it. */
import { NEWER_DATABASE } from "../shared/errors.ts";

/** One step from a version to the next. A step that was released never changes: databases exist that have taken it. */
export interface Migration {
  name: string;
  /** Statements, which end in semicolons. */
  sql: string;
}

/** What a table or key holds and until when, for docs/internals/storage.md. */
export interface Documented {
  holds: string;
  kept: string;
}

export interface Schema {
  migrations: readonly Migration[];
  /** Every table that the migrations leave. */
  tables: Readonly<Record<string, Documented>>;
  keys: Readonly<Record<string, Documented>>;
}

/** Storage key of the number of migrations that a database has taken. workerd authorizes no PRAGMA user_version. */
export const VERSION_KEY = "schema:version";

/**
 * Runs the migrations that a database lacks, all or none of them. Without a version it is empty, or was written before there were
 * versions: the first migration makes only what is missing.
 * @throws Error where a newer server has written it
 */
export function migrate(
  storage: Pick<DurableObjectStorage, "kv" | "sql" | "transactionSync">,
  { migrations }: Pick<Schema, "migrations">,
): void {
  const { kv, sql } = storage;
  const version = kv.get<number>(VERSION_KEY) ?? 0;
  if (version === migrations.length) return;
  if (version > migrations.length)
    throw new Error(
      `${NEWER_DATABASE}: it has version ${version}, and this server knows ${migrations.length}`,
    );
  storage.transactionSync(() => {
    for (const migration of migrations.slice(version)) sql.exec(migration.sql);
    kv.put(VERSION_KEY, migrations.length);
  });
}
