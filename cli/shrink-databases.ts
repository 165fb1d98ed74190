import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { attempt } from "../container/sandboxd/file-error.ts";

/** In smaller databases, the free space is not worth the time. */
const LEAST_BYTES = 4 * 1024 * 1024;

const FREE_PAGES = `SELECT freelist_count AS free, page_count AS "all" FROM pragma_freelist_count, pragma_page_count`;

/**
 * Gives back the disk space that databases of actors no longer use, if it is at least half of a database. workerd allows no `VACUUM`,
 * so this must end before workerd starts. A database that cannot be changed, for example because the disk is full, stays as it is.
 * @param data the directory in which workerd keeps its state
 */
export function shrinkDatabases(data: string): void {
  const directory = join(data, "do");
  const names = attempt(() => readdirSync(directory, { recursive: true, encoding: "utf8" }), []);
  for (const name of names)
    if (name.endsWith(".sqlite")) attempt(() => shrink(join(directory, name)), undefined);
}

function shrink(path: string): void {
  if (statSync(path).size < LEAST_BYTES) return;
  const database = new DatabaseSync(path);
  try {
    const pages = database.prepare(FREE_PAGES).get() as { free: number; all: number };
    if (pages.free >= pages.all / 2) database.exec("VACUUM");
  } finally {
    database.close();
  }
}
