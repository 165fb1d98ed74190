/** Queries that run often read only a few rows and little data, however much the tables hold. */
import { runInDurableObject } from "cloudflare:test";
import { expect, it } from "vitest";
import { SandboxRegistry } from "../../../src/actors/sandbox-registry.ts";
import { TaskIndex } from "../../../src/tasks/task-list.ts";
import { accountOf, principal } from "../support.ts";

const ROWS = 1000;

/** The numbers from 1 to ROWS, for a query that fills a table. */
const NUMBERS = `WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ${ROWS})`;

/** The database, and a function that returns how many rows were read since its last call. */
function counted(sql: SqlStorage): { sql: SqlStorage; rowsRead(): number } {
  let cursors: SqlStorageCursor<Record<string, SqlStorageValue>>[] = [];
  const exec = (...query: Parameters<SqlStorage["exec"]>) => {
    const cursor = sql.exec(...query);
    cursors.push(cursor);
    return cursor;
  };
  const rowsRead = () => cursors.splice(0).reduce((sum, cursor) => sum + cursor.rowsRead, 0);
  return { sql: { exec } as SqlStorage, rowsRead };
}

it("the sandbox with the oldest results is found by an index", async () => {
  await runInDurableObject(accountOf(await principal("oldest")), (_account, { storage }) => {
    storage.sql.exec(`${NUMBERS} INSERT INTO storage SELECT 's' || number, 1, ${ROWS} - number FROM numbers`);
    const { sql, rowsRead } = counted(storage.sql);
    const sandboxes = new SandboxRegistry(sql);
    const names = sandboxes.oldestStored(["s1000", "s998"]).map(({ sandbox }) => sandbox);
    expect(names).toEqual(["s999", "s997"]);
    expect(rowsRead()).toBeLessThan(20);
  });
});

it("a page of tasks reads only its tasks", async () => {
  await runInDurableObject(accountOf(await principal("pages-of-tasks")), (_account, { storage }) => {
    const now = Date.now();
    storage.sql.exec(
      `${NUMBERS} INSERT INTO tasks SELECT printf('t%04d', number), 'failed', '', ${now} + number / 2, ${now} FROM numbers`,
    );
    const { sql, rowsRead } = counted(storage.sql);
    const tasks = new TaskIndex(sql, 1);
    const list = (...which: Parameters<TaskIndex["list"]>) => tasks.list(...which).map(({ id }) => id);
    expect(list(3, undefined)).toEqual(["t1000", "t0999", "t0998"]);
    expect(list(3, "t0005")).toEqual(["t0004", "t0003", "t0002"]);
    expect(list(3, "t0004")).toEqual(["t0003", "t0002", "t0001"]);
    expect(rowsRead()).toBeLessThan(50);
  });
});

it("settings of checkpoints, which may be large, are not passed by a search", async () => {
  await runInDurableObject(accountOf(await principal("large-settings")), (_account, { storage }) => {
    const query = "EXPLAIN QUERY PLAN SELECT settings FROM checkpoint_settings WHERE checkpoint = ''";
    expect(storage.sql.exec(query).one().detail).toContain("sqlite_autoindex_checkpoint_settings_1");
  });
});
