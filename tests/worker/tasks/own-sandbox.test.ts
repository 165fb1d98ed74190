/** The sandbox that is made for one task. */
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import { AccountLink, ENDED_TASK } from "../../../src/actors/account-link.ts";
import { Account } from "../../../src/actors/account.ts";
import type { Lifecycle } from "../../../src/actors/lifecycle.ts";
import { SDKPlatform } from "../../../src/actors/platform/sdk-platform.ts";
import { TaskRecords } from "../../../src/actors/run-records.ts";
import { evict, isListed, killContainer, owner, result, runInActor, sh, sleep, until } from "../support.ts";

it("if a task's actor is evicted right after the task's end, the next actor destroys the task's own sandbox once, and then it can be used again", async () => {
  const { id } = (await owner.call("execute_task", { task: "[[work]] x", wait_seconds: 0 })).structured as {
    id: string;
  };
  const sandbox = id.split(".")[0] ?? "";
  await until(async () => (await sh(sandbox, "cat /workspace/begun 2>/dev/null || true")) === "begun\n");
  await runInActor(sandbox, (_sandbox, state) => {
    const { storage } = state;
    const isEnded = () =>
      storage.sql.exec("SELECT 1 FROM runs WHERE kind = 'task' AND ended_at IS NOT NULL").toArray().length >
      0;
    const timer = setInterval(() => {
      if (!isEnded()) return;
      clearInterval(timer);
      void storage.sync().then(() => state.abort("evicted by a test"));
    }, 1);
  });
  await sh(sandbox, "touch /workspace/go-on");
  // Something starts the next actor, for example the alarm of its container.
  await until(async () => (await result(id)).text.includes("state: succeeded"));
  await until(async () => !(await isListed(sandbox)));
  await sh(sandbox, "echo kept > /workspace/later");
  await evict(sandbox);
  expect(await sh(sandbox, "cat /workspace/later")).toBe("kept\n");
  expect((await result(id)).text).toContain("state: succeeded");
  expect((await owner.call("list_runs", { kind: "task" })).text).toContain(`${id} task succeeded`);
  await owner.call("destroy_sandbox", { sandbox });
});

afterEach(() => void vi.restoreAllMocks());

const logOf = async (id: string) => (await owner.call("get_result", { id, cursor: 0 })).text;

/** Returns when the destruction of the task's sandbox has called `step`. */
async function endedTask(step: { mock: { calls: unknown[] } }) {
  const args = { task: "[[write]] x", wait_seconds: 0 };
  const { id } = (await owner.call("execute_task", args)).structured as { id: string };
  const sandbox = id.split(".")[0] ?? "";
  await until(() => step.mock.calls.length > 0);
  return { id, sandbox };
}

it("if the container of an ended task's sandbox cannot be ended, and a call uses the sandbox again, the next actor does not destroy it", async () => {
  const end = vi.spyOn(SDKPlatform.prototype, "end").mockRejectedValueOnce(new Error("failed by a test"));
  const { sandbox } = await endedTask(end);
  await sh(sandbox, "echo kept > /workspace/later");
  await evict(sandbox);
  expect(await sh(sandbox, "cat /workspace/later")).toBe("kept\n");
  await owner.call("destroy_sandbox", { sandbox });
});

it("a task in a fork goes on if the actor is reset while the task starts", async () => {
  await sh("fork-reset", "echo kept > file");
  const made = await owner.call("checkpoint_sandbox", { sandbox: "fork-reset" });
  const prototype = await runInActor("fork-reset", (actor): Sandbox => Object.getPrototypeOf(actor));
  const execute = Reflect.get(prototype, "executeTask") as Sandbox["executeTask"];
  let id = "";
  vi.spyOn(prototype, "executeTask").mockImplementation(async function (this: Sandbox, ...args) {
    const started = await execute.apply(this, args);
    if (started.ok) id = started.value.id;
    const failure = {
      code: "connection_lost" as const,
      message: "Reset by a test.",
      hint: "",
      retryable: true,
    };
    return { ok: false, failure };
  });
  const { checkpoint } = made.structured;
  const { text } = await owner.call("execute_task", { task: "[[write]] x", checkpoint, wait_seconds: 0 });
  expect(text).toContain("Reset by a test.");
  await until(async () => !(await result(id)).text.includes("state: running"));
  expect((await result(id)).text).toContain("state: succeeded");
});

describe("if the account fails when the sandbox of an ended task is destroyed", () => {
  function failingAccount() {
    const error = new Error("the account was reset by a test");
    return vi.spyOn(AccountLink.prototype, "reportDestruction").mockRejectedValue(error);
  }

  it("the same actor destroys it later", async () => {
    const report = failingAccount();
    const { id, sandbox } = await endedTask(report);
    expect(await isListed(sandbox)).toBe(true);
    report.mockRestore();
    await until(async () => !(await isListed(sandbox)));
    expect((await result(id)).text).toContain("state: succeeded");
  });

  it("the next actor destroys it, unless a call has used the sandbox again", async () => {
    const report = failingAccount();
    const [unused, used] = [await endedTask(report), await endedTask(report.mockClear())];
    await sh(used.sandbox, "echo kept > /workspace/later");
    for (const { sandbox } of [unused, used]) await evict(sandbox);
    report.mockRestore();
    expect((await result(unused.id)).text).toContain("state: succeeded");
    await until(async () => !(await isListed(unused.sandbox)));
    expect(await sh(used.sandbox, "cat /workspace/later")).toBe("kept\n");
    await owner.call("destroy_sandbox", { sandbox: used.sandbox });
  });
});

it("a task continues in a sandbox of its own if its sandbox was destroyed and begun again", async () => {
  const sandbox = "begun-again";
  const first = await owner.call("execute_task", { task: "[[write]] x", sandbox });
  await owner.call("destroy_sandbox", { sandbox });
  await sh(sandbox, "true");
  const next = { task: "[[write]] y", continue_from: first.structured.id };
  const { structured } = await owner.call("execute_task", next);
  expect(structured).toMatchObject({ state: "succeeded", id: expect.not.stringContaining(sandbox) });
});

describe("when a task's container dies", () => {
  /** Returns the id of a task in its own sandbox, whose first command has begun. */
  async function begunTask(): Promise<{ id: string; sandbox: string }> {
    const { id } = (await owner.call("execute_task", { task: "[[wait]] x", wait_seconds: 0 })).structured as {
      id: string;
    };
    await until(async () => (await logOf(id)).includes("Bash: echo begun"));
    return { id, sandbox: id.split(".")[0] ?? "" };
  }

  it("the task is lost, and its progress and log are kept, and its sandbox is gone if it was never saved", async () => {
    vi.spyOn(Account.prototype, "workspace").mockReturnValue(undefined);
    const { id, sandbox } = await begunTask();
    expect(await isListed(sandbox)).toBe(true);
    await killContainer(sandbox);
    const text = (await result(id)).text;
    expect(text).toContain("state: lost");
    expect(text).toMatch(/note:? ?\n?The sandbox stopped/);
    expect(text).toMatch(/progress:\n[^]*Bash: echo begun/);
    await until(async () => !(await isListed(sandbox)));
    expect(await logOf(id)).toContain("Bash: echo begun");
    expect((await owner.call("list_runs", { kind: "task" })).text).toContain(`${id} task lost`);
  });

  it("its own sandbox stays with the files that were saved, and the result names it", async () => {
    const { id, sandbox } = await begunTask();
    await owner.call("checkpoint_sandbox", { sandbox });
    await killContainer(sandbox);
    expect((await result(id)).text).toMatch(
      new RegExp(`state: lost[^]*next:\\n.* with sandbox ${sandbox} if`),
    );
    await runInActor(sandbox, (_sandbox, { storage }) =>
      until(async () => storage.kv.get(ENDED_TASK) === undefined),
    );
    expect(await isListed(sandbox)).toBe(true);
    expect(await sh(sandbox, "cat /workspace/begun")).toBe("begun\n");
    await owner.call("destroy_sandbox", { sandbox });
  });

  it("its own sandbox stays if a call has begun to use it", async () => {
    const { id, sandbox } = await begunTask();
    const answer = Promise.withResolvers<undefined>();
    const asked = vi.spyOn(Account.prototype, "workspace").mockReturnValueOnce(answer.promise as never);
    await killContainer(sandbox);
    expect((await result(id)).text).toContain("state: lost");
    await until(async () => asked.mock.calls.length > 0);
    const written = sh(sandbox, "echo kept > /workspace/later");
    await sleep(100);
    answer.resolve(undefined);
    await written;
    expect(await sh(sandbox, "cat /workspace/later")).toBe("kept\n");
    await owner.call("destroy_sandbox", { sandbox });
  });

  it("its own sandbox is destroyed with the container that a call may be starting, which the account would not count", async () => {
    const destroy = vi.fn<Lifecycle["destroy"]>();
    const calls = { recordTask: async () => undefined, workspace: async () => undefined };
    const account = { account: () => calls, owner: {} };
    const map = new Map();
    const [budgets, kv] = [{ close: () => undefined }, Object.assign(map, { put: map.set.bind(map) })];
    const host = { kv, account, platform: { isRunning: false }, lifecycle: { destroy }, budgets };
    const detail = { ownSandbox: true, safe: false };
    const records = new TaskRecords({ ...host, background: () => undefined } as never);
    records.onRunEnd({ id: "task-a.b", kind: "task", state: "lost", detail } as never);
    await until(async () => destroy.mock.calls.length > 0);
    expect(destroy).toHaveBeenCalledOnce();
  });
});
