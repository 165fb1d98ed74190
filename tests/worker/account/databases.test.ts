/** Versions of the actors' databases. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { isReset, NEWER_DATABASE, toolErrorOf } from "../../../src/shared/errors.ts";
import { ACCOUNT_CONTENT } from "../../../src/storage/account-schema.ts";
import { ATTEMPTS_CONTENT } from "../../../src/storage/attempts-schema.ts";
import { VERSION_KEY, migrate } from "../../../src/storage/migrations.ts";
import { SANDBOX_CONTENT } from "../../../src/storage/sandbox-schema.ts";
import { accountOf, actorOf, evictActor, principal } from "../support.ts";

type Stub = Awaited<ReturnType<typeof actorOf>>;

const attemptsOf = (name: string) => env.Attempts.getByName(name) as unknown as Stub;

function tablesOf(sql: SqlStorage): string[] {
  const tables = sql.exec<{ name: string }>(
    "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 1) <> '_' ORDER BY name",
  );
  return tables.toArray().map(({ name }) => name);
}

describe("a database", () => {
  it.each([
    ["a sandbox", () => actorOf("fresh"), SANDBOX_CONTENT],
    ["a principal", () => env.Account.getByName("fresh") as unknown as Stub, ACCOUNT_CONTENT],
    ["the sign-ins", () => attemptsOf("fresh"), ATTEMPTS_CONTENT],
  ])("of %s has the documented tables, and version 1", async (_whose, stubOf, { tables }) => {
    await runInDurableObject(await stubOf(), (_actor, { storage }) => {
      // This table belongs to the SDK.
      const created = tablesOf(storage.sql).filter((name) => name !== "container_schedules");
      expect(created).toEqual(Object.keys(tables).toSorted());
      expect(storage.kv.get(VERSION_KEY)).toBe(1);
    });
  });

  it("gets all missing migrations or none, and each one once", async () => {
    await runInDurableObject(attemptsOf("migrated"), async (_actor, { storage }) => {
      await storage.deleteAll();
      const migrations = ["first", "second", "third"].map((name) => ({
        name,
        sql: `CREATE TABLE ${name} (id INTEGER);`,
      }));
      const broken = { name: "broken", sql: "INSERT INTO missing VALUES (1);" };
      migrate(storage, migrations.slice(0, 1));
      expect(() => migrate(storage, [...migrations, broken])).toThrow("missing");
      expect(tablesOf(storage.sql)).toEqual(["first"]);
      for (let start = 0; start < 2; start++) migrate(storage, migrations);
      expect(tablesOf(storage.sql)).toEqual(["first", "second", "third"]);
      await storage.deleteAll();
    });
  });

  it("from a newer server is refused, and the error says so", async () => {
    const later = await principal("later");
    const calls = [
      { stub: accountOf(later) as unknown as Stub, call: () => later.call("list_sandboxes") },
      { stub: await actorOf("default", later), call: () => later.call("run_code", { code: "1" }) },
    ];
    for (const { stub, call } of calls) {
      await runInDurableObject(stub, (_actor, { storage }) => storage.kv.put(VERSION_KEY, 1000));
      await evictActor(stub);
      const { isError, text } = await call();
      expect(isError).toBe(true);
      expect(text).toContain("by a newer version of this server");
    }
  });

  it("from a newer server is no reset of its actor, although workerd says so", () => {
    const error = Object.assign(new Error(`${NEWER_DATABASE}: it has version 2`), {
      durableObjectReset: true,
    });
    expect(isReset(error)).toBe(false);
    expect(toolErrorOf(error, "ref").message).toContain("by a newer version of this server");
  });
});
