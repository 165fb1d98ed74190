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
