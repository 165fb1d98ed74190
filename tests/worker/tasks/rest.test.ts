import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createParser } from "eventsource-parser";
import { describe, expect, it, vi } from "vitest";
import worker from "../../../src/index.ts";
import type { Env } from "../../../src/shared/config.ts";
import { dayOf } from "../../../src/shared/days.ts";
import { MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import { ProgramReader } from "../../../src/tasks/program.ts";
import { Browser, Client, type Tokens } from "../../setup/oauth-client.ts";
import { ORIGIN, accountOf, evict, objectsOf, owner, principal, sh, sleep, until } from "../support.ts";

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

const resultOf = async (id: string) => json(await owner.http(`/tasks/${id}/result`));
const remove = (id: string, caller = owner) => caller.http(`/tasks/${id}/result`, { method: "DELETE" });

describe("POST /execute", () => {
  it("returns the result, which is also stored", async () => {
    const [status, result] = await json(
      await owner.http("/execute", post({ task: "[[write]] Write", timeout: 60_000 })),
    );
    expect(status).toBe(200);
    expect(result).toMatchObject({
      success: true,
      output: "It is written.",
      stderr: "",
      stdout: "It is written.",
      log: expect.stringContaining("Write a.txt\n"),
    });
    const [storedStatus, stored] = await json(await owner.http(`/tasks/${result.taskId}/result`));
    expect(storedStatus).toBe(200);
    expect(stored).toMatchObject({
      ...result,
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    });
    expect((await owner.http(`/tasks/${result.taskId}/result?strict=1`)).status).toBe(200);
    expect((await owner.call("get_result", { id: result.taskId })).text).toContain("It is written.");
    const headers = { accept: "text/event-stream" };
    const events = await (await owner.http(`/tasks/${result.taskId}/result`, { headers })).text();
    expect(events).toMatch(
      /^event: task\n[^\n]*"status":"succeeded".*^event: output\n.*Write a\.txt.*^event: result\n.*It is written/ms,
    );
  });

  it("withholds a stored result while the principal's calls and unread answers take too much memory", async () => {
    const caller = await principal("rest-memory", ["tasks:run"]);
    const [, { taskId }] = await json(await caller.http("/execute", post({ question: "[[product]] x" })));
    const path = `/tasks/${taskId}/result`;
    const others = new RequestMemory(caller.principalID, new AbortController().signal);
    others.add(MAX_HELD_BYTES);
    try {
      const refused = { error: expect.stringContaining("withheld") };
      expect(await json(await caller.http(path))).toEqual([429, refused]);
    } finally {
      others.release();
    }
    expect(await json(await caller.http(path))).toEqual([200, expect.objectContaining({ taskId })]);
  });

  it("has a limited number of event streams that nobody reads, and frees their memory when they end", async () => {
    const [, { taskId }] = await ask("[[product]] x", { sandbox: "asked" });
    const headers = { accept: "text/event-stream" };
    const open = () => owner.http(`/tasks/${taskId}/result`, { headers });
    const execute = (body: unknown) => owner.http("/execute", { ...post(body), headers });
    const opened: Response[] = [];
    while (opened.at(-1)?.status !== 429 && opened.length < 100) opened.push(await open());
    expect(opened.map(({ status }) => status)).toEqual([...Array<number>(64).fill(200), 429]);
    expect((await owner.http(`/tasks/${taskId}/result`)).status).toBe(200);
    const sandbox = "rest-events";
    expect((await execute({ question: "[[product]] x", sandbox })).status).toBe(429);
    expect((await owner.call("list_runs", { sandbox })).text).toContain("has no runs");
    for (const { body } of opened) await body?.cancel();
    for (let count = 0; count < 65; count++) expect((await execute({ question: "" })).status).toBe(400);
    const started = await execute({ question: "[[product]] x", sandbox });
    expect(await started.text()).toContain("event: result");
  });

  it("reports a failed task in the body, and with strict also in the HTTP status", async () => {
    const [status, done] = await json(
      await owner.http("/execute?strict=1", post({ task: "[[fail]] x", sandbox: "rest-own" })),
    );
    expect(status).toBe(422);
    const reason: string = expect.stringContaining("no such model");
    expect(done).toMatchObject({ success: false, output: reason, stdout: reason });
    const path = `/tasks/${done.taskId}/result`;
    const [plain, stored] = await json(await owner.http(path));
    expect(plain).toBe(200);
    for (const [strict, expected] of [
      ["1", 422],
      ["true", 422],
      ["0", 200],
      ["false", 200],
    ])
      expect(await json(await owner.http(`${path}?strict=${strict}`))).toEqual([expected, stored]);
    const refused = [400, { error: "strict must be 1 or true, 0 or false" }];
    for (const strict of ["yes", ""]) {
      expect(await json(await owner.http(`${path}?strict=${strict}`))).toEqual(refused);
      expect(await json(await owner.http(`/execute?strict=${strict}`, post({ task: "x" })))).toEqual(refused);
    }
  });

  it("accepts the arguments of execute_task", async () => {
    const sandbox = "rest-own";
    const commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m";
    await sh(
      sandbox,
      `git init -q -b main /tmp/own && cd /tmp/own && ${commit} one && git checkout -q -b side && touch side && git add side && ${commit} two`,
    );
    const cloned = { repository: "/tmp/own", branch: "side", model: "claude-of-mine", max_turns: 5, sandbox };
    const [status, done] = await json(await owner.http("/execute", post({ task: "[[write]] x", ...cloned })));
    expect([status, done.success]).toEqual([200, true]);
    expect(done.log).toContain("claude-of-mine");
    expect(await sh(sandbox, "cd /workspace; cat a.txt; ls own")).toBe("written\nside\n");
    const next = { task: "[[write]] again", continue_from: done.taskId };
    const [, continued] = await json(await owner.http("/execute", post(next)));
    expect(continued).toMatchObject({ success: true, taskId: expect.stringMatching(`^${sandbox}\\.`) });
  });

  it("waits for the time that its caller requests", async () => {
    // The default is the server's own waiting time.
    const hasty = owner.withVariables({ MAX_WAIT_SECONDS: "1" });
    const sandbox = "rest-own";
    const body = { question: "[[long]] x", sandbox };
    const [status, { taskId }] = await json(await hasty.http("/execute", post(body)));
    expect(status).toBe(202);
    expect((await owner.http("/execute", post({ ...body, wait: 0 }))).status).toBe(202);
    const waiting = hasty.http("/execute", post({ ...body, wait: 60_000 }));
    await until(async () =>
      (await owner.call("get_result", { id: taskId, wait_seconds: 0 })).text.includes("begun"),
    );
    await sleep(2000);
    await sh(sandbox, "touch go-on");
    expect(await json(await waiting)).toMatchObject([200, { success: true, output: "begun\nended\n" }]);
  });

  it("responds with 202 while the task continues, and refuses to delete it, or a run that is not a task", async () => {
    const sandbox = "rest-own";
    const started = await owner.call("execute_task", { task: "[[wait]] x", sandbox, wait_seconds: 0 });
    const id = String(started.structured.id);
    expect(await resultOf(id)).toMatchObject([202, { taskId: id }]);
    expect(await json(await remove(id))).toMatchObject([409, { taskId: id, status: "running" }]);
    await owner.call("cancel_run", { id });
    expect(await resultOf(id)).toMatchObject([200, { success: false }]);
    const run = await owner.call("run_command", { sandbox, command: "true" });
    expect((await remove(String(run.structured.id))).status).toBe(404);
    expect((await owner.call("get_result", { id: run.structured.id })).isError).toBe(false);
  });

  const NEITHER = "Give a task or a question, as text";
  const unknown = (field: string) =>
    `The field "${field}" does not exist. A task accepts timeout, wait, checkpoint, agents, commands, repository, branch, sandbox, agent, model, max_turns, continue_from. A question accepts language, sandbox, model, timeout, wait.`;

  const matching = (words: RegExp): string => expect.stringMatching(words);

  it.each<[body: unknown, error: string]>([
    ['{"task": "x"', "The request body is not JSON"],
    ["", "The request body is not JSON"],
    [{}, NEITHER],
    [{ task: "  " }, NEITHER],
    [{ task: 5 }, NEITHER],
    [{ question: "" }, NEITHER],
    [{ question: 5 }, NEITHER],
    [[], NEITHER],
    [null, NEITHER],
    [{ question: "x", task: "x" }, "Give either a task or a question, not both"],
    [{ questoin: "x" }, unknown("questoin")],
    [{ task: "[[write]] x", maxTurns: 3 }, unknown("maxTurns")],
    [{ question: "[[product]] x", agents: ["reviewer"] }, unknown("agents")],
    [{ task: "x", timeout: 0 }, matching(/^Timeout must be/)],
    [{ task: "x", timeout: "10" }, matching(/^Timeout must be/)],
    [{ task: "x", timeout: 1e12 }, matching(/^Timeout must be/)],
    [{ task: "x", wait: -1 }, matching(/^Wait must be a number of milliseconds from 0/)],
    [{ task: "x", agents: "reviewer" }, "Agents and commands must be lists of names"],
    [{ task: "x", commands: [5] }, "Agents and commands must be lists of names"],
    [
      { task: "x", agents: ["none"] },
      matching(/^There is no agents\/none\. The operator offers no definitions\./),
    ],
    [{ task: "x", commands: ["../x"] }, matching(/^commands: "\.\.\/x" is not the name/)],
    [{ task: "x", sandbox: "No!" }, matching(/^sandbox must be 1 to 128 characters \(.*such as "No"$/)],
    [{ task: "x", max_turns: "3" }, "max_turns must be a number"],
    [
      { task: "x", repository: "--upload-pack=x" },
      matching(/^repository must be an address that git clone takes/),
    ],
    [{ question: "x", language: "cobol" }, "Language must be python or typescript"],
    [{ question: "x", sandbox: "No!" }, matching(/^sandbox must be 1 to 128 characters \(.*such as "No"$/)],
    [{ question: "x", model: "--resume" }, "model must be the name of a model"],
    [{ question: "x", timeout: 0 }, matching(/^Timeout must be/)],
  ])("refuses the body %j", async (body, error) => {
    expect(await json(await owner.http("/execute", post(body)))).toEqual([400, { error }]);
  });

  it("refuses a question that is too long", async () => {
    const error = "Question is longer than 20000 characters";
    expect(await ask("x".repeat(20_001))).toEqual([400, { error }]);
  });

  it("names a checkpoint that does not exist", async () => {
    const body = post({ task: "x", checkpoint: "0123456789abcdef" });
    expect(await json(await owner.http("/execute", body))).toEqual([
      404,
      { error: expect.stringContaining("There is no checkpoint 0123456789abcdef.") },
    ]);
  });

  it("responds with 500 and the reason if the server has no credential for the agent's model", async () => {
    const without = owner.withVariables({ ANTHROPIC_API_KEY: undefined });
    const [status, body] = await json(await without.http("/execute", post({ task: "x" })));
    expect(status).toBe(500);
    expect(body).toEqual({
      error: "The run failed",
      details: expect.stringMatching(/no credential for Claude Code.*ANTHROPIC_API_KEY/),
    });
  });

  it("responds with 429 if a quota is used up", async () => {
    const poor = await principal("rest-poor", ["tasks:run"]);
    await runInDurableObject(accountOf(poor), (_account, { storage }) => {
      const row = "INSERT INTO sandboxes (name, state, created_at, last_used_at) VALUES (?, 'stopped', 0, 0)";
      for (let index = 0; index < 100; index++) storage.sql.exec(row, `s${index}`);
    });
    const [status, body] = await json(await poor.http("/execute", post({ task: "[[write]] x" })));
    expect([status, body.error]).toEqual([429, expect.stringContaining("100")]);
  });
});

async function ask(question: string, more: object = {}, caller = owner): Promise<[number, Result]> {
  return json(await caller.http("/execute", post({ question, ...more })));
}

interface ServerEvent {
  event: string | undefined;
  data: Result & { text?: string };
}

async function* eventsOf(question: string, more: object = {}): AsyncGenerator<ServerEvent> {
  const response = await owner.http("/execute", {
    ...post({ question, ...more }),
    headers: { accept: "text/event-stream" },
  });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const events: ServerEvent[] = [];
  const parser = createParser({
    onEvent: ({ event, data }) => events.push({ event, data: JSON.parse(data) }),
  });
  const decoder = new TextDecoder();
  for await (const piece of response.body ?? []) {
    parser.feed(decoder.decode(piece, { stream: true }));
    yield* events.splice(0);
  }
}

/** Asks a question, and disconnects after this event. Returns the task's id. */
async function leaveAt(event: string, question: string, more: object = {}): Promise<string> {
  let id = "";
  for await (const { event: name, data } of eventsOf(question, more)) {
    id = data.taskId ?? id;
    if (name === event) break;
  }
  return id;
}

it("DELETE /tasks/:taskId/result deletes a result with its log, files and list entry, but not another principal's", async () => {
  const sandbox = "Rest:own@example.com";
  const execute = async () =>
    (await json(await owner.http("/execute", post({ task: "[[write]] x", sandbox }))))[1];
  const older = await execute();
  await sh(sandbox, "rm a.txt");
  const { taskId } = await execute();
  expect((await objectsOf(taskId)).length).toBeGreaterThan(0);
  const other = await principal("rest-other", ["tasks:run"]);
  const missing = [404, { error: "You have no task with this id. Its record may have expired." }];
  expect(await json(await other.http(`/tasks/${taskId}/result`))).toEqual(missing);
  expect((await remove(taskId, other)).status).toBe(404);
  const command = await owner.call("run_command", { sandbox, command: "true" });
  for (const id of ["nothing", String(command.structured.id), `${taskId}t`])
    expect(await resultOf(id)).toEqual(missing);
  expect((await resultOf(encodeURIComponent(taskId)))[0]).toBe(200);
  expect((await remove(taskId)).status).toBe(204);
  expect(await resultOf(taskId)).toEqual(missing);
  expect((await remove(taskId)).status).toBe(404);
  expect(await objectsOf(taskId)).toEqual([]);
  expect((await owner.call("get_result", { id: taskId })).isError).toBe(true);
  expect((await owner.call("list_runs", { kind: "task" })).text).not.toContain(taskId);
  // A page of a list can end with a task that is deleted before the next page is read.
  expect((await owner.call("list_runs", { kind: "task", cursor: taskId })).text).toContain(older.taskId);
  const continued = await owner.call("execute_task", { task: "x", continue_from: taskId });
  expect(continued).toMatchObject({ isError: true });
});

describe("a question", () => {
  it("is answered by a program in a new sandbox, and the answer is stored", async () => {
    const [status, result] = await ask("[[product]] What is 6 times 7?");
    expect(status).toBe(200);
    expect(result).toMatchObject({
      success: true,
      status: "succeeded",
      language: "python",
      code: "answer = 6 * 7\nprint(answer)",
      output: "42\n",
      error: null,
      stderr: "",
      images: [],
      tokens: { input: 10, output: 5 },
    });
    const { taskId: id } = result;
    const [, stored] = await resultOf(id);
    expect(stored).toMatchObject({ ...result, timestamp: expect.any(String) });
    expect((await owner.call("get_result", { id })).text).toBe(
      "python:\n```\nanswer = 6 * 7\nprint(answer)\n```\nstdout: 42",
    );
    const { structured } = await owner.call("list_runs", { kind: "task" });
    const listed = (structured.runs as { id: string; started_at: string }[]).find((run) => run.id === id);
    expect(listed).toMatchObject({ state: "succeeded", title: "[[product]] What is 6 times 7?" });
    // The duration includes the time of the model.
    const startedAt = Date.parse(String(stored.timestamp)) - Number(stored.duration_ms);
    expect(new Date(startedAt).toISOString()).toBe(listed?.started_at);
    const [sandbox = ""] = id.split(".");
    await until(async () => !(await owner.call("list_sandboxes", {})).text.includes(sandbox));
    const next = await owner.call("execute_task", { task: "x", continue_from: id });
    expect(next).toMatchObject({ isError: true, text: expect.stringContaining("cannot be continued") });
  });

  it("may name a sandbox with files and a language, and its result has images and exceptions", async () => {
    const sandbox = "asked";
    await sh(sandbox, "printf a,b > data.csv");
    const [, read] = await ask("[[read]] What is in data.csv?", { sandbox });
    expect(read).toMatchObject({ success: true, output: "a,b\n" });
    await ask("[[product]] x", { sandbox });
    const more = { sandbox, code: "answer + 1", context: "question" };
    expect((await owner.call("run_code", more)).text).toBe("result: 43");

    const [raisedStatus, raised] = await ask("[[raise]] x", { sandbox });
    expect(raisedStatus).toBe(200);
    const error = expect.stringContaining("no such thing");
    expect(raised).toMatchObject({ success: false, status: "failed", output: "before\n", error });
    const [, drawn] = await ask("[[picture]] x", { sandbox });
    const images = [{ mimeType: "image/png", data: expect.stringMatching(/^iVBOR/) }];
    expect(drawn).toMatchObject({ output: "drawn\n", images });

    const [, typed] = await ask("[[typed]] x", { sandbox, language: "typescript" });
    expect(typed).toMatchObject({ language: "typescript", output: "42\n" });
    const [, other] = await ask("[[typed]] x", { sandbox, language: "python" });
    expect(other).toMatchObject({ success: false, error: expect.stringMatching(/language/) });
  });

  it("streams the program and its output", async () => {
    const events: ServerEvent[] = [];
    for await (const event of eventsOf("[[product]] x", { sandbox: "asked" })) events.push(event);
    const names = events.map(({ event }) => event);
    expect(new Set(names)).toEqual(new Set(["task", "code", "output", "result"]));
    expect([names[0], names.at(-1)]).toEqual(["task", "result"]);
    expect(names.lastIndexOf("code")).toBeLessThan(names.indexOf("output"));
    const texts = (name: string) =>
      events.flatMap(({ event, data }) => (event === name ? data.text : [])).join("");
    const result = events.at(-1)?.data;
    expect(result).toMatchObject({ success: true, code: texts("code"), output: texts("output") });
  });

  it("streams much output in short events, because those that a client does not read stay in memory", async () => {
    const lengths: number[] = [];
    for await (const { event, data } of eventsOf("[[much]] x", { sandbox: "asked" }))
      if (event === "output") lengths.push(data.text?.length ?? 0);
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(200_001);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(32 * 1024);
  });

  it("continues without its client, and can be cancelled while the model writes or the program runs", async () => {
    const sandbox = "asked";
    const disconnected = await leaveAt("output", "[[long]] x", { sandbox });
    expect(await resultOf(disconnected)).toMatchObject([202, { taskId: disconnected, status: "running" }]);
    await sh(sandbox, "touch go-on");
    await until(async () => (await resultOf(disconnected))[0] === 200);
    expect((await resultOf(disconnected))[1]).toMatchObject({ success: true, output: "begun\nended\n" });

    const cancelled = { success: false, status: "cancelled" };
    const writing = await leaveAt("task", "[[hang]] x");
    await owner.call("cancel_run", { id: writing });
    expect(await resultOf(writing)).toMatchObject([
      200,
      { ...cancelled, error: "The question was cancelled before its program was run." },
    ]);
    await sh(sandbox, "rm go-on");
    const running = await leaveAt("output", "[[long]] x", { sandbox });
    await owner.call("cancel_run", { id: running });
    expect(await resultOf(running)).toMatchObject([200, { ...cancelled, output: "begun\n" }]);
  });

  it("ends at its timeout while the model writes", async () => {
    expect(await ask("[[hang]] x", { timeout: 300 })).toMatchObject([
      200,
      { status: "timed_out", error: expect.stringContaining("did not write the program within 0.3 s") },
    ]);
  });

  it("is lost when the server is restarted, and its result says so", async () => {
    const sandbox = "asked";
    await sh(sandbox, "rm -f go-on");
    // The model has written: workerd 1.2026 may crash if an actor is evicted during its own request.
    const id = await leaveAt("output", "[[long]] x", { sandbox });
    await evict(sandbox);
    await until(async () => (await resultOf(id))[0] === 200);
    const error = expect.stringContaining("so its result is lost");
    expect((await resultOf(id))[1]).toMatchObject({ status: "lost", error });
  });

  it.concurrent.each([
    ["decline", /^The model wrote no program. Ask for .* The model wrote: "I would rather not."$/],
    ["refused", /^The model declined to answer.$/],
    ["endless", /^The program is longer than the model/],
    ["blank", /its code is empty/],
    ["no-code", /it has no code/],
    ["fail", /status 400, "no such model"/],
    ["denied", /refused the server's credential \(status 401, "invalid x-api-key"\)/],
    ["overloaded", /overloaded or failing \(status 529, "Overloaded"\)/],
    ["cut", /ended early/],
  ])("has a result that says why no program ran: %s", async (name, error) => {
    expect(await ask(`[[${name}]] x`)).toMatchObject([
      200,
      { success: false, status: "failed", output: "", error: expect.stringMatching(error) },
    ]);
  });

  it("is sent again if the model's API is busy for a moment", async () => {
    expect(await ask("[[busy]] x", { sandbox: "asked" })).toMatchObject([
      200,
      { success: true, output: "at last\n" },
    ]);
  });

  it("counts towards the model tokens of the day, and needs a credential", async () => {
    const asker = await principal("asker", ["tasks:run"]);
    const spend = (tokens: number) =>
      accountOf(asker).spendModelTokens(new Map([[dayOf(Date.now()), tokens]]));
    expect(await ask("[[product]] x", {}, asker)).toMatchObject([200, { success: true }]);
    await until(async () => (await spend(0)).used === 15);
    await spend(50_000_000);
    expect(await ask("[[product]] x", {}, asker)).toMatchObject([
      429,
      { error: expect.stringContaining("model tokens today, and your limit is 50000000") },
    ]);
    const without = owner.withVariables({ ANTHROPIC_API_KEY: undefined });
    expect(await ask("x", {}, without)).toMatchObject([
      500,
      { details: expect.stringMatching(/no credential for a model.*ANTHROPIC_API_KEY/) },
    ]);
  });
});

describe("the stream of a model's response", () => {
  const code = "print(\"a\\u00e9\\\\\\n\", '\u{1f600}')\n";
  const input = JSON.stringify({ language: "python", code }).replace("\u{1f600}", "\\ud83d\\ude00");

  function streamOf(pieces: readonly string[]): Uint8Array {
    const events = [
      { type: "message_start", message: { usage: { input_tokens: 7 } } },
      { type: "content_block_start", index: 1, content_block: { type: "tool_use", name: "write_program" } },
      ...pieces.map((partial_json) => ({
        type: "content_block_delta",
        index: 1,
        delta: { type: "input_json_delta", partial_json },
      })),
      { type: "message_delta", delta: { stop_reason: "tool_use" }, usage: { output_tokens: 9 } },
      { type: "message_stop" },
    ];
    return new TextEncoder().encode(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(""));
  }

  it("is parsed correctly from pieces of any size", () => {
    for (let at = 0; at <= input.length; at++) {
      const reader = new ProgramReader(["python", "typescript"]);
      const codeSoFar: string[] = [];
      for (const byte of streamOf([input.slice(0, at), input.slice(at)])) {
        reader.add(Uint8Array.of(byte));
        if (reader.code !== codeSoFar.at(-1)) codeSoFar.push(reader.code);
      }
      for (const part of codeSoFar) expect(code.startsWith(part) && part.isWellFormed()).toBe(true);
      expect(reader.code).toBe(code);
      expect(reader.program).toEqual({ language: "python", code });
      expect(reader.usage).toEqual({ input: 7, output: 9 });
    }
  });

  it("is limited, and no program comes from invalid JSON", () => {
    const reader = new ProgramReader(["python"]);
    const piece = `${input.slice(0, -2)}${"x".repeat(100_000)}`;
    let isWanted = true;
    for (let count = 0; isWanted && count < 100; count++)
      isWanted = reader.add(streamOf([piece]).subarray(0, -60));
    expect(reader.code).toHaveLength(50_000);
    expect([isWanted, reader.program]).toMatchObject([false, { problem: expect.stringMatching(/longer/) }]);
    const garbage = new ProgramReader(["python"]);
    garbage.add(streamOf(['{"language": "python", "code": "print(1', "\n"]));
    expect(garbage.program).toMatchObject({ problem: expect.stringContaining("it is not a JSON object") });
  });

  it.each([
    ["spaces before the program", " "],
    ["a line break in its code, which JSON does not allow", '{"code": "\n'],
  ])("takes no more time for each further event: %s", (_what, start) => {
    const exec = vi.spyOn(RegExp.prototype, "exec");
    const reader = new ProgramReader(["python"]);
    for (let count = 0; count < 100; count++)
      reader.add(streamOf([count === 0 ? start : " ".repeat(1000)]).subarray(0, -120));
    const searched = exec.mock.calls.reduce((sum, [text]) => sum + text.length, 0);
    exec.mockRestore();
    expect(searched).toBeLessThan(500_000);
  });

  it("is limited in its values", () => {
    const reader = new ProgramReader(["python"]);
    const more = Array.from({ length: 30_000 }, () => ({}));
    const event = JSON.stringify({ type: "message_stop", more });
    expect(reader.add(new TextEncoder().encode(`data: ${event}\n\n`))).toBe(true);
  });
});

it("a stream and a long wait end soon after the revocation of their token", async () => {
  const variables = { ...(env as Env), PUBLIC_ORIGIN: ORIGIN, LOG_LEVEL: "error" } as Env;
  const app = (url: string, init?: RequestInit) =>
    worker.fetch(new Request(new URL(url, ORIGIN), init), variables, createExecutionContext());
  const client = await Client.register(app);
  const browser = new Browser(app);
  const page = await browser.open(await client.authorizationURL());
  const approved = await browser.submit(page, { decision: "owner", token: variables.SERVER_AUTH_TOKEN });
  const code = approved.location?.searchParams.get("code") ?? "";
  const tokens = await (await client.exchange(code)).json<Tokens>();
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  const sandbox = "rest-revoked";
  const question = { question: "[[long]] x", sandbox };
  const start = (wait: number) => app("/execute", { ...post({ ...question, wait }), headers });
  const [, { taskId }] = await json(await start(0));
  const waiting = start(60_000);
  const accept = "text/event-stream";
  const stream = await app(`/tasks/${taskId}/result`, { headers: { ...headers, accept } });
  const running = async () => {
    const { runs } = (await owner.call("list_runs", { sandbox })).structured;
    return (runs as { id: string; state: string }[]).filter(({ state }) => state === "running");
  };
  await until(async () => (await running()).length === 2);
  await client.token({ token: tokens.refresh_token });
  vi.useFakeTimers({ now: Date.now() + 61_000, toFake: ["Date"] });
  const events = await stream.text();
  expect(events).toMatch(/^event: error\ndata: .*token is not valid/m);
  for (const { id } of await running()) await owner.call("cancel_run", { id });
  const response = await waiting;
  expect(response.status).toBe(202);
  const fields = await response.json<Record<string, unknown>>();
  expect(Object.keys(fields).sort()).toEqual(["result", "status", "taskId"]);
});

it("the routes of a task need a token with the scope tasks:run, and the right method", async () => {
  const reader = await principal("rest-reader", ["sandbox:read", "sandbox:exec"]);
  for (const [path, init] of [
    ["/execute", post({ task: "x" })],
    ["/tasks/default.01m7w10c4v0brrp65wgryrkjhst/result", {}],
  ] as const) {
    const unknown = await owner.http(path, { ...init, headers: { authorization: "Bearer wrong" } });
    expect(await json(unknown)).toMatchObject([401, { error: "Unauthorized" }]);
    const refused = await reader.http(path, init);
    expect(refused.headers.get("www-authenticate")).toContain("insufficient_scope");
    const message = expect.stringContaining("tasks:run");
    expect(await json(refused)).toMatchObject([403, { error: "insufficient_scope", message }]);
  }
  expect((await owner.http("/execute")).status).toBe(405);
  expect((await owner.http("/tasks/a/result", { method: "POST" })).status).toBe(405);
  expect((await owner.http("/tasks/a")).status).toBe(404);
});
