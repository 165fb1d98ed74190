/** The quota of a principal: parallel calls, and all ways in which runs end. */
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { actorOf, type Caller, evictActor, principal, sandboxesOf, setLimits, until } from "../support.ts";

const RUNS = 10;
/** Few, because each sandbox takes 0.4 s of processor time. */
const SANDBOXES = 2;
/** The number of parallel calls. */
const CALLS = 50;

const names = Array.from({ length: SANDBOXES }, (_, index) => `q${index}`);

/** Starts `count` commands in parallel in several sandboxes. They run until they are stopped. */
function startAtOnce(caller: Caller, count: number, sandboxes: readonly string[]) {
  return Promise.all(
    Array.from({ length: count }, (_, index) =>
      caller.call("run_command", {
        command: "sleep 100",
        session: `s${index}`,
        sandbox: sandboxes[index % sandboxes.length],
        timeout_seconds: 120,
        wait_seconds: 0,
      }),
    ),
  );
}

async function listRunning(caller: Caller, sandboxes: readonly string[]): Promise<string[]> {
  const lists = await Promise.all(
    sandboxes.map((sandbox) => caller.call("list_runs", { sandbox, limit: 200 })),
  );
  return lists
    .flatMap(({ structured }) => structured.runs as { id: string; state: string }[])
    .filter(({ state }) => state === "running")
    .map(({ id }) => id);
}

describe("a principal's quota for parallel use", () => {
  beforeAll(() => setLimits({ concurrentRuns: RUNS, sandboxes: SANDBOXES }));

  it("limits the runs of parallel calls over many sandboxes, also after these runs have ended", async () => {
    const caller = await principal("many");
    for (let round = 0; round < 2; round++) {
      const answers = await startAtOnce(caller, CALLS, names);
      const refused = answers.filter(({ isError }) => isError);
      for (const { text } of refused)
        expect(text).toMatch(/You have \d+ runs at once, and your limit is 10\..*cancel_run/);
      const ids = await listRunning(caller, names);
      expect(ids).toHaveLength(RUNS);
      expect(refused).toHaveLength(CALLS - RUNS);
      await Promise.all(ids.map((id) => caller.call("cancel_run", { id })));
    }
    // Sandboxes that are destroyed and made again do not allow more.
    for (const sandbox of names) await caller.call("destroy_sandbox", { sandbox });
    await startAtOnce(caller, CALLS, names);
    expect(await listRunning(caller, names)).toHaveLength(RUNS);
  });

  it("is released by runs that ended, failed, timed out or were cancelled, killed or refused", async () => {
    const caller = await principal("ends");
    const [a = "", b = ""] = names;
    const endInEveryWay = async (sandbox: string, session: string) => {
      const run = (command: string, more = {}) =>
        caller.call("run_command", { sandbox, session, command, timeout_seconds: 20, ...more });
      await run("true");
      await run("exit 3");
      await run("sleep 5", { timeout_seconds: 1 });
      await run("true", { cwd: "/nowhere" });
      await run("kill -9 $$");
      const cut = await run("sleep 50", { wait_seconds: 0 });
      await caller.call("cancel_run", { id: cut.structured.id });
    };
    await Promise.all([
      endInEveryWay(a, "one"),
      endInEveryWay(a, "two"),
      endInEveryWay(b, "one"),
      endInEveryWay(b, "two"),
    ]);
    for (const [code, timeout_seconds] of [
      ["1/0", 20],
      ["import os; os._exit(1)", 20],
      ["while True: pass", 1],
    ] as const)
      await caller.call("run_code", { sandbox: a, code, timeout_seconds });
    expect(await listRunning(caller, [a, b])).toEqual([]);
    await startAtOnce(caller, RUNS + 5, [a]);
    const ids = await listRunning(caller, [a]);
    expect(ids).toHaveLength(RUNS);
    await Promise.all(ids.map((id) => caller.call("cancel_run", { id })));
    await startAtOnce(caller, RUNS + 5, [b]);
    expect(await listRunning(caller, [b])).toHaveLength(RUNS);
    // The runs end with their sandbox, and the other sandbox gets their slots.
    await caller.call("destroy_sandbox", { sandbox: b });
    await startAtOnce(caller, RUNS + 5, [a]);
    expect(await listRunning(caller, [a])).toHaveLength(RUNS);
  });

  it("limits the sandboxes of parallel calls, and the refusal says how to free one", async () => {
    const caller = await principal("sandboxes");
    const answers = await Promise.all(
      Array.from({ length: CALLS }, (_, index) =>
        caller.call("list_files", { path: ".", sandbox: `n${index}` }),
      ),
    );
    const refused = answers.filter(({ isError }) => isError);
    expect(refused).toHaveLength(CALLS - SANDBOXES);
    for (const { text } of refused)
      expect(text).toMatch(/You have 2 sandboxes, and your limit is 2\..*destroy_sandbox/);
    const kept = await sandboxesOf(caller);
    expect(kept).toHaveLength(SANDBOXES);
    await caller.call("destroy_sandbox", { sandbox: kept[0]?.name });
    expect((await caller.call("list_files", { path: ".", sandbox: "one-more" })).isError).toBe(false);
  });
});

it("the day's run seconds include those of a destroyed sandbox, and of an actor that was evicted before its report", async () => {
  const SECONDS = 10;
  const RUN_SECONDS = 2;
  onTestFinished(await setLimits({ runSecondsPerDay: SECONDS }));
  const caller = await principal("seconds");
  const spendSeconds = (sandbox: string) =>
    caller.call("run_command", {
      sandbox,
      command: `sleep ${RUN_SECONDS}`,
      timeout_seconds: RUN_SECONDS + 1,
      wait_seconds: 50,
    });
  const usedSeconds = async () =>
    Number((await caller.call("list_sandboxes", {})).structured.run_seconds_today);
  expect((await spendSeconds("first")).isError).toBe(false);
  await caller.call("destroy_sandbox", { sandbox: "first" });
  expect(await usedSeconds()).toBeGreaterThanOrEqual(RUN_SECONDS);
  expect((await spendSeconds("second")).isError).toBe(false);
  await evictActor(await actorOf("second", caller));
  await caller.call("list_runs", { sandbox: "second" });
  await until(async () => (await usedSeconds()) >= 2 * RUN_SECONDS);
  const answers = [];
  for (let index = 0; index < 5; index++) answers.push(await spendSeconds("second"));
  // At most the seconds of three runs remain, and the last run may get less time.
  const refused = answers.filter(({ isError }) => isError);
  expect(refused.length).toBeGreaterThanOrEqual(2);
  for (const { text } of refused) expect(text).toContain(`of ${SECONDS} run seconds today`);
});
