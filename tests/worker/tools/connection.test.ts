/** Settings in the endpoint's address and the server's variables, which apply to every call of a connection. */
import { describe, expect, it } from "vitest";
import { MAX_WAIT_SECONDS } from "../../../src/shared/config.ts";
import { TOOL_SETS } from "../../../src/shared/tool-sets.ts";
import { WAIT_SECONDS } from "../../../src/shared/wait.ts";
import { tools as allTools } from "../../../src/tools/index.ts";
import { type Caller, owner, principal } from "../support.ts";

interface Listed {
  name: string;
  inputSchema: { properties: Record<string, { default?: unknown; maximum?: number }> };
}

const list = async (caller: Caller) =>
  (await caller.result<{ tools: Listed[] }>({ method: "tools/list" })).tools;

const instructions = async (caller: Caller) => {
  const params = {
    protocolVersion: "2025-06-18",
    capabilities: {},
    clientInfo: { name: "test", version: "1" },
  };
  return (await caller.result<{ instructions: string }>({ method: "initialize", params })).instructions;
};

describe("?sandbox=NAME", () => {
  const chat = owner.withQuery("?sandbox=chat-1");

  it("is the sandbox of calls that do not name one", async () => {
    await chat.call("write_file", { path: "mine.txt", content: "of this chat" });
    expect((await chat.call("run_command", { command: "cat mine.txt" })).text).toContain("of this chat");
    expect((await chat.call("run_code", { code: "open('mine.txt').read()" })).text).toContain("of this chat");
    expect((await owner.call("read_file", { path: "mine.txt", sandbox: "chat-1" })).structured.content).toBe(
      "of this chat",
    );
    const another = await owner.withQuery("?sandbox=chat-2").call("read_file", { path: "mine.txt" });
    expect(another).toMatchObject({
      isError: true,
      text: expect.stringContaining("There is no /workspace/mine.txt"),
    });
    expect((await chat.call("list_runs")).text).toContain("cat mine.txt");
  });

  it("does not apply to a call that names a sandbox", async () => {
    await chat.call("write_file", { path: "named.txt", content: "elsewhere", sandbox: "chat-2" });
    expect((await owner.call("read_file", { path: "named.txt", sandbox: "chat-2" })).structured.content).toBe(
      "elsewhere",
    );
  });

  it("is the default that tools and instructions show", async () => {
    const defaults = (tools: Listed[]) =>
      new Set(tools.flatMap(({ inputSchema }) => inputSchema.properties.sandbox?.default ?? []));
    expect(defaults(await list(chat))).toEqual(new Set(["chat-1"]));
    expect(await instructions(chat)).toContain(`(default "chat-1")`);
    expect(await instructions(owner)).toContain(`(default "default")`);
  });

  it("does not make tools accept wrong arguments, and unrelated parameters of the address are ignored", async () => {
    expect(await chat.call("run_command", { command: "true", comand: "x" })).toMatchObject({
      isError: true,
      text: expect.stringContaining("comand"),
    });
    expect((await list(owner.withQuery("?api_key=x&profile=y"))).length).toBeGreaterThan(0);
  });
});

describe("an endpoint's address", () => {
  it.each([
    ["?sandox=work", /has no parameter \S+: use sandbox/],
    [`?${"a&".repeat(1025)}`, /has more than 2048 characters/],
    ["?SANDBOX=work", /has no parameter \S+: use sandbox/],
    ["?result=structured", /has no parameter \S+: use results/],
    ["?tool=code", /has no parameter \S+: use tools/],
    ["?sandbox=No%20Name", /sandbox must be/],
    ["?sandbox=", /sandbox must be/],
    ["?sandbox=a&sandbox=b", /sandbox must be/],
    ["?results=xml", /results must be/],
    ["?results=", /results must be/],
    ["?tools=", /\?tools= must name .*: code, files, tasks, admin, run_code,/],
    ["?tools=code,run_cod", /\?tools= must name .*: code, files, tasks, admin, run_code,/],
    ["?tools=constructor", /\?tools= must name .*: code, files, tasks, admin, run_code,/],
  ])("with %s is refused with a readable error", async (query, words) => {
    const { status, messages } = await owner.withQuery(query).post({ method: "tools/list" });
    expect([status, JSON.stringify(messages)]).toEqual([400, expect.stringMatching(words)]);
  });
});

const names = async (caller: Caller) => (await list(caller)).map(({ name }) => name);

describe("?tools=", () => {
  it("lists the named tools and sets, and mentions no others", async () => {
    const files = owner.withQuery("?tools=files");
    expect(new Set(await names(files))).toEqual(new Set(TOOL_SETS.files));
    expect(await instructions(files)).toMatch(/for files\. write_file and read_file move files/);
    expect(await instructions(files)).not.toMatch(/run_|_task|_sandbox|_port/);
    const few = owner.withQuery("?tools=run_command,read_file&tools=get_result");
    expect(await names(few)).toEqual(["run_command", "read_file", "get_result"]);
    expect(await instructions(few)).toContain("run_command keeps a bash session; read_file moves files.");
  });

  it("has a set for every tool", async () => {
    expect(await names(owner.withQuery("?tools=code,files,tasks,admin"))).toEqual(
      allTools.map(({ name }) => name),
    );
  });

  it("makes a call of another tool an error with the reason", async () => {
    const { isError, text } = await owner
      .withQuery("?tools=files")
      .call("run_command", { command: "touch /tmp/called", sandbox: "chat-2" });
    expect(isError).toBe(true);
    expect(text).toMatch(/no run_command: the \?tools= of its address leaves it out.*write_file/);
    const listed = await owner.call("run_command", { command: "ls /tmp/called", sandbox: "chat-2" });
    expect(listed.structured.exit_code).toBe(2);
  });
});

describe("TOOLS", () => {
  const reading = owner.withVariables({ TOOLS: "read_file, list_files,list_runs" });

  it("limits which tools are listed, called and chosen by ?tools=", async () => {
    expect(await names(reading)).toEqual(["read_file", "list_files", "list_runs"]);
    expect(await names(reading.withQuery("?tools=files"))).toEqual(["read_file", "list_files"]);
    const { status, messages } = await reading.withQuery("?tools=write_file").post({ method: "tools/list" });
    expect([status, JSON.stringify(messages)]).toEqual([
      400,
      expect.stringMatching(
        /separated by commas: code, files, tasks, admin, list_runs, read_file, list_files\./,
      ),
    ]);
    const { isError, text } = await reading.call("write_file", { path: "a", content: "b" });
    expect([isError, text]).toEqual([
      true,
      expect.stringContaining("This server does not offer write_file."),
    ]);
  });

  it("applies to tasks over HTTP, too", async () => {
    const response = await reading.http("/execute", { method: "POST", body: `{"task": "[[write]]"}` });
    expect([response.status, await response.text()]).toEqual([
      500,
      expect.stringContaining("does not offer execute_task"),
    ]);
  });
});

describe("the scopes of a token", () => {
  it("hide the tools that they never allow", async () => {
    const reader = await principal("list-reader", ["sandbox:read"]);
    const readerTools = await names(reader);
    expect(readerTools).toEqual(
      "read_file list_files file_link get_result list_runs list_sandboxes".split(" "),
    );
    for (const { name } of allTools)
      expect([name, (await reader.send(name, { id: "a" })).status]).toEqual([
        name,
        readerTools.includes(name) ? 200 : 403,
      ]);
    // The token can read only tasks, by their ids.
    expect(await names(await principal("list-tasks", ["tasks:run"]))).toEqual([
      "execute_task",
      "get_result",
      "cancel_run",
    ]);
  });
});

describe("MAX_WAIT_SECONDS", () => {
  /** The default and the maximum of wait_seconds in the tools that have it. */
  const limitsOf = async (caller: Caller) => {
    const fields = (await list(caller)).flatMap(
      ({ inputSchema: { properties } }) => properties.wait_seconds ?? [],
    );
    return [...new Set(fields.map((field) => `${field.default} of ${field.maximum}`))];
  };

  it("is 50 by default", async () => {
    expect(await limitsOf(owner)).toEqual([`${WAIT_SECONDS} of 50`]);
    expect(WAIT_SECONDS).toBeLessThanOrEqual(MAX_WAIT_SECONDS);
    for (const [tool, args] of [
      ["run_command", { command: "touch never" }],
      ["run_code", { code: "open('never', 'w')" }],
      ["get_result", { id: "default.0" }],
      ["execute_task", { task: "[[write]]" }],
    ] as const) {
      const refused = await owner.call(tool, { ...args, wait_seconds: 51 });
      expect(refused).toMatchObject({ isError: true, text: expect.stringMatching(/at most 50.*get_result/) });
    }
  });

  it("raises the maximum of wait_seconds, or lowers it together with the default", async () => {
    expect(await limitsOf(owner.withVariables({ MAX_WAIT_SECONDS: "600" }))).toEqual([
      `${WAIT_SECONDS} of 600`,
    ]);
    const hasty = owner.withVariables({ MAX_WAIT_SECONDS: "1" });
    expect(await limitsOf(hasty)).toEqual(["1 of 1"]);
    const { text } = await hasty.call("run_command", { command: "sleep 20", sandbox: "chat-1" });
    expect(text).toContain("state: running");
    const { status } = await owner.withVariables({ MAX_WAIT_SECONDS: "601" }).post({ method: "tools/list" });
    expect(status).toBe(500);
  });
});

describe("a server without a credential for a model", () => {
  const bare = owner.withVariables({ ANTHROPIC_API_KEY: undefined, CLAUDE_CODE_OAUTH_TOKEN: undefined });

  it("does not list or mention execute_task", async () => {
    expect((await list(bare)).map(({ name }) => name)).not.toContain("execute_task");
    expect(await instructions(bare)).not.toMatch(/task/);
    expect((await list(owner)).map(({ name }) => name)).toContain("execute_task");
    const subscribed = bare.withVariables({ CLAUDE_CODE_OAUTH_TOKEN: "oauth-token" });
    expect((await list(subscribed)).map(({ name }) => name)).toContain("execute_task");
  });

  it("returns the reason to a client that still calls it", async () => {
    const { isError, text } = await bare.call("execute_task", { task: "anything" });
    expect(isError).toBe(true);
    expect(text).toMatch(/no credential.*ANTHROPIC_API_KEY.*run_command/);
  });
});
