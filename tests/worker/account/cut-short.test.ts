/** The result text of a run that ended before its timeout because its principal used up the seconds of the day. */
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, test } from "vitest";
import { dayOf } from "../../../src/shared/days.ts";
import {
  accountOf,
  actorOf,
  type Caller,
  type Result,
  evictActor,
  principal,
  sleep,
  until,
  untilText,
} from "../support.ts";

const SCOPES = ["sandbox:exec", "sandbox:read", "sandbox:write", "tasks:run"] as const;

/** A principal with `left` seconds of the day. Its sandbox runs already, because a start would count. */
async function withSeconds(name: string, left: number): Promise<Caller> {
  const caller = await principal(name, SCOPES);
  await caller.call("write_file", { path: "here", content: "" });
  await runInDurableObject(accountOf(caller), (_account, { storage }) => {
    const day = dayOf(Date.now());
    for (const one of [day, day + 1])
      storage.sql.exec("INSERT INTO usage (day, run_seconds) VALUES (?, ?)", one, 86_400 - left);
  });
  return caller;
}

/** The expected words that are missing from a result, and the unexpected words in it. */
function mismatches({ text }: Result, seconds: number): RegExp[] {
  const expected = [
    /state: timed_out/,
    /your 86400 run seconds for today/,
    new RegExp(`This run got only ${seconds} s: other runs`),
    /The next day begins at \d{4}-\d\d-\d\dT00:00:00\.000Z/,
  ];
  const unexpected = [/too long|did not finish|timeout_seconds/];
  return [...expected.filter((one) => !one.test(text)), ...unexpected.filter((one) => one.test(text))];
}

// The tests can run together: each has its own principal.
describe.concurrent("the result of a run that ended early", () => {
  test.each([
    [
      "code",
      "run_code",
      { code: "import time; time.sleep(60)", timeout_seconds: 60 },
      // A kernel has to start within this time, on a busy machine too.
      15,
      "imports are kept.",
    ],
    ["a task", "execute_task", { task: "[[wait]] x", timeout_seconds: 600, sandbox: "cut" }, 6, ""],
  ])("names the day's limit for %s", async (what, tool, args, seconds, words) => {
    const caller = await withSeconds(`cut-${what.replace(" ", "-")}`, seconds);
    const result = await caller.call(tool, args);
    expect(mismatches(result, seconds), result.text).toEqual([]);
    expect(result.text).toContain(words);
  });

  test("names the day's limit for a command, also if an earlier actor started it", async () => {
    const caller = await withSeconds("cut-evicted", 10);
    const args = { command: "echo begun; sleep 60", timeout_seconds: 60, wait_seconds: 0 };
    const { structured } = await caller.call("run_command", args);
    const shown = async () => (await caller.call("get_result", { id: structured.id, wait_seconds: 0 })).text;
    // The next actor does not start a command that waits.
    await untilText(shown, "begun");
    await evictActor(await actorOf("default", caller));
    const result = await caller.call("get_result", { id: structured.id });
    expect(mismatches(result, 10), result.text).toEqual([]);
    expect(result.text).toContain("all its known processes");
  });
});

test("a run costs the seconds from its start to its end, and not its wait for earlier runs of its session", async () => {
  const caller = await withSeconds("cut-waiting", 200);
  const sandbox = "default";
  const run = (command: string) =>
    caller.call("run_command", { sandbox, command, timeout_seconds: 20, wait_seconds: 40 });
  const startedAt = Date.now();
  const first = run("sleep 6");
  await until(async () => (await caller.call("list_runs", { sandbox })).text.includes("sleep 6"));
  const waiting = ["1", "2", "3"].map((number) => run(`echo ${number}`));
  const withdrawn = await caller.call("run_command", {
    sandbox,
    command: "echo no",
    timeout_seconds: 20,
    wait_seconds: 0,
  });
  await sleep(2000);
  expect((await caller.call("cancel_run", { id: withdrawn.structured.id })).text).toContain("Cancelled");
  for (const result of [await first, ...(await Promise.all(waiting))])
    expect(result.structured.state).toBe("succeeded");
  const passed = Math.ceil((Date.now() - startedAt) / 1000);
  // The sandbox then reports all seconds that it has used.
  await caller.call("destroy_sandbox", { sandbox });
  const used = await runInDurableObject(accountOf(caller), (_account, { storage }) => {
    const query = "SELECT max(run_seconds) AS most FROM usage";
    return storage.sql.exec<{ most: number }>(query).one().most - (86_400 - 200);
  });
  expect(used).toBeGreaterThanOrEqual(6);
  // Each of the three short runs costs one second at least.
  expect(used).toBeLessThanOrEqual(passed + 3);
});
