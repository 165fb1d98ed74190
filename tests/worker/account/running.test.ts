/** The limits of one principal: sandboxes, containers at once, and model tokens a day. */
import { env } from "cloudflare:workers";
import { runInDurableObject } from "cloudflare:test";
import { beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import type { Env } from "../../../src/shared/config.ts";
import { accountOf } from "../../../src/actors/account-of.ts";
import { AccountLink } from "../../../src/actors/account-link.ts";
import {
  type Caller,
  actorOf,
  evictActor,
  runInActor,
  principal,
  type Result,
  setLimits,
  until,
} from "../support.ts";

it("forks count as sandboxes: parallel ones do not exceed the limit, and can be used", async () => {
  onTestFinished(await setLimits({ sandboxes: 3 }));
  const caller = await principal("forks");
  await caller.call("run_command", { sandbox: "base", command: "echo kept > file" });
  const { checkpoint } = (await caller.call("checkpoint_sandbox", { sandbox: "base" })).structured;
  const fork = (sandbox: string) => caller.call("restore_sandbox", { sandbox, checkpoint });
  const results = await Promise.all(["f1", "f2", "f3", "f4", "f5"].map(fork));
  const refused = results.filter(({ isError }) => isError);
  expect(refused).toHaveLength(3);
  for (const { text } of refused) expect(text).toMatch(/You have 3 sandboxes, and your limit is 3\./);
  const made = results.findIndex(({ isError }) => !isError);
  const sandbox = `f${made + 1}`;
  const read = await caller.call("run_command", { sandbox, command: "cat file" });
  expect(read.structured.stdout).toBe("kept\n");
  await caller.call("destroy_sandbox", { sandbox });
  expect((await fork("f6")).isError).toBe(false);
});

describe("the containers of one principal", () => {
  let caller: Caller;
  let reader: Caller;
  const run = (sandbox: string, more = {}): Promise<Result> =>
    caller.call("run_command", { sandbox, command: "echo ran", ...more });
  /** Makes a sandbox look unused, by evicting its actor. */
  const forget = async (sandbox: string) => evictActor(await actorOf(sandbox, caller));
  const running = async () =>
    (await caller.call("list_sandboxes")).text.match(/^[\w-]+(?=: running)/gm)?.sort() ?? [];

  beforeAll(async () => {
    caller = await principal("running");
    reader = await principal("running", ["sandbox:read"]);
    return setLimits({ runningSandboxes: 2 });
  });

  it("are limited: the server refuses one more while the others are in use", async () => {
    for (const name of ["a", "b"]) expect((await run(name)).isError).toBe(false);
    const { isError, text } = await run("c");
    expect(isError).toBe(true);
    expect(text).toMatch(/2 running sandboxes, .* your limit is 2\b.*destroy_sandbox/);
    expect(await running()).toEqual(["a", "b"]);
    expect((await run("b")).text).toContain("ran");
    expect((await caller.call("list_sandboxes")).text).toContain("2/2 running");
  });

  it("are stopped to make room if they are unused, and the next call to the stopped sandbox gives this reason", async () => {
    await forget("a");
    expect((await run("c")).text).toContain("ran");
    expect(await running()).toEqual(["b", "c"]);
    await forget("b");
    const { text } = await run("a");
    expect(text).toContain("to make room for another of your sandboxes");
    expect(await running()).toEqual(["a", "c"]);
  });

  it("are stopped at once to make room for forks if their last use was the checkpoint of the forks", async () => {
    const forker = await principal("forker");
    const sh = (sandbox: string, command: string) => forker.call("run_command", { sandbox, command });
    await sh("base", "echo kept > file");
    const { checkpoint } = (await forker.call("checkpoint_sandbox", { sandbox: "base" })).structured;
    const forks = ["fork-1", "fork-2"];
    await Promise.all(forks.map((sandbox) => forker.call("restore_sandbox", { sandbox, checkpoint })));
    const results = await Promise.all(forks.map((sandbox) => sh(sandbox, "cat file")));
    expect(results.map(({ structured }) => structured.stdout)).toEqual(["kept\n", "kept\n"]);
    await forker.call("checkpoint_sandbox", { sandbox: "fork-1" });
    await sh("fork-1", "true");
    expect((await sh("base", "true")).text).toContain("your limit is 2");
  });

  it("are counted if they start again while the account waits for their stop", async () => {
    const again = await principal("again");
    const use = (sandbox: string) => again.call("run_command", { sandbox, command: "true" });
    for (const name of ["a", "b"]) expect((await use(name)).isError).toBe(false);
    const { mock, original } = await runInActor(
      "a",
      (actor) => {
        const prototype: Sandbox = Object.getPrototypeOf(actor);
        const stop = Reflect.get(prototype, "stopIfIdle") as Sandbox["stopIfIdle"];
        return { mock: vi.spyOn(prototype, "stopIfIdle"), original: stop };
      },
      again,
    );
    onTestFinished(() => mock.mockRestore());
    let isFirst = true;
    mock.mockImplementation(async function (this: Sandbox, owner, waitMs) {
      if (owner.principalID !== again.principalID) return await original.call(this, owner, waitMs);
      if (!isFirst) return false;
      isFirst = false;
      const account = accountOf(env as Env, again.principalID);
      await account.sandboxStopped(owner.sandbox);
      await account.registerSandbox(owner);
      return true;
    });
    expect((await use("c")).text).toContain("your limit is 2");
  });

  it("make room although the clock was set back since their last use", async () => {
    const early = await principal("early");
    const account = accountOf(env as Env, early.principalID);
    for (const sandbox of ["a", "b"])
      await account.registerSandbox({ principalID: early.principalID, sandbox });
    await runInDurableObject(account, (_account, { storage }) => {
      storage.sql.exec("UPDATE sandboxes SET last_used_at = last_used_at + 3600000");
    });
    const { text } = await early.call("run_command", { sandbox: "c", command: "echo ran" });
    expect(text).toContain("ran");
  });

  it("are not stopped to make room during a run, even if the actor was evicted", async () => {
    const { isError } = await run("a", { command: "touch begun; sleep 60", wait_seconds: 0 });
    expect(isError).toBe(false);
    const beganFile = { sandbox: "a", path: "/workspace/begun" };
    await until(async () => !(await caller.call("read_file", beganFile)).isError);
    await forget("a");
    await run("c");
    expect((await run("d")).isError).toBe(true);
    await forget("c");
    expect((await run("d")).isError).toBe(false);
    expect(await running()).toEqual(["a", "d"]);
    await caller.call("destroy_sandbox", { sandbox: "a" });
  });

  it("do not exceed their limit with parallel calls", async () => {
    const names = Array.from({ length: 8 }, (_, index) => `side-${index}`);
    const answers = await Promise.all(names.map((name) => run(name)));
    expect(answers.filter(({ isError }) => !isError).length).toBeLessThanOrEqual(2);
    expect((await running()).length).toBeLessThanOrEqual(2);
  });

  it("are counted again if their end was reported during their registration", async () => {
    const registrant = await principal("registrant");
    const named = { principalID: registrant.principalID, sandbox: "again" };
    const register = async (_actor: unknown, ctx: DurableObjectState) => {
      const link = new AccountLink(ctx, ctx.storage.kv, env as Env, async () => undefined);
      await link.setOwner(named);
      const registering = link.register(named);
      link.reportStop();
      await registering;
      return await link.register(named);
    };
    // The account knew the sandbox as stopped before the second registration.
    expect(await runInActor("again", register, registrant)).toBe("stopped");
  });

  it("are not counted again if they were used during their destruction", async () => {
    const user = await principal("destroyer");
    const named = { principalID: user.principalID, sandbox: "destroyed" };
    const destroy = async (_actor: unknown, ctx: DurableObjectState) => {
      const link = new AccountLink(ctx, ctx.storage.kv, env as Env, async () => undefined);
      await link.setOwner(named);
      await link.register(named);
      const later = Date.now() + 120_000;
      const clock = vi.spyOn(Date, "now").mockImplementation(() => later);
      const destroying = link.reportDestruction(named, "workspace");
      const using = link.noteUse();
      clock.mockRestore();
      await using;
      await destroying;
      // Waits for the registration.
      await link.recordSettings({ ...named, sandbox: "next" }, { variables: [], network: undefined });
    };
    await runInActor("destroyed", destroy, user);
    expect((await user.call("list_sandboxes")).text).not.toContain("destroyed");
  });

  it("are not started by a token that can only read", async () => {
    for (const tool of ["read_file", "list_files"]) {
      const { isError, text } = await reader.call(tool, { sandbox: "unknown", path: "/workspace" });
      expect(isError).toBe(true);
      expect(text).toContain("Sandbox unknown is not running");
    }
    expect((await caller.call("list_sandboxes")).text).not.toContain("unknown");
    const [name = ""] = await running();
    expect((await reader.call("list_files", { sandbox: name, path: "/workspace" })).isError).toBe(false);
  });
});

describe("the model tokens of a day", () => {
  const task = { task: "[[write]] x", sandbox: "day" };

  it("end a running task when they are used up, and no task starts until the next day", async () => {
    const caller = await principal("day", ["sandbox:read", "sandbox:write", "sandbox:exec", "tasks:run"]);
    onTestFinished(await setLimits({ modelTokensPerDay: 5 }));
    const first = await caller.call("execute_task", task);
    expect(first.text).toMatch(/state: failed[^]*MAX_MODEL_TOKENS_PER_DAY[^]*next day begins at .*T00:00:00/);
    const second = await caller.call("execute_task", task);
    expect(second.isError).toBe(true);
    expect(second.text).toMatch(/have used \d+ model tokens today, and your limit is 5\..*T00:00:00.000Z/);
    const { structured } = await caller.call("checkpoint_sandbox", { sandbox: "day" });
    const third = await caller.call("execute_task", { task: task.task, checkpoint: structured.checkpoint });
    expect(third.text).toBe(second.text);
    const listed = await caller.call("list_sandboxes");
    expect(listed.text).toMatch(/\d+\/5 model tokens today/);
    // Nothing is left of the sandbox in which the third task was to start.
    expect(listed.text).not.toContain("task-");
  });
});
