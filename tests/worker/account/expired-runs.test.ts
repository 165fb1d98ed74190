/** Expired runs. The account has the sandboxes delete them, a few sandboxes at a time. */
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, it, vi } from "vitest";
import { RunRecords } from "../../../src/actors/run-records.ts";
import { SandboxRegistry } from "../../../src/actors/sandbox-registry.ts";
import { StoredRuns } from "../../../src/actors/stored-runs.ts";
import type { Stored } from "../../../src/runs/run-store.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { accountOf, actorOf, type Caller, evictActor, principal, runInActor, until } from "../support.ts";

const storedIn = (caller: Caller) =>
  runInDurableObject(accountOf(caller), (_account, { storage }) =>
    storage.sql.exec("SELECT sandbox FROM storage").toArray(),
  );

/** Lets the account do what is due after 31 days. */
async function expire(caller: Caller): Promise<void> {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 31 * DAY_MS });
  try {
    expect(await runDurableObjectAlarm(accountOf(caller))).toBe(true);
  } finally {
    vi.useRealTimers();
  }
}

it("are deleted although the sandbox has no alarm, and its actor did not report them before it ended", async () => {
  const caller = await principal("expired-runs");
  const sandbox = "expired";
  const id = String((await caller.call("run_command", { sandbox, command: "echo here" })).structured.id);
  await until(async () => (await storedIn(caller)).length === 1);
  await caller.call("destroy_sandbox", { sandbox });
  await until(() => runInActor(sandbox, async (_, { storage }) => !(await storage.getAlarm()), caller));
  await runInDurableObject(accountOf(caller), async (_account, { storage }) => {
    storage.sql.exec("DELETE FROM storage");
    await storage.deleteAlarm();
  });
  await evictActor(await actorOf(sandbox, caller));
  expect((await caller.call("get_result", { id })).text).toContain("here");
  await until(async () => (await storedIn(caller)).length === 1);
  await expire(caller);
  expect((await caller.call("get_result", { id })).text).toContain("There is no run");
  expect(await storedIn(caller)).toEqual([]);
});

it("are deleted although their sandbox was destroyed, and no actor has reported them", async () => {
  const caller = await principal("unreported-runs");
  const sandbox = "unreported";
  const id = String((await caller.call("run_command", { sandbox, command: "echo here" })).structured.id);
  await caller.call("destroy_sandbox", { sandbox });
  await evictActor(await actorOf(sandbox, caller));
  await expire(caller);
  expect((await caller.call("get_result", { id })).text).toContain("There is no run");
});

it("are deleted in few sandboxes at a time, and a sandbox that fails does not prevent the others", async () => {
  await runInDurableObject(
    accountOf(await principal("many-expired")),
    async (_account, { storage: { sql } }) => {
      const sandboxes = new SandboxRegistry(sql);
      const now = Date.now();
      const [oldest, young] = [now - 31 * DAY_MS, now - 29 * DAY_MS];
      for (let n = 0; n < 500; n++) sandboxes.putStored(`s${n}`, { bytes: 1, oldest: oldest + n });
      sandboxes.putStored("young", { bytes: 1, oldest: young });
      let asked: string[] = [];
      const actor = async (_principalID: string, sandbox: string) => ({
        evictRuns: async () => {
          asked.push(sandbox);
          if (sandbox === "s1") throw new Error("R2 is not there");
          return { bytes: 0 };
        },
      });
      const limits = { storageBytes: 1 };
      const runs = new StoredRuns({ sandboxes, limits, keepMs: 30 * DAY_MS, actor: actor as never });
      expect(runs.nextExpiry).toBe(now - DAY_MS);
      const portions: string[][] = [];
      for (let n = 0; n < 4; n++) {
        await runs.expire("p");
        portions.push(asked);
        asked = [];
      }
      expect(portions.map(({ length }) => length)).toEqual([200, 200, 102, 1]);
      expect(portions.map(([first]) => first)).toEqual(["s0", "s1", "s1", "s1"]);
      expect(portions.flat()).not.toContain("young");
    },
  );
});

it("a run that stores as much as an expired one is reported to the account", async () => {
  vi.useFakeTimers();
  let stored: Stored = { bytes: 10 };
  const reports: Stored[] = [];
  const records = new RunRecords({
    connection: { send: vi.fn<never>() },
    runs: { hasStored: false, hasActive: false, isFull: false, measureStored: () => stored },
    platform: { isRunning: false },
    reportStored: async (report) => (reports.push(report), false),
    background: () => undefined,
  });
  for (const oldest of [1, 1, 2]) {
    stored = { bytes: 10, oldest };
    records.onRunsChange();
    await vi.advanceTimersByTimeAsync(5000);
  }
  expect(reports.map(({ oldest }) => oldest)).toEqual([1, 2]);
});
