/** An upgrade keeps everything that earlier versions stored: the databases and objects of tests/fixtures/storage. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ACCOUNT_CONTENT, ACCOUNT_MIGRATIONS } from "../../../src/storage/account-schema.ts";
import { isReset, NEWER_DATABASE, toolErrorOf } from "../../../src/shared/errors.ts";
import { RunStore } from "../../../src/runs/run-store.ts";
import { ATTEMPTS_CONTENT, ATTEMPTS_MIGRATIONS } from "../../../src/storage/attempts-schema.ts";
import { VERSION_KEY, migrate } from "../../../src/storage/migrations.ts";
import { SANDBOX_CONTENT, SANDBOX_MIGRATIONS } from "../../../src/storage/sandbox-schema.ts";
import { Client, approve, oauthApp, type Tokens, whoIs } from "../auth/support.ts";
import {
  accountOf,
  actorOf,
  evictActor,
  owner,
  principal,
  sandboxesOf,
  sh,
  sha256,
  until,
  wholeLog,
} from "../support.ts";

type Fields = Record<string, unknown>;

/** What the public tools returned in the earlier version: the fields that an upgrade must not change. */
interface Answers {
  sandboxes: {
    run_seconds_today: number;
    model_tokens_today?: number;
    workspace_bytes?: number;
    sandboxes: Fields[];
    checkpoints?: { id: string; label: string }[];
  };
  runs: { id: string; title: string; state: string }[];
  results: Record<string, Fields>;
  logs: Record<string, string>;
  settings?: Fields;
  task: { id: string; links: string[] };
}

interface Stored {
  at: number;
  keys: Record<string, Fields>;
  objects: Record<string, string>;
  answers: Answers;
}

/** What OAUTH_KV had after a sign-in, and what the client got. */
interface StoredOAuth {
  at: number;
  client: string;
  tokens: Tokens;
  rows: Record<string, { value: string; expiration: number; metadata?: unknown }>;
}

type Stub = Awaited<ReturnType<typeof actorOf>>;

const MIGRATIONS = {
  Sandbox: SANDBOX_MIGRATIONS,
  Account: ACCOUNT_MIGRATIONS,
  Attempts: ATTEMPTS_MIGRATIONS,
};
const CONTENTS = { Sandbox: SANDBOX_CONTENT, Account: ACCOUNT_CONTENT, Attempts: ATTEMPTS_CONTENT };

const files: Record<string, string> = import.meta.glob("../../fixtures/storage/*/*.{sql,json}", {
  query: "?raw",
  import: "default",
  eager: true,
});
const VERSIONS = [...new Set(Object.keys(files).map((path) => path.split("/").at(-2) ?? ""))];
const fileOf = (version: string, name: string) => files[`../../fixtures/storage/${version}/${name}`] ?? "";

/** Moves each time and day in a text so that it is as long ago as it was when it was stored. */
function moveTimesToNow(text: string, at: number): string {
  const since = Date.now() - at;
  const days = Math.floor(Date.now() / 86_400_000) - Math.floor(at / 86_400_000);
  return text
    .replace(/\b1[789]\d{11}\b/g, (time) => String(Number(time) + since))
    .replace(/("(?:model_)?usage" VALUES \()(\d+)/g, (_, start, day) => start + (Number(day) + days));
}

/** The actor that loads the dump of this name. */
async function stubOf(dump: string): Promise<Stub> {
  const [kind = "", name = ""] = dump.split(".");
  if (kind === "Sandbox") return actorOf(name);
  const counts = kind === "Attempts" ? env.Attempts.getByName(name) : env.Account.getByName(name);
  return counts as unknown as Stub;
}

/** Loads an earlier version's databases and objects into this server's actors and bucket. */
async function load(version: string): Promise<Stored> {
  const json = fileOf(version, "stored.json");
  const { at } = JSON.parse(json) as Stored;
  const stored: Stored = JSON.parse(moveTimesToNow(json, at));
  for (const [key, packed] of Object.entries(stored.objects)) {
    const bytes = new Blob([Uint8Array.fromBase64(packed)])
      .stream()
      .pipeThrough(new DecompressionStream("gzip"));
    // Earlier versions of the local platform had no folder of objects.
    await env.RESULTS.put(key, await new Response(bytes).arrayBuffer());
  }
  for (const [actor, keys] of Object.entries(stored.keys)) {
    const stub = await stubOf(actor);
    await runInDurableObject(stub, async (_actor, { storage }) => {
      await storage.deleteAll();
      storage.sql.exec(moveTimesToNow(fileOf(version, `${actor}.sql`), at));
      for (const [key, value] of Object.entries(keys)) storage.kv.put(key, value);
    });
    await evictActor(stub);
  }
  return stored;
}

/** SQLite's definitions of an actor's tables, without white space. */
function tablesOf(stub: Stub): Promise<Fields> {
  return runInDurableObject(stub, (_actor, { storage }) => {
    const rows = storage.sql.exec<{ name: string; sql: string }>(
      "SELECT tbl_name AS name, group_concat(sql, ',' ORDER BY name) AS sql FROM sqlite_master WHERE sql IS NOT NULL AND substr(name, 1, 1) <> '_' GROUP BY tbl_name",
    );
    return Object.fromEntries(rows.toArray().map(({ name, sql }) => [name, sql.replace(/\s/g, "")]));
  });
}

function namesOfTables(sql: SqlStorage): string[] {
  const tables = sql.exec<{ name: string }>(
    "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 1) <> '_'",
  );
  return tables.toArray().map(({ name }) => name);
}

/** Adds a row to each table. Keys of one name are equal, all other values differ. Returns the values by their columns. */
function fillTables(sql: SqlStorage): Map<string, string | number> {
  const stored = new Map<string, string | number>();
  for (const table of namesOfTables(sql)) {
    const columns = sql
      .exec<{ name: string; type: string; pk: number }>(
        "SELECT name, type, pk FROM pragma_table_info(?)",
        table,
      )
      .toArray();
    const values = columns.map(({ name, type, pk }) => {
      const column = `${table}.${name}`;
      const number = pk > 0 ? 1 : 1000 + stored.size;
      const value = type === "INTEGER" ? number : pk > 0 ? name : column;
      stored.set(column, value);
      return value;
    });
    sql.exec(`INSERT INTO "${table}" VALUES (${values.map(() => "?").join(", ")})`, ...values);
  }
  return stored;
}

/** The hash of a run's whole output, in the form of the fixtures. */
async function logOf(id: string): Promise<string> {
  const { stdout, stderr } = await wholeLog(id);
  return sha256(JSON.stringify({ stdout, stderr }));
}

const callStructured = async (tool: string, args: Fields = {}) => (await owner.call(tool, args)).structured;

describe.each(VERSIONS)("a deployment that was upgraded from %s", (version) => {
  let answers: Answers;
  let actors: string[];
  beforeAll(async () => {
    const stored = await load(version);
    answers = stored.answers;
    actors = Object.keys(stored.keys);
  });
  afterAll(async () => {
    for (const sandbox of ["work", "fork", "closed", "back"])
      await owner.call("destroy_sandbox", { sandbox });
  });

  // This test comes first, because a new link removes some expired links.
  it("serves its earlier links", async () => {
    for (const link of answers.task.links) {
      const response = await owner.http(new URL(link).pathname);
      expect(await response.text()).toContain("written");
    }
  });

  it("lists its sandboxes with their settings, and its checkpoints", async () => {
    const { run_seconds_today, workspace_bytes = 0, ...before } = answers.sandboxes;
    // A sandbox was running when its data was stored. Its account corrects that only if the sandbox's actor responds in time.
    await until(async () => (await sandboxesOf()).every(({ state }) => state === "stopped"));
    const listed = await callStructured("list_sandboxes");
    expect(listed).toMatchObject({ checkpoints: [], ...before });
    // Earlier versions did not count the settings of checkpoints and archives.
    expect(listed.workspace_bytes).toBeGreaterThanOrEqual(workspace_bytes);
    expect(listed.workspace_bytes).toBeLessThan(workspace_bytes > 0 ? workspace_bytes + 1000 : Infinity);
    // Sandboxes report changes that their account does not know yet.
    expect(listed.run_seconds_today).toBeGreaterThanOrEqual(run_seconds_today);
    if (!answers.settings) return;
    const settings = await callStructured("configure_sandbox", { sandbox: "work" });
    expect(settings).toMatchObject(answers.settings);
  });

  it("keeps its runs, with their results and complete logs", async () => {
    const { runs } = await callStructured("list_runs", { sandbox: "work", limit: 100 });
    // Runs that were in progress have ended with their container.
    const before = answers.runs.map((run) => ({
      ...run,
      state: run.state === "running" ? "lost" : run.state,
    }));
    expect(runs).toHaveLength(before.length);
    expect(runs).toMatchObject(before);
    const first = before.find(({ title }) => title.startsWith("answer = "));
    expect(await callStructured("get_result", { id: first?.id })).toMatchObject({ result: "42" });
    for (const [id, result] of Object.entries(answers.results))
      expect(await callStructured("get_result", { id, wait_seconds: 0 })).toMatchObject(result);
    for (const [id, hash] of Object.entries(answers.logs)) expect(await logOf(id)).toBe(hash);
  });

  it("keeps the files that its task left", async () => {
    const artifact = await owner.call("get_result", { id: answers.task.id, artifact: "a.txt" });
    expect(artifact.text).toContain("written");
  });

  it("starts sandboxes from its saved workspaces and its checkpoints", async () => {
    const read = async (sandbox: string, path: string) =>
      (await owner.call("read_file", { sandbox, path })).text;
    const { checkpoints } = answers.sandboxes;
    const began = checkpoints ? "third" : "its files, processes and variables are gone";
    expect(await read("work", "b.txt")).toContain(began);
    // The earliest version saved no workspaces.
    if (!checkpoints) return;
    // The fork began from the first checkpoint.
    const last = checkpoints.find(({ label }) => label !== "first");
    await owner.call("restore_sandbox", { checkpoint: last?.id, sandbox: "back" });
    expect(await read("back", "a.txt")).toContain("second");
    expect(await read("fork", "a.txt")).toContain("first");
    expect(await sh("fork", "echo $GREETING")).toBe("hello\n");
    const next = { continue_from: answers.task.id, task: "[[write]] again" };
    expect(await callStructured("execute_task", next)).toMatchObject({ state: "succeeded" });
  });

  it("has the tables that a new deployment has", async () => {
    for (const actor of actors) {
      const fresh = await stubOf(actor.replace(/\..*/, ".fresh"));
      expect(await tablesOf(await stubOf(actor))).toEqual(await tablesOf(fresh));
    }
  });
});

const WITH_OAUTH = VERSIONS.filter((version) => fileOf(version, "oauth.json") !== "");

describe.each(WITH_OAUTH)("a deployment with OAuth that was upgraded from %s", (version) => {
  const app = oauthApp();
  let stored: StoredOAuth;
  beforeAll(async () => {
    const json = fileOf(version, "oauth.json");
    const since = Math.floor((Date.now() - (JSON.parse(json) as StoredOAuth).at) / 1000);
    // OAUTH_KV has times in seconds.
    const moved = json.replace(/\b1[789]\d{8}\b/g, (time) => String(Number(time) + since));
    stored = JSON.parse(moved);
    for (const [key, { value, expiration, metadata }] of Object.entries(stored.rows))
      await env.OAUTH_KV.put(key, value, { expiration, metadata });
  });
  afterAll(() => Promise.all(Object.keys(stored.rows).map((key) => env.OAUTH_KV.delete(key))));

  it("accepts the access token of an earlier sign-in", async () => {
    expect(await whoIs(app, stored.tokens.access_token)).toBe("owner");
  });

  it("refreshes the token of an earlier sign-in", async () => {
    const client = new Client(app, stored.client);
    const response = await client.refresh(stored.tokens.refresh_token);
    expect(response.status).toBe(200);
    const { access_token, scope } = await response.json<Tokens>();
    expect(scope).toBe(stored.tokens.scope);
    expect(await whoIs(app, access_token)).toBe("owner");
  });

  it("signs in at an earlier client", async () => {
    const client = new Client(app, stored.client);
    const { code } = await approve(client);
    const response = await client.exchange(code);
    expect(response.status).toBe(200);
    expect(await whoIs(app, (await response.json<Tokens>()).access_token)).toBe("owner");
  });
});

describe("a database", () => {
  it.each(Object.entries(CONTENTS))("of %s has the documented tables", async (kind, { tables }) => {
    const created = Object.keys(await tablesOf(await stubOf(`${kind}.fresh`)));
    // This table belongs to the SDK.
    expect(created.filter((name) => name !== "container_schedules").toSorted()).toEqual(
      Object.keys(tables).toSorted(),
    );
  });

  it.each(Object.entries(MIGRATIONS))(
    "of %s keeps every field of every table in each migration",
    async (_kind, migrations) => {
      const stub = await stubOf("Attempts.fields");
      await runInDurableObject(stub, async (_actor, { storage }) => {
        for (const index of migrations.keys()) {
          await storage.deleteAll();
          migrate(storage, migrations.slice(0, index + 1));
          const stored = fillTables(storage.sql);
          migrate(storage, migrations);
          const kept = new Set(
            namesOfTables(storage.sql).flatMap((table) =>
              storage.sql.exec(`SELECT * FROM "${table}"`).toArray().flatMap(Object.values),
            ),
          );
          expect([...stored].filter(([, value]) => !kept.has(value))).toEqual([]);
        }
        await storage.deleteAll();
      });
    },
  );

  // The rows of the first version pass through every migration, and the test above starts at each version between.
  it.each(Object.entries(MIGRATIONS))(
    "of %s has fixtures of its first and last versions",
    (kind, migrations) => {
      const stored = VERSIONS.flatMap((version) => {
        const { keys } = JSON.parse(fileOf(version, "stored.json")) as Stored;
        return Object.entries(keys).flatMap(([actor, values]) =>
          actor.startsWith(`${kind}.`) ? [Number(values[VERSION_KEY] ?? 0)] : [],
        );
      });
      // If one is missing, make it: docs/internals/storage.md.
      expect(Math.min(...stored)).toBe(0);
      expect(Math.max(...stored)).toBeGreaterThanOrEqual(migrations.length - 1);
    },
  );

  it("that is upgraded counts the long logs and the artifacts of its runs", async () => {
    await runInDurableObject(await stubOf("Attempts.stored"), async (_actor, { storage }) => {
      await storage.deleteAll();
      migrate(storage, SANDBOX_MIGRATIONS.slice(0, 4));
      const artifacts = JSON.stringify({ artifacts: [{ size: 5 }, { size: 6 }] });
      const rows: [id: string, kind: string, logBytes: number, detail: string | null][] = [
        ["short", "command", 65_536, null],
        ["long", "command", 65_537, '{"cwd":"/"}'],
        ["small", "task", 10, artifacts],
        ["large", "task", 70_000, artifacts],
        ["begun", "task", 0, null],
      ];
      for (const row of rows)
        storage.sql.exec(
          `INSERT INTO runs VALUES (?1, ?2, 'succeeded', '', 0, 1, 0, NULL, ?4, NULL, 0, x'', x'', 0, x'', x'', ?3, 0, NULL)`,
          ...row,
        );
      migrate(storage, SANDBOX_MIGRATIONS);
      const store = new RunStore(storage.sql);
      const bytes = 65_537 + 11 + 70_011;
      expect(store.measureStored().bytes).toBe(bytes + storage.sql.databaseSize);
      // The next write of a run counts the same bytes.
      const runs = rows.flatMap(([id]) => store.get(id) ?? []);
      expect(runs).toHaveLength(rows.length);
      for (const run of runs) store.put(run);
      expect(store.measureStored().bytes).toBe(bytes + storage.sql.databaseSize);
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

  it("has migrations that never change after their release", async () => {
    const hashes = Object.entries(MIGRATIONS).flatMap(([kind, migrations]) =>
      migrations.map(async ({ name, sql }) => `${kind}: ${name}: ${await sha256(sql.replace(/\s+/g, " "))}`),
    );
    // If you changed a line, existing databases lack that change: add a migration instead, and its line here.
    expect(await Promise.all(hashes)).toMatchInlineSnapshot(`
      [
        "Sandbox: the tables of servers without versions: fda1d46d18d67b385d67f8c408a8e204319305a9be34f48f36290fe7aa22efa1",
        "Sandbox: one row for a run with its source: b8182d6613f43893b408ad8474b72ae1e0135cc6c53cfe0d4f924c7667cd4a31",
        "Sandbox: the trace of a task: 35a964a9ad4f5b02f5a25269117546abae4c1c476094a61edc2c381078a8b27f",
        "Sandbox: indexes of only the unended and the large runs: 4ad0e37c6e5d1f7603572cfed9b1912c9725013df14d4b7ec669bf42e0d603b5",
        "Sandbox: the bytes of each run outside the database, and a table of large details: a5253e439aac5d847a31acdd0a497adf30a435b8beb91618bcd5872c7df1ce06",
        "Account: the tables of servers without versions: a04ffca5bb8ed3767cca625ab5780c170a0360e8815e4db9dd6236db7c03a89e",
        "Account: one row for a sandbox's settings, one for a day's use, and null for an unknown size: 5ab1748f1d88e5f1c5e30d023c8029fb961defb36d718607adaaaad72fb2dc56",
        "Account: git hosts that the principal has signed in to: 3a8abc9ac8a4f05ca7cf57781097748f7bb33564aee4a38ed0a68e80ba1d6a68",
        "Account: indexes of references and of the oldest results, and settings of checkpoints with rowids: 439c2603cf368c2a4b449d4430b7c95c63cb6912786e2495fc23fe527ca4fef7",
        "Attempts: the tables of servers without versions: bc274f268120e6059c62481d888841229b29bc1089fc1b6b67193ef402b56212",
        "Attempts: the address that registered a client: b3edb22e6d3a90ee5460904910c98ce41531dac66459e156dc7185822b4d6e26",
      ]
    `);
  });
});
