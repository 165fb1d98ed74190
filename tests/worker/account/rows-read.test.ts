/** Queries that run often read only a few rows and little data, however much the tables hold. */
import { runInDurableObject } from "cloudflare:test";
import { expect, it } from "vitest";
import { SandboxRegistry } from "../../../src/actors/sandbox-registry.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { TaskIndex } from "../../../src/tasks/task-list.ts";
import { queriesOf } from "../queries.ts";
import { accountOf, principal } from "../support.ts";

const ROWS = 1000;

/** The numbers from 1 to ROWS, for a query that fills a table. */
const NUMBERS = `WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ${ROWS})`;

it("the sandbox with the oldest results is found by an index", async () => {
  await runInDurableObject(accountOf(await principal("oldest")), async (_account, { storage: { sql } }) => {
    sql.exec(`${NUMBERS} INSERT INTO storage SELECT 's' || number, 1, ${ROWS} - number FROM numbers`);
    const sandboxes = new SandboxRegistry(sql);
    const { value, rowsRead } = await queriesOf(sql, () => sandboxes.oldestStored(["s1000", "s998"]));
    expect(value.map(({ sandbox }) => sandbox)).toEqual(["s999", "s997"]);
    expect(rowsRead).toBeLessThan(20);
  });
});

it("a page of tasks reads only its tasks", async () => {
  await runInDurableObject(
    accountOf(await principal("pages-of-tasks")),
    async (_account, { storage: { sql } }) => {
      const now = Date.now();
      sql.exec(
        `${NUMBERS} INSERT INTO tasks SELECT printf('t%04d', number), 'failed', '', ${now} + number / 2, ${now} FROM numbers`,
      );
      const tasks = new TaskIndex(sql, 1);
      const pageBefore = async (before?: string) => {
        const { value, rowsRead } = await queriesOf(sql, () => tasks.list(3, before));
        expect(rowsRead).toBeLessThan(20);
        return value.map(({ id }) => id);
      };
      expect(await pageBefore()).toEqual(["t1000", "t0999", "t0998"]);
      expect(await pageBefore("t0005")).toEqual(["t0004", "t0003", "t0002"]);
      expect(await pageBefore("t0004")).toEqual(["t0003", "t0002", "t0001"]);
    },
  );
});

it("a task whose end was never reported leaves the list when its record has expired", async () => {
  await runInDurableObject(
    accountOf(await principal("unreported-tasks")),
    async (_account, { storage: { sql } }) => {
      const tasks = new TaskIndex(sql, 3);
      const startedAt = (days: number) => Date.now() - days * DAY_MS;
      const task = { state: "running", title: "", endedAt: undefined } as const;
      tasks.put({ ...task, id: "long-ago", startedAt: startedAt(4) });
      tasks.put({ ...task, id: "running", startedAt: startedAt(1) });
      expect(tasks.list(10, undefined).map(({ id }) => id)).toEqual(["running"]);
    },
  );
});

it("expired tasks are deleted", async () => {
  const stub = accountOf(await principal("expired-tasks"));
  await runInDurableObject(stub, async (_account, { storage: { sql } }) => {
    const all = `${NUMBERS}, more AS (SELECT a.number * ${ROWS} + b.number AS number FROM numbers AS a, numbers AS b LIMIT 5000)`;
    sql.exec(`${all} INSERT INTO tasks SELECT 't' || number, 'failed', '', number, number FROM more`);
    sql.exec(
      "INSERT INTO tasks VALUES ('running', 'running', '', ?1, NULL), ('later', 'failed', '', 2, ?1)",
      Date.now(),
    );
    const listed = new TaskIndex(sql, 1).list(10, undefined);
    expect(listed.map(({ id }) => id)).toEqual(["running", "later"]);
    expect(sql.exec("SELECT count(*) AS count FROM tasks").one()).toEqual({ count: 2 });
  });
});

it("settings are searched only for configured sandboxes", async () => {
  await runInDurableObject(
    accountOf(await principal("configured")),
    async (_account, { storage: { sql } }) => {
      const sandboxes = new SandboxRegistry(sql);
      sandboxes.putSettings("s2", { variables: ["KEY"], network: {} });
      const { value, plans } = await queriesOf(sql, () => sandboxes.settings(["s1", "s2", "s3"]));
      expect(value.get("s2")).toEqual({ variables: ["KEY"], network: {} });
      expect(value.get("s3")).toEqual({ variables: [], network: {} });
      expect(plans).toEqual(["SCAN settings", "SEARCH settings USING PRIMARY KEY (sandbox=?)"]);
    },
  );
});

it("settings of checkpoints, which may be large, are not passed by a search", async () => {
  await runInDurableObject(accountOf(await principal("large-settings")), (_account, { storage }) => {
    const query = "EXPLAIN QUERY PLAN SELECT settings FROM checkpoint_settings WHERE checkpoint = ''";
    expect(storage.sql.exec(query).one().detail).toContain("sqlite_autoindex_checkpoint_settings_1");
  });
});
