/** What the endpoint's address and the server's variables decide for every call of a connection. */
import { describe, expect, it } from "vitest";
import { type Caller, owner } from "../support.ts";

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
  const chat = owner.at("?sandbox=chat-1");

  it("is the sandbox of calls that name none", async () => {
    await chat.call("write_file", { path: "mine.txt", content: "of this chat" });
    expect((await chat.call("run_command", { command: "cat mine.txt" })).text).toContain("of this chat");
    expect((await chat.call("run_code", { code: "open('mine.txt').read()" })).text).toContain("of this chat");
    expect((await owner.call("read_file", { path: "mine.txt", sandbox: "chat-1" })).text).toBe(
      "of this chat",
    );
    const another = await owner.at("?sandbox=chat-2").call("read_file", { path: "mine.txt" });
    expect(another).toMatchObject({
      isError: true,
      text: expect.stringContaining("There is no /workspace/mine.txt"),
    });
    expect((await chat.call("list_runs")).text).toContain("cat mine.txt");
  });

  it("gives way to the sandbox that a call names", async () => {
    await chat.call("write_file", { path: "named.txt", content: "elsewhere", sandbox: "chat-3" });
    expect((await owner.call("read_file", { path: "named.txt", sandbox: "chat-3" })).text).toBe("elsewhere");
  });

  it("is the default that tools and instructions show", async () => {
    const defaults = (tools: Listed[]) =>
      new Set(tools.flatMap(({ inputSchema }) => inputSchema.properties.sandbox?.default ?? []));
    expect(defaults(await list(chat))).toEqual(new Set(["chat-1"]));
    expect(defaults(await list(owner))).toEqual(new Set(["default"]));
    expect(await instructions(chat)).toContain(`("chat-1" unless given)`);
  });

  it("still refuses arguments that are wrong, and leaves parameters of others alone", async () => {
    expect(await chat.call("run_command", { command: "true", comand: "x" })).toMatchObject({
      isError: true,
      text: expect.stringContaining("comand"),
    });
    expect((await list(owner.at("?api_key=x&profile=y"))).length).toBeGreaterThan(0);
  });

  it.each(["?sandox=work", "?SANDBOX=work", "?sandbox-name=work", "?result=structured"])(
    "refuses %s, which is meant for another",
    async (query) => {
      const { status, messages } = await owner.at(query).post({ method: "tools/list" });
      expect(status).toBe(400);
      expect(JSON.stringify(messages)).toMatch(/has no parameter \S+: say (sandbox|results)/);
    },
  );

  it.each(["?sandbox=No%20Name", "?sandbox=NAME", "?sandbox=", "?sandbox=-a", "?results=xml", "?results="])(
    "refuses %s in words",
    async (query) => {
      const { status, messages } = await owner.at(query).post({ method: "tools/list" });
      expect(status).toBe(400);
      expect(JSON.stringify(messages)).toMatch(/(sandbox|results) must be/);
    },
  );
});

describe("MAX_WAIT_SECONDS", () => {
  const waits = (tools: Listed[]) =>
    tools.flatMap(({ inputSchema: { properties } }) => properties.wait_seconds ?? []);

  it("is 50 unless the operator says otherwise", async () => {
    const fields = waits(await list(owner));
    expect(fields.length).toBeGreaterThan(3);
    for (const field of fields) expect(field).toMatchObject({ default: 45, maximum: 50 });
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

  it("raises it, and lowers it with the default", async () => {
    for (const field of waits(await list(owner.with({ MAX_WAIT_SECONDS: "600" }))))
      expect(field).toMatchObject({ default: 45, maximum: 600 });
    const hasty = owner.with({ MAX_WAIT_SECONDS: "1" });
    for (const field of waits(await list(hasty))) expect(field).toMatchObject({ default: 1, maximum: 1 });
    const { text } = await hasty.call("run_command", { command: "sleep 20", sandbox: "hasty" });
    expect(text).toContain("state: running");
    const { status } = await owner.with({ MAX_WAIT_SECONDS: "601" }).post({ method: "tools/list" });
    expect(status).toBe(500);
  });
});

describe("a server without a credential for a model", () => {
  const bare = owner.with({ ANTHROPIC_API_KEY: undefined, CLAUDE_CODE_OAUTH_TOKEN: undefined });

  it("does not list execute_task, nor speak of it", async () => {
    expect((await list(bare)).map(({ name }) => name)).not.toContain("execute_task");
    expect(await instructions(bare)).not.toMatch(/task/);
    expect((await list(owner)).map(({ name }) => name)).toContain("execute_task");
    const subscribed = bare.with({ CLAUDE_CODE_OAUTH_TOKEN: "oauth-token" });
    expect((await list(subscribed)).map(({ name }) => name)).toContain("execute_task");
  });

  it("says why to who calls it all the same", async () => {
    const { isError, text } = await bare.call("execute_task", { task: "anything" });
    expect(isError).toBe(true);
    expect(text).toMatch(/no credential.*ANTHROPIC_API_KEY.*run_command/);
  });
});
