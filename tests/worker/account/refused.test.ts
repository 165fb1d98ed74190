import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test, vi } from "vitest";
import { callSandbox } from "../../../src/actors/sandbox-client.ts";
import type { Account, Sandbox } from "../../../src/index.ts";
import { accountOf, actorOf, type Caller, principal, sandboxesOf } from "../support.ts";

async function listNames(caller: Caller): Promise<string[]> {
  return (await sandboxesOf(caller)).map(({ name }) => name).sort();
}

/** Makes another sandbox of the principal occupy all run slots. */
function occupyAllSlots(caller: Caller): Promise<void> {
  return runInDurableObject(accountOf(caller), (_account, { storage }) => {
    const until = Date.now() + 300_000;
    storage.sql.exec("INSERT INTO leases VALUES ('other', 50, 0, ?, ?)", until, Number.MAX_SAFE_INTEGER);
  });
}

/** Makes the next start of the sandbox's container fail. */
function breakContainer(actor: DurableObjectStub<Sandbox>): Promise<void> {
  return runInDurableObject(actor, (_actor, { container }) => {
    if (!container) throw new Error("no container");
    container.start = () => {
      throw new Error("no machine");
    };
  });
}

test("a call that is refused because all run slots are in use creates no sandbox", async () => {
  const caller = await principal("busy", ["sandbox:exec", "sandbox:read", "sandbox:write", "tasks:run"]);
  await caller.call("list_files", { sandbox: "there" });
  await occupyAllSlots(caller);
  for (const wait_seconds of [0, 5]) {
    const result = await caller.call("run_command", { sandbox: "fresh", command: "true", wait_seconds });
    expect(result.text).toContain("50 runs at once");
    expect(await listNames(caller)).toEqual(["there"]);
  }
  await caller.call("run_code", { sandbox: "fresh", code: "1" });
  const task = await caller.http("/execute", { method: "POST", body: JSON.stringify({ task: "x" }) });
  expect(task.status).toBe(429);
  expect(await listNames(caller)).toEqual(["there"]);
  await Promise.all([1, 2, 3, 4].map(() => caller.call("run_command", { sandbox: "many", command: "true" })));
  expect(await listNames(caller)).toEqual(["there"]);
});

test("a refused call keeps the sandbox that another call made at the same time", async () => {
  const caller = await principal("beside");
  await occupyAllSlots(caller);
  const [refused, written] = await Promise.all([
    caller.call("run_command", { sandbox: "shared", command: "true" }),
    caller.call("write_file", { sandbox: "shared", path: "x", content: "x" }),
  ]);
  expect([refused.isError, written.isError]).toEqual([true, false]);
  expect(await listNames(caller)).toEqual(["shared"]);
  await caller.call("run_command", { sandbox: "shared", command: "true" });
  expect(await listNames(caller)).toEqual(["shared"]);
});

test("a call creates no sandbox if the container does not start, whether or not the call waits for its run", async () => {
  const caller = await principal("unlucky");
  const calls: [string, Record<string, unknown>][] = [
    ["list_files", {}],
    ["run_command", { command: "true" }],
    ["run_command", { command: "true", wait_seconds: 0 }],
    ["run_code", { code: "1" }],
  ];
  for (const [tool, args] of calls) {
    await breakContainer(await actorOf("broken", caller));
    await caller.call(tool, { sandbox: "broken", ...args });
    await expect.poll(() => listNames(caller)).toEqual([]);
  }
});

test("a refused first call keeps the settings that another call made at the same time", async () => {
  const caller = await principal("configuring");
  const sandbox = "configured";
  await occupyAllSlots(caller);
  const [asked, configured] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const lease = await runInDurableObject(accountOf(caller), (account) => {
    const prototype: Account = Object.getPrototypeOf(account);
    const original = prototype.lease;
    return vi.spyOn(prototype, "lease").mockImplementation(async function (this: Account, ...request) {
      asked.resolve();
      await configured.promise;
      return await original.apply(this, request);
    });
  });
  const refused = caller.call("run_command", { sandbox, command: "true" });
  await asked.promise;
  await caller.call("configure_sandbox", { sandbox, internet: "none", env: { WORD: "w" } });
  configured.resolve();
  expect((await refused).isError).toBe(true);
  lease.mockRestore();
  await caller.call("write_file", { sandbox, path: "x", content: "x" });
  const { structured } = await caller.call("configure_sandbox", { sandbox });
  expect(structured).toMatchObject({ internet: "none", variables: ["WORD"] });
  expect(await listNames(caller)).toEqual([sandbox]);
});

test("a refused call does not start a stopped sandbox", async () => {
  const caller = await principal("sleeper");
  await caller.call("list_files", { sandbox: "asleep" });
  const state = async () => (await caller.call("list_sandboxes")).text.split(",")[0];
  await runInDurableObject(await actorOf("asleep", caller), async (actor) => actor.stop());
  await expect.poll(state).toBe("asleep: stopped");
  await occupyAllSlots(caller);
  expect((await caller.call("run_code", { sandbox: "asleep", code: "1" })).isError).toBe(true);
  expect(await state()).toBe("asleep: stopped");
});

test("the seconds of earlier runs are counted even if the next container does not start", async () => {
  const caller = await principal("spender");
  await caller.call("run_command", { sandbox: "spent", command: "sleep 2" });
  const actor = await actorOf("spent", caller);
  await runInDurableObject(actor, async (sandbox) => sandbox.stop());
  await expect.poll(async () => (await caller.call("list_sandboxes")).text).toContain("spent: stopped");
  await breakContainer(actor);
  expect((await caller.call("list_files", { sandbox: "spent" })).isError).toBe(true);
  await caller.call("destroy_sandbox", { sandbox: "spent" });
  const { run_seconds_today } = (await caller.call("list_sandboxes")).structured;
  expect(run_seconds_today).toBeGreaterThanOrEqual(2);
});

test("a call whose database is damaged says so, and not that the server restarted", async () => {
  const error = Object.assign(new Error("database disk image is malformed: SQLITE_CORRUPT"), {
    durableObjectReset: true,
  });
  const call = callSandbox(env, { principalID: "damaged", sandbox: "a", region: undefined }, () =>
    Promise.reject(error),
  );
  await expect(call).rejects.toThrow("(database disk image is malformed: SQLITE_CORRUPT)");
});
