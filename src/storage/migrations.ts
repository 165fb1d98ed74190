/** Versions of the Durable Objects' databases. Each object migrates its database when it starts, before anything reads it. */
import { NEWER_DATABASE } from "../shared/errors.ts";

/** One step between versions. Never change a released migration, because some databases have already applied it. */
export interface Migration {
  name: string;
  /** Statements ending with semicolons. */
  sql: string;
}

/** What a table or key holds and until when, for docs/internals/storage.md. */
interface Documented {
  holds: string;
  kept: string;
}

/** What a database holds. */
export interface Content {
  tables: Readonly<Record<string, Documented>>;
  keys: Readonly<Record<string, Documented>>;
}

/** A key that the content of a database describes. `decisions:*` describes every key that begins with `decisions:`. */
export type KeyOf<C extends Pick<Content, "keys">> = {
  [Key in keyof C["keys"] & string]: Key extends `${infer Prefix}*` ? `${Prefix}${string}` : Key;
}[keyof C["keys"] & string];

/** A Durable Object's synchronous key-value storage. The compiler refuses a key that the database's content does not describe. */
export interface KeyValues<Key extends string> {
  get<T>(key: Key): T | undefined;
  put<T>(key: Key, value: T): void;
  delete(key: Key): boolean;
  list<T>(options: { prefix: Key; end?: Key; limit?: number }): Iterable<[Key, T]>;
}

/** The storage key for the number of applied migrations. workerd does not allow PRAGMA user_version. */
export const VERSION_KEY = "schema:version";

/**
 * Runs all missing migrations or none.
 * @returns the object's key-value storage
 * @throws if a newer server wrote the database
 */
export function migrate<Key extends string>(
  storage: Pick<DurableObjectStorage, "kv" | "sql" | "transactionSync">,
  migrations: readonly Migration[],
): KeyValues<Key> {
  const { kv, sql } = storage;
  const keyValues = kv as KeyValues<Key>;
  const version = kv.get<number>(VERSION_KEY) ?? 0;
  if (version === migrations.length) return keyValues;
  if (version > migrations.length)
    throw new Error(
      `${NEWER_DATABASE}: it has version ${version}, and this server supports version ${migrations.length}`,
    );
  storage.transactionSync(() => {
    for (const migration of migrations.slice(version)) sql.exec(migration.sql);
    kv.put(VERSION_KEY, migrations.length);
  });
  return keyValues;
}
