/** Lists of runs in sandboxes that have many. */
import { afterAll, expect, it } from "vitest";
import { HeadAndTail } from "../../../src/runs/head-and-tail.ts";
import { type RunRecord, RunStore } from "../../../src/runs/run-store.ts";
import { type Caller, principal, runInActor } from "../support.ts";

const sandbox = "many-runs";
const RUNS = 100_000;

let caller: Caller;

afterAll(async () => {
  await caller.call("destroy_sandbox", { sandbox });
});

it("a search for runs of one kind finds them all", async () => {
  caller = await principal("many-runs");
  const owner = { principalID: caller.principalID, sandbox };
  await caller.call("list_runs", { sandbox });
  const found = await runInActor(
    sandbox,
    async (actor, { storage }) => {
      // Every ten thousandth run is a command.
      storage.sql.exec(
        `WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ${RUNS})
         INSERT INTO runs (id, kind, state, title, started_at, ended_at, out_bytes, out_head, out_tail, err_bytes, err_head,
           err_tail, log_bytes, dropped_bytes)
         SELECT printf('${sandbox}.%026d', number), iif(number % 10000 = 0, 'command', 'code'), 'succeeded', '', number, number,
           0, x'', x'', 0, x'', x'', 0, 0 FROM numbers`,
      );
      const listed = await actor.listRuns(owner, 200, undefined, "command");
      return listed.ok ? listed.value.map(({ startedAt }) => startedAt) : [];
    },
    caller,
  );
  expect(found).toEqual([10, 9, 8, 7, 6, 5, 4, 3, 2, 1].map((count) => count * 10_000));
  const { structured } = await caller.call("list_runs", { sandbox, kind: "command", limit: 3 });
  expect((structured.runs as { id: string }[]).map(({ id }) => Number(id.split(".")[1]))).toEqual([
    100_000, 90_000, 80_000,
  ]);
});

it("large results are not in the rows that a search for a run passes", async () => {
  const image = { image: "x".repeat(1_400_000), mimeType: "image/png", width: 1, height: 1 };
  const run: RunRecord = {
    id: "large.0",
    kind: "code",
    state: "succeeded",
    title: "",
    startedAt: 1,
    endedAt: 2,
    output: { stdout: new HeadAndTail(), stderr: new HeadAndTail() },
    logBytes: 0,
    droppedBytes: 0,
  };
  await runInActor("large", (_actor, { storage: { sql } }) => {
    const store = new RunStore(sql);
    const details = [{ results: [image] }, undefined, { results: [{ text: "1" }] }, { results: [image] }];
    for (const detail of details) {
      store.put({ ...run, detail });
      expect(store.get(run.id)?.detail).toEqual(detail);
      const query = "SELECT coalesce(octet_length(detail), 0) AS bytes FROM runs";
      expect(sql.exec(query).one().bytes).toBeLessThan(100_000);
    }
    store.delete(run.id);
    expect(sql.exec("SELECT * FROM run_details").toArray()).toEqual([]);
  });
});
