import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import * as fc from "../../setup/chance.ts";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { type ObjectFolderEnv, withObjectFolder } from "../../../local/platform/object-folder.ts";
import { HeadAndTail } from "../../../src/runs/head-and-tail.ts";
import { type RunRecord, RunStore } from "../../../src/runs/run-store.ts";
import { principalHash } from "../../../src/shared/names.ts";
import {
  accountOf,
  actorOf,
  bucket,
  type Caller,
  idIn,
  principal,
  setLimits,
  sizeOf,
  until,
} from "../support.ts";
import { deleteBelow, objectStore } from "../../../src/storage/object-store.ts";
import { queriesOf } from "../queries.ts";

const MiB = 1024 * 1024;

const LIMIT = 3 * MiB;

/** The fields of an ended run. */
const ENDED = {
  kind: "command",
  state: "succeeded",
  title: "true",
  startedAt: 1,
  endedAt: 2,
  output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
  droppedBytes: 0,
} as const;

describe("the storage of a principal", () => {
  let caller: Caller;
  const used = async () => (await accountOf(caller).view()).storedBytes;
  /** Starts a run that prints this number of bytes, and returns its id. */
  async function print(sandbox: string, bytes: number): Promise<string> {
    const command = `head -c ${bytes} /dev/zero | tr '\\0' x`;
    const { structured } = await caller.call("run_command", { sandbox, command });
    return String(structured.id);
  }
  /** The used bytes of a sandbox's database. */
  const databaseSize = async (sandbox: string) =>
    runInDurableObject(await actorOf(sandbox, caller), (_sandbox, { storage }) => storage.sql.databaseSize);
  const isThere = async (id: string) => !(await caller.call("get_result", { id })).isError;

  beforeAll(async () => {
    caller = await principal("storage");
    return setLimits({ storageBytes: LIMIT });
  });

  it("is counted, and shown in list_sandboxes", async () => {
    await print("one", 1_200_000);
    await until(async () => (await used()) > 1_200_000);
    // The size of a sandbox's database counts too.
    const limit = 1_200_000 + (await databaseSize("one"));
    await until(async () => (await used()) === limit);
    const { text, structured } = await caller.call("list_sandboxes");
    expect(text).toMatch(/ 1\.\d\/3 MB of results/);
    expect(structured).toMatchObject({ storage_bytes: await used(), max_storage_bytes: LIMIT });
  });

  it("loses the oldest results of any sandbox when it is full", async () => {
    const second = await print("two", 1_200_000);
    await caller.call("destroy_sandbox", { sandbox: "two" });
    const third = await print("one", 1_200_000);
    await until(
      async () => (await caller.call("list_runs", { sandbox: "one" })).text.split("\n").length === 1,
    );
    expect(await isThere(second)).toBe(true);
    const fourth = await print("three", 1_200_000);
    await until(async () => !(await isThere(second)));
    expect(await isThere(third)).toBe(true);
    expect(await isThere(fourth)).toBe(true);
    expect(await used()).toBeLessThanOrEqual(LIMIT);
    const { keys } = await bucket.list(`${await principalHash(caller.principalID)}/`);
    const sizes = await Promise.all(keys.map(sizeOf));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    expect(bytes).toBeLessThanOrEqual(LIMIT);
    expect(keys.some((key) => key.includes(second))).toBe(false);
  });

  it("loses no more results than needed if sandboxes report at the same time", async () => {
    const full = await principal("reporting");
    const { principalID } = full;
    await full.call("list_runs", { sandbox: "full" });
    const actor = await actorOf("full", full);
    const stored = await runInDurableObject(actor, (_sandbox, { storage: { sql } }) => {
      const store = new RunStore(sql);
      for (let n = 0; n < 10; n++)
        store.put({ ...ENDED, id: `full.${String(n).padStart(26, "0")}`, logBytes: 350_000 });
      return store.measureStored();
    });
    // Two of these runs are too many.
    expect(stored.bytes - LIMIT).toBeGreaterThan(350_000);
    const reports = ["full", "a", "b", "c"].map((sandbox) =>
      accountOf(full).sandboxStored({ principalID, sandbox }, sandbox === "full" ? stored : { bytes: 1 }),
    );
    await Promise.all(reports);
    const left = await runInDurableObject(actor, (_sandbox, { storage: { sql } }) =>
      sql.exec("SELECT id FROM runs").toArray(),
    );
    expect(left).toHaveLength(8);
  });

  it("holds output in R2 and not in the sandbox's database, however much output runs print at once", async () => {
    const sandbox = "much";
    await caller.call("run_command", { sandbox, command: "true" });
    const sizes: number[] = [];
    const measuring = await runInDurableObject(await actorOf(sandbox, caller), (_sandbox, { storage }) =>
      setInterval(() => sizes.push(storage.sql.databaseSize), 2),
    );
    const runs = Array.from({ length: 6 }, (_, index) =>
      caller.call("run_command", {
        sandbox,
        session: `s${index}`,
        command: "head -c 3000000 /dev/urandom | base64 -w0",
      }),
    );
    for (const { structured } of await Promise.all(runs))
      expect(structured).toMatchObject({ state: "succeeded", stdout_bytes: 4_000_000 });
    // Waits until the output is in R2 and no longer in the database.
    await until(async () => (await databaseSize(sandbox)) < MiB);
    clearInterval(measuring);
    expect(sizes.length).toBeGreaterThan(1);
    expect(Math.max(...sizes)).toBeLessThan(8 * MiB);
  });

  it("does not grow with the logs of runs when nothing can be deleted", async () => {
    const sandbox = "four";
    const command = "while sleep 0.1; do head -c 100000 /dev/zero | tr '\\0' x; done";
    const id = idIn(await caller.call("run_command", { sandbox, command, wait_seconds: 0 }));
    const run = async () => {
      const owner = { principalID: caller.principalID, sandbox };
      const result = await (await actorOf(sandbox, caller)).readRun(owner, { id, waitMs: 0 });
      if (!result.ok) throw new Error(result.failure.message);
      return result.value.run;
    };
    await until(async () => (await run()).droppedBytes > 0);
    // RUN_LOG_MAX_MB is 16 in these tests.
    expect((await run()).logBytes).toBeLessThan(12_000_000);
    await caller.call("cancel_run", { id });
  });
});

// A row has up to 64 KiB of output, so 3,000 of them took the thread 0.24 s.
it("is measured without reading the runs, and searched for runs of a kind without loading rows to compare their ids", async () => {
  const caller = await principal("measured");
  await runInDurableObject(await actorOf("default", caller), async (_sandbox, { storage }) => {
    const store = new RunStore(storage.sql);
    const runs = 5;
    for (let n = 0; n < runs; n++)
      store.put({ ...ENDED, id: `default.${n}`, startedAt: n, endedAt: n, logBytes: 70_000 });
    expect(store.measureStored().bytes).toBe(runs * 70_000 + storage.sql.databaseSize);
    const measured = await queriesOf(storage.sql, () => store.measureStored());
    expect(measured.plans).toContain("SCAN stored_bytes");
    expect(measured.rowsRead).toBeLessThanOrEqual(runs + 2);
    const searched = await queriesOf(storage.sql, () => store.list(100, undefined, "task"));
    const steps = new Set(searched.plans.filter((step) => step.includes(" runs ")));
    // With a bound at both ends, SQLite would load each row up to the second one.
    expect(steps).toEqual(new Set(["SEARCH runs USING PRIMARY KEY (id<?)"]));
    for (let n = 1; n < runs; n++) store.delete(`default.${n}`);
    expect(store.measureStored().bytes).toBe(70_000 + storage.sql.databaseSize);
  });
});

it("the stored bytes of runs are right after any operations, and details are kept exactly as long as their runs", async () => {
  const step = fc.record({
    run: fc.nat(4),
    isRemoved: fc.boolean(),
    printed: fc.constantFrom(0, 10, 65_536, 70_000, 3_000_000),
    artifacts: fc.array(fc.nat(1_000_000), { maxLength: 3 }),
    characters: fc.constantFrom(0, 100, 20_000),
  });
  const caller = await principal("recounted");
  await runInDurableObject(await actorOf("default", caller), async (_sandbox, { storage: { sql } }) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
        sql.exec("DELETE FROM runs; DELETE FROM stored_bytes; DELETE FROM run_details;");
        const expected = new Map<string, RunRecord>();
        for (const { run, isRemoved, printed, artifacts, characters } of steps) {
          // A new actor.
          const store = new RunStore(sql);
          const isTask = run > 2;
          const id = `default.${run}${isTask ? "t" : ""}`;
          const before = expected.get(id);
          if (isRemoved) {
            store.delete(id);
            expected.delete(id);
            continue;
          }
          const files = artifacts.map((size, n) => ({ path: `${n}${"x".repeat(characters)}`, size }));
          const kept = before?.detail && "artifacts" in before.detail ? before.detail.artifacts : [];
          const record: RunRecord = {
            id,
            kind: isTask ? "task" : "code",
            state: "running",
            title: "",
            startedAt: run,
            output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
            // Neither a log nor the list of a task's artifacts becomes shorter.
            logBytes: (before?.logBytes ?? 0) + printed,
            droppedBytes: 0,
            detail: (isTask
              ? { artifacts: [...kept, ...files] }
              : { results: [{ text: "x".repeat(characters) }] }) as RunRecord["detail"],
          };
          store.put(record);
          expected.set(id, record);
        }
        const store = new RunStore(sql);
        let bytes = 0;
        for (const { id, logBytes, detail } of expected.values()) {
          expect(store.get(id)).toMatchObject({ logBytes, detail });
          if (logBytes > 65_536) bytes += logBytes;
          if (detail && "artifacts" in detail) for (const { size } of detail.artifacts) bytes += size;
        }
        const stored = expected.size === 0 ? { bytes: 0 } : { bytes: bytes + sql.databaseSize };
        expect(store.measureStored()).toEqual(stored);
        for (const table of ["stored_bytes", "run_details"])
          expect(
            sql.exec(`SELECT run FROM ${table} WHERE run NOT IN (SELECT id FROM runs)`).toArray(),
          ).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });
});

describe("a disk that is almost full", () => {
  const GiB = 1024 ** 3;
  const bucketWith = (freeBytes: number, bytes: number) => {
    const disk = { fetch: async () => Response.json({ freeBytes, bytes }) };
    return objectStore(withObjectFolder({ ...(env as ObjectFolderEnv & typeof env), LOCAL_ENGINE: disk }));
  };
  const content = new Uint8Array(1000);

  it.each([
    ["2 GiB", 2 * GiB, 100 * GiB],
    ["a tenth of a small disk", GiB, 10 * GiB],
  ])("keeps %s free of saved files, because the databases need space", async (_what, reserved, bytes) => {
    const full = bucketWith(reserved + 999, bytes);
    for (const key of ["almost-full/x/pack.00000", "almost-full/x/manifest.00000"])
      await expect(full.put(key, content)).rejects.toThrow("almost full");
    // The rows of a log would stay in the database.
    await full.put("almost-full/log/1", content);
    await bucketWith(reserved + 1000, bytes).put("almost-full/x/pack.00000", content);
    await full.delete(["almost-full/log/1", "almost-full/x/pack.00000"]);
  });
});

it.each([404, 416, 500])(
  "an object that the folder refuses with status %i is not reported as stored",
  async (status) => {
    const folder = { fetch: async () => new Response(null, { status }) } as unknown as Fetcher;
    const local = env as ObjectFolderEnv & typeof env;
    const store = objectStore(withObjectFolder({ ...local, OBJECTS_FOLDER: folder }));
    await expect(store.put("refused/log/1", new Uint8Array(1))).rejects.toThrow(`status ${status}`);
  },
);

it("an object is on the disk, and not only in memory, when it counts as stored", async () => {
  const local = env as ObjectFolderEnv & typeof env;
  const requests: string[] = [];
  const note = (target: Pick<Fetcher, "fetch">) => ({
    async fetch(url: string, init?: RequestInit) {
      const response = await target.fetch(url, init);
      const { pathname } = new URL(url);
      requests.push(`${init?.method} ${pathname} ${pathname === "/sync" ? String(init?.body) : ""}`);
      return response;
    },
  });
  const noted = { OBJECTS_FOLDER: note(local.OBJECTS_FOLDER) as Fetcher, LOCAL_ENGINE: note(globalThis) };
  const store = objectStore(withObjectFolder({ ...local, ...noted }));
  await store.put("p/synced/log/1", new Uint8Array(1));
  expect(requests).toEqual(["PUT /p%2Csynced/log%2C1 ", 'POST /sync {"folder":"p,synced","file":"log,1"}']);
  await store.delete(["p/synced/log/1"]);
});

it("the object folder deletes the objects of a run without listing those of others", async () => {
  const local = env as ObjectFolderEnv & typeof env;
  let listed = 0;
  const folder = {
    async fetch(url: string, init?: RequestInit) {
      const response = await local.OBJECTS_FOLDER?.fetch(url, init);
      if (response?.headers.get("content-type")?.includes("json"))
        listed += (await response.clone().text()).length;
      return response;
    },
  } as unknown as Fetcher;
  const store = objectStore(withObjectFolder({ ...local, OBJECTS_FOLDER: folder }));
  const keys = (run: string, count: number) =>
    Array.from({ length: count }, (_, n) => `many/${run}/artifacts/${n}`);
  const others = keys("other", 300);
  const mine = keys("mine", 2);
  await Promise.all([...others, ...mine].map((key) => store.put(key, new Uint8Array(1))));
  await deleteBelow(store, "many/mine/");
  expect(listed).toBeLessThan(1000);
  expect((await store.list("many/")).keys.toSorted()).toEqual(others.toSorted());
  await store.delete(others);
  // No empty folder remains.
  const { keys: left } = await store.list("many/");
  expect(left).toEqual([]);
  expect((await folder.fetch(`http://folder/${encodeURIComponent("many,other")}`)).status).toBe(404);
});

// workerd looks for new requests only when nothing is ready. The deletion of 500 saved states blocked all of them for 8 s.
describe("other requests are served", () => {
  /** Counts the pauses of some work. There may be further ones, of work that earlier tests began. */
  async function pausesOf(work: () => Promise<unknown>): Promise<number> {
    const timeout = vi.spyOn(globalThis, "setTimeout");
    await work();
    const pauses = timeout.mock.calls.filter(([, ms]) => ms === 0).length;
    timeout.mockRestore();
    return pauses;
  }

  it("between two deletions of objects in the local folder", async () => {
    const store = objectStore(withObjectFolder(env as ObjectFolderEnv & typeof env));
    await store.put("pauses/a/pack.00000", new Uint8Array(1));
    expect(await pausesOf(() => deleteBelow(store, "pauses/a/"))).toBeGreaterThanOrEqual(2);
    expect(await pausesOf(() => deleteBelow(store, "pauses/missing/"))).toBeGreaterThanOrEqual(1);
  });

  it("between some of many objects that are deleted in the local folder", async () => {
    const store = objectStore(withObjectFolder(env as ObjectFolderEnv & typeof env));
    const keys = Array.from({ length: 40 }, (_, n) => `pauses/b/pack.${String(n).padStart(5, "0")}`);
    for (const key of keys) await store.put(key, new Uint8Array(1));
    expect(await pausesOf(() => store.delete(keys))).toBeGreaterThanOrEqual(10);
  });
});
