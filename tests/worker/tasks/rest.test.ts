import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { accountOf, owner, principal } from "../support.ts";

interface Result {
  taskId: string;
  [key: string]: unknown;
}

const post = (body: unknown) => ({
  method: "POST",
  body: typeof body === "string" ? body : JSON.stringify(body),
});

async function json(response: Response): Promise<[status: number, body: Result]> {
  return [response.status, await response.json<Result>()];
}

describe("POST /execute", () => {
  it("answers with the result, which stays", async () => {
    const [status, done] = await json(
      await owner.http("/execute", post({ task: "[[write]] Write", timeout: 60_000 })),
    );
    expect(status).toBe(200);
    expect(done).toMatchObject({
      success: true,
      output: "It is written.",
      stderr: "",
      stdout: expect.stringContaining("Write a.txt\n"),
    });
    const [again, kept] = await json(await owner.http(`/tasks/${done.taskId}/result`));
    expect(again).toBe(200);
    expect(kept).toMatchObject({ ...done, timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) });
    expect((await owner.call("get_result", { id: done.taskId })).text).toContain("It is written.");
  });

  it("reports a task that failed as a result", async () => {
    const [status, done] = await json(await owner.http("/execute", post({ task: "[[fail]] x" })));
    expect(status).toBe(200);
    expect(done).toMatchObject({ success: false, output: expect.stringContaining("no such model") });
  });

  it("answers 202 while the task goes on", async () => {
    const started = await owner.call("execute_task", { task: "[[wait]] x", wait_seconds: 0 });
    const id = String(started.structured.id);
    const [status, body] = await json(await owner.http(`/tasks/${id}/result`));
    expect([status, body.taskId]).toEqual([202, id]);
    await owner.call("cancel_run", { id });
    const [ended, result] = await json(await owner.http(`/tasks/${id}/result`));
    expect([ended, result.success]).toEqual([200, false]);
  });

  it.each([[{}], [{ task: "" }], [{ task: "  " }], [{ task: 5 }], [[]], [null], ["no JSON"]])(
    "asks for a task: %j",
    async (body) => {
      expect(await json(await owner.http("/execute", post(body)))).toEqual([
        400,
        { error: "Task is required" },
      ]);
    },
  );

  it.each([0, -1, "10", 1e12])("refuses the timeout %j", async (timeout) => {
    const [status, body] = await json(await owner.http("/execute", post({ task: "x", timeout })));
    expect(status).toBe(400);
    expect(body.error).toMatch(/^Timeout must be/);
  });

  it.each([
    [{ agents: "reviewer" }, /^Agents and commands must be lists of names$/],
    [{ commands: [5] }, /^Agents and commands must be lists of names$/],
    [{ agents: ["none"] }, /^There is no agents\/none\. The operator offers none\./],
    [{ commands: ["../x"] }, /^commands: "\.\.\/x" is no name/],
  ])("refuses the definitions %j", async (named, words) => {
    const refused = await json(await owner.http("/execute", post({ task: "x", ...named })));
    expect(refused).toEqual([400, { error: expect.stringMatching(words) }]);
  });

  it("says what it could not do", async () => {
    const without = owner.with({ ANTHROPIC_API_KEY: undefined });
    const [status, body] = await json(await without.http("/execute", post({ task: "x" })));
    expect(status).toBe(500);
    expect(body).toEqual({
      error: "Task execution failed",
      details: expect.stringMatching(/no credential for Claude Code.*ANTHROPIC_API_KEY/),
    });
  });

  it("answers 429 when a quota is used up", async () => {
    const poor = await principal("rest-poor", ["tasks:run"]);
    await runInDurableObject(accountOf(poor), (_account, { storage }) => {
      const row = "INSERT INTO sandboxes (name, state, created_at, last_used_at) VALUES (?, 'stopped', 0, 0)";
      for (let index = 0; index < 100; index++) storage.sql.exec(row, `s${index}`);
    });
    const [status, body] = await json(await poor.http("/execute", post({ task: "[[write]] x" })));
    expect([status, body.error]).toEqual([429, expect.stringContaining("100")]);
  });
});

describe("who may", () => {
  it("needs a token", async () => {
    for (const [path, init] of [
      ["/execute", post({ task: "x" })],
      ["/tasks/a/result", {}],
    ] as const) {
      const response = await owner.http(path, { ...init, headers: { authorization: "Bearer wrong" } });
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ error: "Unauthorized" });
    }
  });

  it("needs the scope", async () => {
    const reader = await principal("rest-reader", ["sandbox:read", "sandbox:exec"]);
    for (const response of [
      await reader.http("/execute", post({ task: "x" })),
      await reader.http("/tasks/default.01m7w10c4v0brrp65wgryrkjhst/result"),
    ]) {
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({
        error: "insufficient_scope",
        message: expect.stringContaining("tasks:run"),
      });
      expect(response.headers.get("www-authenticate")).toContain("insufficient_scope");
    }
  });

  it("finds nobody else's task, and no run of another kind", async () => {
    const [, done] = await json(await owner.http("/execute", post({ task: "[[write]] x" })));
    const other = await principal("rest-other", ["tasks:run"]);
    const command = await owner.call("run_command", { command: "true" });
    const missing = [404, { error: "Task result not found" }];
    expect(await json(await other.http(`/tasks/${done.taskId}/result`))).toEqual(missing);
    for (const id of ["nothing", String(command.structured.id), `${done.taskId}t`])
      expect(await json(await owner.http(`/tasks/${id}/result`))).toEqual(missing);
  });

  it("takes only the right method", async () => {
    expect((await owner.http("/execute")).status).toBe(405);
    expect((await owner.http("/tasks/a/result", { method: "POST" })).status).toBe(405);
    expect((await owner.http("/tasks/a")).status).toBe(404);
  });
});
