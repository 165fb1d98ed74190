/** Each object migrates its database when it starts, before anything reads it. */
import { NEWER_DATABASE } from "../shared/errors.ts";

/** Never change a released migration, because some databases have already applied it. */
interface Migration {
  name: string;
  /** Statements ending with semicolons. */
  sql: string;
}

/** Text for docs/internals/storage.md. */
interface Documented {
  holds: string;
  kept: string;
}

export interface Schema {
  migrations: readonly Migration[];
  tables: Readonly<Record<string, Documented>>;
  keys: Readonly<Record<string, Documented>>;
}

/** `decisions:*` describes every key that begins with `decisions:`. */
export type KeyOf<S extends Pick<Schema, "keys">> = {
  [Key in keyof S["keys"] & string]: Key extends `${infer Prefix}*` ? `${Prefix}${string}` : Key;
}[keyof S["keys"] & string];

/** The compiler refuses a key that the object's schema does not describe. */
export interface KeyValues<Key extends string> {
  get<T>(key: Key): T | undefined;
  put<T>(key: Key, value: T): void;
  delete(key: Key): boolean;
  list<T>(options: { prefix: Key; end?: Key; limit?: number }): Iterable<[Key, T]>;
}

/** workerd does not allow PRAGMA user_version. */
export const VERSION_KEY = "schema:version";

/** All or none. The first creates only missing tables: databases without versions have some. @throws for a newer database */
export function migrate<Key extends string>(
  storage: Pick<DurableObjectStorage, "kv" | "sql" | "transactionSync">,
  { migrations }: Pick<Schema, "migrations">,
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
