import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Account } from "../../../src/index.ts";
import { CALL_BYTES, MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import {
  type Caller,
  accountOf,
  callsIn,
  idIn,
  runInActor,
  owner,
  principal,
  result,
  type Result,
  waitForText,
  sh,
  until,
} from "../support.ts";

const sandbox = "waiting";
const calls = callsIn(sandbox);

let sessions = 0;

/** Starts a command in a new session, unless `more` names one. */
const command = (line: string, more: Record<string, unknown> = {}) =>
  calls.command(line, { session: `own-${++sessions}`, wait_seconds: 0, ...more });
const code = (source: string, more: Record<string, unknown> = {}) =>
  calls.code(source, { wait_seconds: 0, ...more });
const cancel = (id: unknown) => owner.call("cancel_run", { id });

/** Whether a file made by a run has appeared. */
const exists = async (file: string) =>
  (await sh(sandbox, `[ -e ${file} ] && echo yes || true`, { session: "look" })) === "yes\n";

describe("a sandbox with many calls that wait for its runs", () => {
  it("refuses a further call that would wait, answers a call that does not wait, and accepts new calls when the waiting calls have returned", async () => {
    const id = idIn(await command("sleep 60"));
    const terminal = idIn(await command("cat", { interactive: true }));
    const waiting = Array.from({ length: 100 }, () => owner.call("get_result", { id, wait_seconds: 50 }));
    const get = (seconds: number) => owner.call("get_result", { id, wait_seconds: seconds });
    // The calls have reached the actor when a further one is refused.
    await until(async () => (await get(0.01)).isError);
    expect(await get(50)).toMatchObject({
      isError: true,
      text: expect.stringMatching(/100 calls already wait.*wait_seconds 0/s),
    });
    expect(await get(0)).toMatchObject({ isError: false, text: expect.stringContaining("running") });
    const type = () => owner.call("send_input", { id: terminal, text: "typed\n" });
    expect(await type()).toMatchObject({
      isError: true,
      text: expect.stringContaining("100 calls already wait"),
    });
    // A task is not refused: it has begun before the server counts its waiting call, and the caller needs its id.
    const task = await owner.call("execute_task", { task: "[[write]] x", sandbox, wait_seconds: 50 });
    expect(task, task.text).toMatchObject({
      isError: false,
      structured: { id: expect.stringMatching(/^waiting\./) },
    });
    await cancel(id);
    for (const { isError, text } of await Promise.all(waiting)) {
      expect(isError, text).toBe(false);
      expect(text).toContain("cancelled");
    }
    expect(await get(50)).toMatchObject({ isError: false });
    expect((await owner.call("get_result", { id: terminal, cursor: 0, wait_seconds: 0 })).text).not.toContain(
      "typed",
    );
    expect(await type()).toMatchObject({ isError: false, text: expect.stringContaining("typed") });
    await cancel(terminal);
  });
});

describe("a sandbox that starts slowly", () => {
  afterEach(() => vi.restoreAllMocks());

  it("does not block calls: a run returns its id and begins later, and a file operation is refused", async () => {
    const caller = (await principal("slow-start")).withVariables({ MAX_WAIT_SECONDS: "2" });
    const call = (tool: string, args: Record<string, unknown>) =>
      caller.call(tool, { sandbox: "slow", ...args });
    const goesOn = Promise.withResolvers<void>();
    // Acts like an account that is far away or waits for free capacity.
    await runInDurableObject(accountOf(caller), (account) => {
      const prototype: Account = Object.getPrototypeOf(account);
      const { registerSandbox } = prototype;
      vi.spyOn(prototype, "registerSandbox").mockImplementation(async function (this: Account, used) {
        if (used.principalID === caller.principalID) await goesOn.promise;
        return registerSandbox.call(this, used);
      });
    });
    const [run, cancelled, written, listed] = await Promise.all([
      call("run_command", { command: "echo ran" }),
      call("run_code", { code: "open('/workspace/cancelled', 'w')" }),
      call("write_file", { path: "written", content: "x" }),
      call("list_files", {}),
    ]);
    expect(run.structured, run.text).toMatchObject({ state: "running", stdout: "" });
    await caller.call("cancel_run", { id: idIn(cancelled) });
    for (const { isError, text } of [written, listed]) {
      expect(isError).toBe(true);
      expect(text).toMatch(/^Sandbox slow was not ready within 2 s: .* This call was not started/);
    }
    goesOn.resolve();
    const waitForEnd = async () => (await caller.call("get_result", { id: idIn(run) })).structured;
    await until(async () => (await waitForEnd()).state !== "running");
    expect(await waitForEnd()).toMatchObject({ state: "succeeded", stdout: "ran\n" });
    expect((await call("run_command", { command: "ls" })).structured.stdout).toBe("");
    expect((await caller.call("get_result", { id: idIn(cancelled) })).structured.state).toBe("cancelled");
  });
});

describe.concurrent("a run that outlasts its call", () => {
  it("with a command returns its id, and ends later", async () => {
    const first = await command(
      "echo begun; until [ -e /tmp/go-1 ]; do sleep 0.05; done; echo ended; exit 3",
      {
        wait_seconds: 10,
      },
    );
    expect(first).toMatchObject({ isError: false, structured: { state: "running", stdout: "begun\n" } });
    const id = String(first.structured.id);
    expect(first.structured.next).toMatch(new RegExp(`get_result, id ${id}\\b.*cancel_run`));
    expect(first.text).toContain(id);
    const waiting = result(id);
    await sh(sandbox, "touch /tmp/go-1", { session: "other" });
    expect((await waiting).text).toBe("exit_code: 3\nstdout:\n```\nbegun\nended\n```");
    expect((await result(id)).text).toBe("exit_code: 3\nstdout:\n```\nbegun\nended\n```");
  });

  it("with code returns its id and its output so far, and ends later", async () => {
    const source = `import time, os\nprint("begun", flush=True)\nwhile not os.path.exists("/tmp/go-2"): time.sleep(0.05)\n6 * 7`;
    // Without the start of a kernel, which may take longer on a busy machine.
    await code("0", { wait_seconds: 45, context: "outlasts" });
    const first = await code(source, { wait_seconds: 8, context: "outlasts" });
    expect(first.isError).toBe(false);
    expect(first.text).toContain("state: running");
    expect(first.text).toContain("stdout: begun");
    const waiting = result(idIn(first));
    await sh(sandbox, "touch /tmp/go-2");
    expect((await waiting).text).toBe("stdout: begun\nresult: 42");
  });

  it("is on disk before its id is returned", async () => {
    const place = { sandbox: "on-disk" };
    const id = String((await command("sleep 30", place)).structured.id);
    // This does not use a tool, because list_runs itself stores the runs that it shows.
    const stored = await runInActor(place.sandbox, (_actor, { storage }) =>
      storage.sql.exec("SELECT state FROM runs WHERE id = ?", id).toArray(),
    );
    expect(stored).toEqual([{ state: "running" }]);
    const listed = (await owner.call("list_runs", { ...place, limit: 1 })).structured.runs;
    expect(listed).toMatchObject([{ id, kind: "command", state: "running", title: "sleep 30" }]);
    await cancel(id);
  });

  it("returns new output by cursor when it arrives", async () => {
    const line =
      "for i in 1 2 3; do until [ -e /tmp/step-$i ]; do sleep 0.05; done; echo out $i; echo err $i >&2; done";
    const id = String((await command(line)).structured.id);
    let cursor = 0;
    let log = "";
    for (const step of [1, 2, 3]) {
      await sh(sandbox, `touch /tmp/step-${step}`, { session: "other" });
      const end = step * 12;
      while (cursor < end) {
        const page = await result(id, { cursor, wait_seconds: 20 });
        cursor = Number(/cursor (\d+)/.exec(page.text)?.[1] ?? end);
        for (const { text } of page.content.slice(1)) log += text;
      }
    }
    for (const step of [1, 2, 3]) {
      expect(log.split(`out ${step}\n`)).toHaveLength(2);
      expect(log.split(`err ${step}\n`)).toHaveLength(2);
    }
    expect(log.match(/\[stderr\]\n```\nerr/g)).toHaveLength(3);
    expect((await result(id, { cursor })).text).toContain("This is the end of the log.");
    expect((await result(id, { cursor: 1e9 })).text).toContain("This is the end of the log.");
  });

  it("returns output by cursor to a model when the run ends or its output pauses, not for each line", async () => {
    const textForModel = async (id: string, args: object) => {
      const params = { name: "get_result", arguments: { id, ...args } };
      const { content } = (await owner.result({ method: "tools/call", params })) as Result;
      return content.map((block) => block.text).join("\n");
    };
    const lines = String(
      (await command("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done")).structured.id,
    );
    const log = await textForModel(lines, { cursor: 0, wait_seconds: 40 });
    expect(log).toContain("This is the end of the log.");
    expect(log.match(/line \d/g)).toHaveLength(6);
    const silent = String((await command("echo begun; sleep 300")).structured.id);
    const rested = await textForModel(silent, { cursor: 0, wait_seconds: 40 });
    expect([rested, rested]).toEqual([expect.stringContaining("begun"), expect.stringContaining("running")]);
    await cancel(silent);
  });

  it("continues when the waiting caller disconnects", async () => {
    const controller = new AbortController();
    const abandoned = owner
      .send(
        "run_command",
        { sandbox, command: "touch /tmp/here-3; until [ -e /tmp/go-3 ]; do sleep 0.05; done; echo done" },
        {
          signal: controller.signal,
          progressToken: "p",
        },
      )
      .catch(() => undefined);
    await until(() => exists("/tmp/here-3"));
    controller.abort();
    await sh(sandbox, "touch /tmp/go-3", { session: "other" });
    await abandoned;
    const { runs } = (await owner.call("list_runs", { sandbox })).structured as {
      runs: { id: string; title: string }[];
    };
    const id = runs.find(({ title }) => title.startsWith("touch /tmp/here-3"))?.id ?? "";
    expect((await result(id)).text).toBe("exit_code: 0\nstdout: done");
  });
});

describe.concurrent("cancel_run", () => {
  it("stops a command with every process, and keeps its output", async () => {
    const id = String((await command("echo begun; setsid sleep 4001 & sleep 4001")).structured.id);
    await waitForText(id, "begun");
    const cancelled = await cancel(id);
    expect(cancelled).toMatchObject({
      isError: false,
      structured: { state: "cancelled", stdout: "begun\n" },
    });
    expect(cancelled.text).toContain("Cancelled, with all its known processes.");
    expect(await sh(sandbox, "pgrep -fc '^sleep 4001' || true")).toBe("0\n");
  });

  it("stops a command immediately after its start", async () => {
    for (let n = 0; n < 3; n++) {
      const session = `just-${n}`;
      const id = String((await command("sleep 4002", { session })).structured.id);
      expect((await cancel(id)).structured).toMatchObject({ state: "cancelled" });
    }
    await until(async () => (await sh(sandbox, "pgrep -fc '^sleep 4002' || true")) === "0\n");
  });

  it("ends a command that ignores TERM", async () => {
    const id = String((await command("trap '' TERM; echo begun; while :; do sleep 1; done")).structured.id);
    await waitForText(id, "begun");
    expect((await cancel(id)).structured).toMatchObject({ state: "cancelled" });
  });

  it("interrupts code and keeps its kernel's state", async () => {
    await code("kept = 'kept'", { wait_seconds: 45 });
    const id = idIn(
      await code("import time\nprint('begun', flush=True)\ntime.sleep(1000)", { wait_seconds: 2 }),
    );
    const cancelled = await cancel(id);
    expect(cancelled.text).toContain("state: cancelled");
    expect(cancelled.text).toContain("begun");
    expect(cancelled.text).toContain("kept");
    expect((await code("kept", { wait_seconds: 45 })).text).toBe("result: 'kept'");
  });

  it("ends a waiting command at once, and it never runs", async () => {
    const first = String((await command("sleep 4003", { session: "line" })).structured.id);
    const second = String((await command("touch /tmp/never", { session: "line" })).structured.id);
    const third = String((await command("echo third", { session: "line" })).structured.id);
    expect((await cancel(second)).structured).toMatchObject({
      state: "cancelled",
      notice: expect.stringContaining("before it started"),
    });
    expect((await result(first, { wait_seconds: 0 })).text).toContain("state: running");
    await cancel(first);
    expect((await result(third)).text).toContain("stdout: third");
    expect(await exists("/tmp/never")).toBe(false);
  });

  it("ends waiting code, and it never runs", async () => {
    const first = idIn(await code("import time; time.sleep(1000)", { context: "line" }));
    const second = idIn(await code("open('/tmp/never-code', 'w')", { context: "line" }));
    expect((await cancel(second)).text).toContain("state: cancelled");
    await cancel(first);
    expect((await code("1 + 1", { context: "line", wait_seconds: 45 })).text).toBe("result: 2");
    expect(await exists("/tmp/never-code")).toBe(false);
  });

  it("does not change a run that has ended, also the second time", async () => {
    const { structured } = await command("echo done", { wait_seconds: 45 });
    for (let n = 0; n < 2; n++)
      expect((await cancel(structured.id)).structured).toMatchObject({
        state: "succeeded",
        stdout: "done\n",
      });
    const long = await command("sleep 4004");
    const twice = await Promise.all([cancel(long.structured.id), cancel(long.structured.id)]);
    expect(twice.map(({ structured: { state } }) => state)).toEqual(["cancelled", "cancelled"]);
  });
});

describe.concurrent("list_runs", () => {
  it("lists the runs of a sandbox in pages, the newest first, and of one kind on request", async () => {
    const listing = "listing";
    for (let n = 0; n < 5; n++)
      await owner.call("run_command", { sandbox: listing, command: `echo ${n}; exit ${n}` });
    await owner.call("run_code", { sandbox: listing, code: "\n  # first line\n1 + 1" });
    type Listed = {
      runs: { id: string; title: string; state: string; exit_code?: number }[];
      next_cursor?: string;
    };
    const titles: string[] = [];
    let cursor: string | undefined;
    do {
      const page: Listed = (await owner.call("list_runs", { sandbox: listing, limit: 2, cursor }))
        .structured as Listed;
      expect(page.runs.length).toBeLessThanOrEqual(2);
      titles.push(...page.runs.map(({ title }) => title));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(titles).toEqual(["# first line", ...[4, 3, 2, 1, 0].map((n) => `echo ${n}; exit ${n}`)]);
    const some = (await owner.call("list_runs", { sandbox: listing, kind: "command" })).structured as Listed;
    expect(some.runs.map(({ state, exit_code }) => [state, exit_code])).toEqual([
      ["failed", 4],
      ["failed", 3],
      ["failed", 2],
      ["failed", 1],
      ["succeeded", 0],
    ]);
    expect((await owner.call("list_runs", { sandbox: "never-used" })).text).toBe(
      "Sandbox never-used has no runs.",
    );
  });
});

describe.concurrent("a run for a client that declares MCP's Tasks extension", () => {
  const call = (name: string, args: Record<string, unknown>, caller: Caller = owner) =>
    caller.sendModern("tools/call", { name, arguments: { sandbox, session: `own-${++sessions}`, ...args } });
  const get = (taskId: unknown, caller: Caller = owner) => caller.sendModern("tasks/get", { taskId });

  it("is a task with the run's id, and the ended task has the result that the call would have had", async () => {
    const line = "echo begun; until [ -e /tmp/go-task ]; do sleep 0.05; done; echo ended; exit 3";
    const { result: task } = await call("run_command", { command: line });
    expect(task).toMatchObject({ resultType: "task", status: "working", taskId: expect.any(String) });
    // Every result of this revision names the server, but without the icon, which would double the length of short results.
    expect(JSON.stringify(task)).toMatch(/"title":"Sandbox","version"(?!.*icons)/);
    await until(async () => (await get(task?.taskId)).result?.statusMessage === "begun");
    const { result: working } = await get(task?.taskId);
    expect(working).toMatchObject({ resultType: "complete", status: "working", createdAt: task?.createdAt });
    expect(working).not.toHaveProperty("result");
    expect(Date.parse(String(working?.createdAt))).toBeLessThanOrEqual(Date.now());
    await sh(sandbox, "touch /tmp/go-task", { session: "look" });
    await until(async () => (await get(task?.taskId)).result?.status === "completed");
    const text = "exit_code: 3\nstdout:\n```\nbegun\nended\n```";
    const ended = { content: [{ type: "text", text }], isError: false };
    expect((await get(task?.taskId)).result?.result).toEqual(ended);
    const structured = await get(task?.taskId, owner.withQuery("?results=structured"));
    expect(structured.result?.result).toMatchObject({ ...ended, structuredContent: { exit_code: 3 } });
    expect((await owner.call("get_result", { id: task?.taskId })).text).toBe(text);
  });

  it("is a task for code too, has its results as data, and can be cancelled", async () => {
    const codeTask = {
      name: "run_code",
      arguments: { sandbox, code: "import time; time.sleep(60)", context: "task" },
    };
    const { result: made } = await owner.withQuery("?results=structured").sendModern("tools/call", codeTask);
    expect(made).toMatchObject({ resultType: "task", taskId: expect.any(String) });
    const { taskId } = made ?? {};
    const ignored = { taskId, inputResponses: { nothing: { action: "accept" } } };
    expect((await owner.sendModern("tasks/update", ignored)).result).toMatchObject({
      resultType: "complete",
    });
    const { result: cancelled } = await owner.sendModern("tasks/cancel", { taskId });
    expect(cancelled).toMatchObject({ resultType: "complete" });
    expect(cancelled).not.toHaveProperty("taskId");
    await until(async () => (await get(taskId)).result?.status === "cancelled");
  });

  it("is a plain result if the call does not wait for the run's end", async () => {
    const answers = [
      await call("run_command", { command: "sleep 5", wait_seconds: 0 }),
      await call("run_command", { command: "read -p name: line", interactive: true, timeout_seconds: 5 }),
    ];
    for (const { result: answer } of answers)
      expect(answer).toMatchObject({ resultType: "complete", content: [{ type: "text" }] });
    expect(JSON.stringify(answers[0])).toContain("get_result, id");
  });

  it("is a plain result for a token that may not read the task's progress", async () => {
    const caller = await principal("executes-alone", ["sandbox:exec"]);
    const { result: answer } = await call("run_command", { command: "sleep 1; echo waited" }, caller);
    expect(answer).toMatchObject({ resultType: "complete" });
    expect(JSON.stringify(answer)).toContain("waited");
  });

  it("is visible only to its principal, with the scope of its kind", async () => {
    const { taskId } = (await call("run_command", { command: "sleep 5" })).result ?? {};
    const stranger = await principal("task-stranger");
    for (const method of ["tasks/get", "tasks/update", "tasks/cancel"]) {
      const { error } = await stranger.sendModern(method, { taskId });
      expect([method, error]).toMatchObject([
        method,
        { code: -32602, message: expect.stringContaining("There is no run") },
      ]);
    }
    const writer = await principal("task-writer", ["sandbox:write"]);
    expect((await get(taskId, writer)).status).toBe(403);
    expect((await get(`${taskId}t`, stranger)).status).toBe(403);
    expect((await get(taskId)).result?.status).toBe("working");
  });

  it("counts its result as an unread answer, and the server withholds it when there are too many", async () => {
    const caller = await principal("unread");
    const { taskId } = (await call("run_command", { command: "sleep 1; seq 10000" }, caller)).result ?? {};
    await until(async () => (await get(taskId, caller)).result?.status === "completed");
    const others = RequestMemory.forCall(caller.principalID, new AbortController().signal);
    // Room for the request, which counts as CALL_BYTES, but not for the result too.
    others.add(MAX_HELD_BYTES - 2 * CALL_BYTES - 2_000);
    try {
      expect((await get(taskId, caller)).error?.message).toContain("withheld");
    } finally {
      others.release();
    }
    expect((await get(taskId, caller)).result?.status).toBe("completed");
  });

  it("is refused to a client that does not declare the extension in the same request", async () => {
    const { taskId } = (await call("run_command", { command: "sleep 5" })).result ?? {};
    const missing = { error: { code: -32021, message: expect.any(String) }, status: 400 };
    for (const method of ["tasks/get", "tasks/update", "tasks/cancel"])
      expect(await owner.sendModern(method, { taskId }, {})).toMatchObject(missing);
    const notifications = { taskIds: [taskId] };
    expect(await owner.sendModern("subscriptions/listen", { notifications }, {})).toMatchObject(missing);
  });
});
