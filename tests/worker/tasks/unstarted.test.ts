/** Tasks that end before their agent starts, or while their results are collected. */
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { EngineClient } from "../../../local/platform/engine-client.ts";
import { Account, type Sandbox } from "../../../src/index.ts";
import { SandboxNetwork } from "../../../src/actors/network.ts";
import { Workspace } from "../../../src/actors/workspace.ts";
import { FileOperations } from "../../../src/container/file-operations.ts";
import { TaskBudgets } from "../../../src/tasks/budget.ts";
import { ToolError } from "../../../src/shared/errors.ts";
import { evict, owner, result, runInActor, isListed, sh, sleep, until, untilText } from "../support.ts";

const sandboxOf = (id: string) => id.split(".")[0] ?? "";

async function begin(args: Record<string, unknown>): Promise<string> {
  const { structured, text, isError } = await owner.call("execute_task", { wait_seconds: 0, ...args });
  if (isError) throw new Error(text);
  return String(structured.id);
}

afterEach(() => void vi.restoreAllMocks());

describe("a task that continues another in its own sandbox", () => {
  let first = "";
  beforeAll(async () => {
    first = await begin({ task: "[[write]] x", wait_seconds: 30 });
    await until(async () => !(await isListed(sandboxOf(first))));
  });

  /** Replaces the restore of the first task's conversation. */
  function restoring(replacement: () => Promise<void>) {
    const restore = Workspace.prototype.restoreConversation;
    const replaced = vi.fn<() => Promise<void>>(replacement);
    vi.spyOn(Workspace.prototype, "restoreConversation").mockImplementation(function (
      this: Workspace,
      run,
      task,
    ) {
      return run === first ? replaced() : restore.call(this, run, task);
    });
    return replaced;
  }

  const next = { task: "[[write]] y" };

  it("leaves no sandbox behind if its conversation cannot be restored", async () => {
    restoring(() => Promise.reject(new ToolError("storage_unavailable", "failed by a test", "", true)));
    const id = await begin({ ...next, continue_from: first });
    await untilText(async () => (await result(id)).text, "state: failed");
    await until(async () => !(await isListed(sandboxOf(id))));
    expect((await result(id)).text).toContain("failed by a test");
  });

  it("can be cancelled while its conversation is restored", async () => {
    const restore = restoring(() => new Promise(() => {}));
    const id = await begin({ ...next, continue_from: first });
    await until(() => restore.mock.calls.length > 0);
    const { structured } = await owner.call("cancel_run", { id });
    expect(structured).toMatchObject({ state: "cancelled", note: "Cancelled before the agent started." });
    // It has no files with which it could be continued.
    expect(structured).not.toHaveProperty("next");
    await until(async () => !(await isListed(sandboxOf(id))));
  });

  it("does not restore its conversation if it is cancelled while its agent is installed", async () => {
    const restore = restoring(() => new Promise(() => {}));
    const { promise: installed, resolve } = Promise.withResolvers<void>();
    const prototype = await runInActor(sandboxOf(first), (actor): Sandbox => Object.getPrototypeOf(actor));
    const prepare = vi.spyOn(prototype as unknown as { prepareAgent(): Promise<void> }, "prepareAgent");
    prepare.mockReturnValue(installed);
    const id = await begin({ ...next, continue_from: first });
    await until(() => prepare.mock.calls.length > 0);
    expect((await owner.call("cancel_run", { id })).structured.state).toBe("cancelled");
    resolve();
    await until(async () => !(await isListed(sandboxOf(id))));
    expect(restore).not.toHaveBeenCalled();
  });

  it("leaves no sandbox behind if its actor is evicted while its conversation is restored", async () => {
    const restore = restoring(() => new Promise(() => {}));
    const id = await begin({ ...next, continue_from: first });
    await until(() => restore.mock.calls.length > 0);
    await evict(sandboxOf(id));
    expect((await result(id)).text).toMatch(/state: lost.*never started, because the server/s);
    await until(async () => !(await isListed(sandboxOf(id))));
  });
});

describe("a task that waits for the set-up of its own sandbox", () => {
  let checkpoint: unknown;
  beforeAll(async () => {
    const sandbox = "unstarted-set-up";
    await sh(sandbox, "echo kept > file");
    await owner.call("configure_sandbox", { sandbox, setup: "sleep 300" });
    checkpoint = (await owner.call("checkpoint_sandbox", { sandbox })).structured.checkpoint;
  });

  async function waiting(): Promise<string> {
    const id = await begin({ task: "[[write]] x", checkpoint });
    await untilText(async () => (await result(id, { wait_seconds: 0 })).text, "set-up");
    return id;
  }

  it("leaves no sandbox behind if it is cancelled", async () => {
    const id = await waiting();
    expect((await owner.call("cancel_run", { id })).structured.state).toBe("cancelled");
    await until(async () => !(await isListed(sandboxOf(id))));
    const plain = await (await owner.http(`/tasks/${id}/result`)).json();
    expect(plain).toMatchObject({ success: false, error: "Cancelled before it started." });
  });

  it("leaves no sandbox behind if its actor is evicted", async () => {
    const id = await waiting();
    await evict(sandboxOf(id));
    expect((await result(id)).text).toContain("state: lost");
    await until(async () => !(await isListed(sandboxOf(id))));
  });
});

it("a task that waited for another one is lost at once when the actor is replaced", async () => {
  const sandbox = "unstarted-waiting";
  const first = await begin({ task: "[[wait]] x", sandbox });
  await until(async () => (await sh(sandbox, "cat begun 2>/dev/null || true")) === "begun\n");
  const second = await begin({ task: "[[write]] y", sandbox });
  await untilText(async () => (await result(second, { wait_seconds: 0 })).text, "state: waiting");
  await evict(sandbox);
  await untilText(async () => (await result(second, { wait_seconds: 1 })).text, "state: lost");
  expect((await result(second)).text).toContain("The run never started, because the server was restarted");
  expect((await owner.call("cancel_run", { id: first })).structured.state).toBe("cancelled");
});

it("a task that ends while it waits for another one does not prepare its agent", async () => {
  const sandbox = "unstarted-ended";
  await sh(sandbox, "true");
  const prototype = await runInActor(sandbox, (actor): Sandbox => Object.getPrototypeOf(actor));
  const prepare = vi.spyOn(prototype as unknown as { prepareAgent(): Promise<void> }, "prepareAgent");
  const first = await begin({ task: "[[wait]] x", sandbox });
  await until(async () => (await sh(sandbox, "cat begun 2>/dev/null || true")) === "begun\n");
  const second = await begin({ task: "[[write]] y", sandbox });
  await untilText(async () => (await result(second, { wait_seconds: 0 })).text, "state: waiting");
  await owner.call("destroy_sandbox", { sandbox });
  for (const id of [first, second]) expect((await result(id)).text).toContain("state: lost");
  expect((await result(first)).text).not.toContain("never started");
  expect((await result(second)).text).toContain("The run never started, because the sandbox stopped first.");
  await sleep(200);
  expect(prepare).toHaveBeenCalledOnce();
});

it("tasks that are cancelled while their agent is installed leave one request for its installation", async () => {
  const sandbox = "unstarted-installed";
  await sh(sandbox, "true");
  const call = EngineClient.prototype.call;
  const installing: string[] = [];
  vi.spyOn(EngineClient.prototype, "call").mockImplementation(function (this: EngineClient, ...args) {
    if (!args[1].startsWith("/agents/")) return call.apply(this, args);
    installing.push(args[1]);
    return new Promise(() => {});
  });
  for (let count = 0; count < 3; count++) {
    const id = await begin({ task: "[[write]] x", sandbox });
    await until(() => installing.length > 0);
    expect((await owner.call("cancel_run", { id })).structured.state).toBe("cancelled");
  }
  expect(installing).toEqual(["/agents/claude-code"]);
});

it("a task that used up its budget says so although its actor is evicted while the changes are collected", async () => {
  const sandbox = "unstarted-budget";
  const call = FileOperations.prototype.call as (...args: unknown[]) => Promise<unknown>;
  const collecting = vi.fn<() => void>();
  vi.spyOn(FileOperations.prototype, "call").mockImplementation(async function (
    this: FileOperations,
    ...args: unknown[]
  ) {
    if (args[0] !== "changes") return await call.apply(this, args);
    collecting();
    return await new Promise(() => {});
  } as never);
  const id = await begin({ task: "[[work]] x", sandbox });
  await until(async () => (await sh(sandbox, "cat begun 2>/dev/null || true")) === "begun\n");
  await runInActor(sandbox, (_actor, { storage }) => {
    storage.sql.exec("UPDATE task_budgets SET tokens = max_tokens");
  });
  await sh(sandbox, "touch go-on");
  await until(() => collecting.mock.calls.length > 0);
  vi.restoreAllMocks();
  await evict(sandbox);
  expect((await result(id)).text).toMatch(/state: failed.*used up its budget/s);
});

it("a task has its changes although its actor is evicted before the end of the task is recorded", async () => {
  const sandbox = "unstarted-recorded";
  const taskFiles = "/var/lib/sandbox-mcp/tasks";
  const recording = vi.spyOn(SandboxNetwork.prototype, "addRefusals");
  const id = await begin({ task: "[[work]] x", sandbox });
  await until(async () => (await sh(sandbox, "cat begun 2>/dev/null || true")) === "begun\n");
  recording
    .mockClear()
    .mockImplementation(async (end) => (end.detail ? await new Promise<never>(() => {}) : end));
  await sh(sandbox, "touch go-on");
  const isRecording = () => recording.mock.calls.some(([end]) => end.detail !== undefined);
  await until(async () => isRecording());
  recording.mockRestore();
  await evict(sandbox);
  const { structured } = await result(id);
  expect(structured).toMatchObject({ state: "succeeded", note: "" });
  expect(structured.artifacts).toContainEqual({ path: "begun", size: 6 });
  await until(async () => (await sh(sandbox, `ls ${taskFiles}`)) === "");
});

it("a task whose files could not be kept continues in its own sandbox, which stays", async () => {
  const keep = vi.spyOn(Workspace.prototype, "keepArchive");
  keep.mockRejectedValue(new ToolError("storage_unavailable", "failed by a test", "", true));
  const id = await begin({ task: "[[write]] x", wait_seconds: 30 });
  const { structured, text } = await result(id);
  expect(text).toContain("failed by a test");
  expect(structured.next).toContain("continue_from");
  const next = await begin({ task: "[[write]] y", continue_from: id, wait_seconds: 30 });
  expect((await result(next)).text).toContain("state: succeeded");
  expect(sandboxOf(next)).toBe(sandboxOf(id));
  await evict(sandboxOf(id), { kill: true });
  const { text: refusal } = await owner.call("execute_task", { task: "[[write]] z", continue_from: id });
  expect(refusal).toMatch(`with sandbox ${sandboxOf(id)} if list_sandboxes shows it`);
  await owner.call("destroy_sandbox", { sandbox: sandboxOf(id) });
});

it("a task whose sandbox is destroyed while its results are stored has the artifacts that are stored, and they count in the quota", async () => {
  const sandbox = "unstarted-stored";
  const keep = vi.spyOn(Workspace.prototype, "keepArchive").mockReturnValue(new Promise(() => {}));
  const id = await begin({ task: "[[write]] x", sandbox });
  await until(() => keep.mock.calls.length > 0);
  await owner.call("destroy_sandbox", { sandbox });
  const { structured } = await result(id);
  expect(structured.state).toBe("lost");
  const artifacts = structured.artifacts as { path: string; size: number }[];
  expect(artifacts).toContainEqual({ path: "a.txt", size: 8 });
  expect((await owner.call("get_result", { id, artifact: "a.txt" })).structured.size).toBe(8);
  const rows = await runInActor(sandbox, (_actor, { storage }) =>
    storage.sql.exec("SELECT bytes FROM stored_bytes WHERE run = ?", id).toArray(),
  );
  expect(rows).toEqual([{ bytes: artifacts.reduce((sum, { size }) => sum + size, 0) }]);
});

it("a task's changes are found although a program makes and deletes files while they are collected", async () => {
  const sandbox = "unstarted-churn";
  // There are always 50 files, and the oldest is deleted.
  const churn =
    "for ((n = 1; ; n++)); do : >gone-$n; rm -f gone-$((n - 50)); [ ! -e /tmp/over ] || break; done";
  await sh(sandbox, `(${churn}) >/dev/null 2>&1 &`);
  const id = await begin({ task: "[[write]] x", sandbox, wait_seconds: 30 });
  const { structured } = await result(id);
  await sh(sandbox, "touch /tmp/over");
  expect(structured).toMatchObject({ state: "succeeded", note: "" });
  expect(structured.artifacts).toContainEqual({ path: "a.txt", size: 8 });
});

it("a question cancelled while its budget is opened leaves no budget", async () => {
  const sandbox = "unstarted-question";
  const open = TaskBudgets.prototype.open;
  const { promise: released, resolve } = Promise.withResolvers<void>();
  const spy = vi.spyOn(TaskBudgets.prototype, "open").mockImplementation(async function (
    this: TaskBudgets,
    ...args
  ) {
    await released;
    return await open.apply(this, args);
  });
  const body = JSON.stringify({ question: "[[product]] x", sandbox, wait: 0 });
  const { taskId } = await (
    await owner.http("/execute", { method: "POST", body })
  ).json<{ taskId: string }>();
  await until(() => spy.mock.calls.length > 0);
  const cancelled = owner.call("cancel_run", { id: taskId });
  await sleep(200);
  resolve();
  expect((await cancelled).structured.state).toBe("cancelled");
  const rows = await runInActor(sandbox, (_actor, { storage }) =>
    storage.sql.exec("SELECT * FROM task_budgets").toArray(),
  );
  expect(rows).toEqual([]);
});

it("a task that its account cannot record at the start has an id, and is recorded at its end", async () => {
  const record = vi
    .spyOn(Account.prototype, "recordTask")
    .mockRejectedValueOnce(new Error("failed by a test"));
  const sandbox = "unstarted-record";
  const id = await begin({ task: "[[write]] x", sandbox });
  expect(record.mock.settledResults[0]?.type).toBe("rejected");
  await untilText(async () => (await result(id)).text, "state: succeeded");
  await until(async () => {
    const { structured } = await owner.call("list_runs", { kind: "task" });
    return (structured.runs as { id: string }[]).some((run) => run.id === id);
  });
});
