import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import { accountOf, actorOf, evict, runInActor, owner, sh, sleep, sandboxesOf, until } from "../support.ts";

const HOUR = 3_600_000;

/** The owner's running sandboxes. A sandbox that the reaper destroys stays listed while its workspace is saved. */
async function listRunning(names: readonly string[]): Promise<string[]> {
  const up = new Set(
    (await sandboxesOf()).filter(({ state }) => state === "running").map(({ name }) => name),
  );
  return names.filter((name) => up.has(name));
}

/** Moves the last use of the sandbox in the account back, and evicts the sandbox's actor. */
async function age(name: string, hours: number): Promise<void> {
  await evict(name);
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    const at = Date.now() - hours * HOUR;
    storage.sql.exec("UPDATE sandboxes SET last_used_at = ? WHERE name = ?", at, name);
  });
}

async function lastUse(sandbox: string): Promise<number> {
  return Date.parse((await sandboxesOf()).find(({ name }) => name === sandbox)?.last_used_at ?? "");
}

test("the reaper destroys only sandboxes that were idle for too long, and continues after a failure", async () => {
  const names = ["old", "young", "busy", "stuck"];
  await Promise.all(names.map((name) => sh(name, "echo here > file")));
  await owner.call("run_command", { sandbox: "busy", command: "sleep 60", wait_seconds: 0 });
  // The default is 168 hours.
  await Promise.all(["old", "busy", "stuck"].map((name) => age(name, 169)));
  await age("young", 167);
  await runInActor("stuck", (actor) => {
    actor.destroyIfIdle = async () => {
      throw new Error("cannot be destroyed now");
    };
  });
  expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  expect(await listRunning(names)).toEqual(["young", "busy", "stuck"]);
  // The reaper continues with the other sandboxes.
  await evict("stuck");
  expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  expect(await listRunning(names)).toEqual(["young", "busy"]);
  expect(await sh("young", "cat file")).toBe("here\n");
  // Its saved workspace has a separate expiry.
  expect(await sh("old", "cat file")).toBe("here\n");
});

test("the reaper deletes expired states before it waits for a sandbox", async () => {
  await sh("slow-end", "echo here > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox: "slow-end" })).structured;
  await age("slow-end", 169);
  const [begun, responds] = [Promise.withResolvers<void>(), Promise.withResolvers<boolean>()];
  await runInActor("slow-end", (actor) => {
    const prototype: Sandbox = Object.getPrototypeOf(actor);
    vi.spyOn(prototype, "destroyIfIdle").mockImplementationOnce(() => {
      begun.resolve();
      return responds.promise;
    });
  });
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    storage.sql.exec("UPDATE checkpoints SET expires_at = 0 WHERE id = ?", checkpoint);
  });
  const reaped = runDurableObjectAlarm(accountOf(owner));
  await begun.promise;
  const { checkpoints } = await accountOf(owner).view();
  responds.resolve(false);
  await reaped;
  expect(checkpoints.map(({ id }) => id)).not.toContain(checkpoint);
});

test("the reaper asks no further sandbox after the time that an alarm has for them", async () => {
  const idle = ["old", "slow-end"];
  await Promise.all(idle.map((name) => sh(name, "true")));
  for (const name of idle) await age(name, 169);
  const asked: string[] = [];
  const now = Date.now();
  await runInActor("slow-end", (actor) => {
    const prototype: Sandbox = Object.getPrototypeOf(actor);
    vi.spyOn(prototype, "destroyIfIdle").mockImplementation(async ({ sandbox }) => {
      asked.push(sandbox);
      vi.spyOn(Date, "now").mockReturnValue(now + 10 * 60_000);
      return false;
    });
  });
  await runDurableObjectAlarm(accountOf(owner)).finally(() => vi.restoreAllMocks());
  expect(asked).toHaveLength(1);
  expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  expect(await listRunning(idle)).toEqual([]);
});

test("the reaper keeps a sandbox that is used while the reaper works", async () => {
  const idle = ["old", "slow-end", "young"];
  await Promise.all(idle.map((name) => sh(name, "true")));
  for (const name of idle) await age(name, 169);
  const reaped = runDurableObjectAlarm(accountOf(owner));
  await sleep(30);
  await owner.call("write_file", { sandbox: "young", path: "precious", content: "here" });
  await reaped;
  expect(await listRunning(idle)).toEqual(["young"]);
  expect(await sh("young", "cat precious")).toBe("here");
});

test("the reaper keeps the files of a sandbox that ran until the clock jumped ahead", async () => {
  const sandbox = "young";
  await sh(sandbox, "echo here > file");
  await until(async () => (await accountOf(owner).workspace(sandbox)) !== undefined);
  const jumpMs = 40 * 24 * HOUR;
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + jumpMs });
  // The first alarm destroys the container.
  for (let alarm = 0; alarm < 2; alarm++) await runDurableObjectAlarm(accountOf(owner));
  expect(await listRunning([sandbox])).toEqual([]);
  expect(await sh(sandbox, "cat file")).toBe("here\n");
});

/** A sandbox with settings. Later tests use it too, because each start takes half a second of processor time. */
const configured = "only-configured";

test("the reaper keeps the settings of a sandbox that has no saved files", async () => {
  const sandbox = configured;
  await owner.call("configure_sandbox", { sandbox, internet: "none", env: { WORD: "w" } });
  await age(sandbox, 169);
  await runDurableObjectAlarm(accountOf(owner));
  expect((await sandboxesOf()).map(({ name }) => name)).not.toContain(sandbox);
  expect(await sh(sandbox, "echo $WORD")).toBe("w\n");
  const { structured } = await owner.call("configure_sandbox", { sandbox });
  expect(structured).toMatchObject({ internet: "none", variables: ["WORD"] });
});

test("a sandbox knows its last use, even if its account has an older time", async () => {
  const sandbox = "young";
  const isDestroyedAfter = async (hours: number) =>
    (await actorOf(sandbox)).destroyIfIdle({ principalID: owner.principalID, sandbox }, hours * HOUR);
  await sh(sandbox, "echo here > file");
  expect(await isDestroyedAfter(168)).toBe(false);
  expect(await sh(sandbox, "cat file")).toBe("here\n");
  expect(await listRunning([sandbox])).toEqual([sandbox]);
  await evict(sandbox);
  expect(await isDestroyedAfter(168)).toBe(true);
  expect(await listRunning([sandbox])).toEqual([]);
});

test("a sandbox that was just configured is not removed as idle", async () => {
  const sandbox = "configured";
  await owner.call("configure_sandbox", { sandbox, env: { WORD: "here" } });
  await age(sandbox, 169);
  // The account may have listed the sandbox as idle before this call.
  await owner.call("configure_sandbox", { sandbox, internet: "none" });
  const actor = await actorOf(sandbox);
  expect(await actor.destroyIfIdle({ principalID: owner.principalID, sandbox }, 168 * HOUR)).toBe(false);
  expect((await owner.call("configure_sandbox", { sandbox })).structured).toMatchObject({
    internet: "none",
    variables: ["WORD"],
  });
});

test("the end of a run is a use of its sandbox", async () => {
  await owner.call("run_command", { sandbox: configured, command: "sleep 100", wait_seconds: 0 });
  const { structured } = await owner.call("list_runs", { sandbox: configured, limit: 1 });
  const [run] = structured.runs as { id: string }[];
  const later = Date.now() + 3 * HOUR;
  vi.useFakeTimers({ toFake: ["Date"], now: later });
  await owner.call("cancel_run", { id: run?.id });
  await expect.poll(() => lastUse(configured)).toBeGreaterThanOrEqual(later);
});

test("the reaper no longer counts a fork that was never used, and keeps its files", async () => {
  const counted = () =>
    runInDurableObject(accountOf(owner), (_account, { storage }) =>
      storage.sql.exec("SELECT name FROM sandboxes WHERE name = 'unused'").toArray(),
    );
  await sh(configured, "echo here > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox: configured })).structured;
  await owner.call("restore_sandbox", { sandbox: "unused", checkpoint });
  expect(await counted()).toHaveLength(1);
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    storage.sql.exec("UPDATE sandboxes SET last_used_at = ? WHERE name = 'unused'", Date.now() - 169 * HOUR);
  });
  expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  expect(await counted()).toEqual([]);
  expect(await sh("unused", "cat file")).toBe("here\n");
});

test("a fork has no settings of an earlier sandbox of its name whose files have expired", async () => {
  const name = "again";
  const fork = (checkpoint: unknown) => owner.call("restore_sandbox", { sandbox: name, checkpoint });
  const makeCheckpoint = async (sandbox: string) => {
    await sh(sandbox, "echo here > file");
    return (await owner.call("checkpoint_sandbox", { sandbox })).structured.checkpoint;
  };
  await fork(await makeCheckpoint(configured));
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    storage.sql.exec("UPDATE sandboxes SET last_used_at = 0 WHERE name = ?", name);
  });
  const later = Date.now() + 169 * HOUR;
  vi.useFakeTimers({ toFake: ["Date"], now: later });
  try {
    expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  } finally {
    vi.useRealTimers();
  }
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    storage.sql.exec("UPDATE workspaces SET used_at = 0 WHERE sandbox = ?", name);
  });
  expect(await runDurableObjectAlarm(accountOf(owner))).toBe(true);
  expect((await fork(await makeCheckpoint("plain"))).isError).toBe(false);
  const { sandboxes } = (await owner.call("list_sandboxes")).structured;
  expect(sandboxes).toContainEqual(expect.objectContaining({ name, variables: [] }));
  expect((await owner.call("configure_sandbox", { sandbox: name })).structured).toMatchObject({
    internet: "full",
    variables: [],
  });
  expect(await sh(name, "cat file; echo $WORD")).toBe("here\n\n");
});
