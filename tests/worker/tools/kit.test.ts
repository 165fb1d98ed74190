import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import type { ServerContext } from "@modelcontextprotocol/server";
import { ToolError } from "../../../src/shared/errors.ts";
import { type Env, parseConfig } from "../../../src/shared/config.ts";
import { defineTool, sentPart, text, type ToolContext, type ToolOutput } from "../../../src/tools/define.ts";
import type { CallerContext } from "../../../src/shared/request-context.ts";
import { MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { countAnswer, RequestMemory } from "../../../src/shared/request-memory.ts";
import { owner } from "../support.ts";

interface Definition {
  name: string;
  description: string;
  annotations: { readOnlyHint: boolean };
  inputSchema: { properties: Record<string, { description?: string }> };
}

const bytes = (value: string) => new TextEncoder().encode(value).length;
const definitions = async () => (await owner.result<{ tools: Definition[] }>({ method: "tools/list" })).tools;

afterEach(() => void vi.restoreAllMocks());

describe("the list of tools", () => {
  it("stays within its budgets", async () => {
    expect(bytes(JSON.stringify(await owner.result({ method: "tools/list" })))).toBeLessThanOrEqual(13_312);
    for (const { name, description } of await definitions())
      expect([name, bytes(description) < 2048, description.length > 40]).toEqual([name, true, true]);
    const { instructions, serverInfo } = await owner.result<{
      instructions: string;
      serverInfo: { icons: { src: string }[] };
    }>({
      method: "initialize",
      params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } },
    });
    expect(bytes(instructions)).toBeLessThan(2048);
    expect(serverInfo.icons).toEqual([
      expect.objectContaining({ src: expect.stringMatching(/^data:image\/png;base64,iVBOR[\w+/=]{1,500}$/) }),
    ]);
    for (const essential of ["run_code", "run_command", "write_file", "read_file", "sandbox", "/workspace"])
      expect(instructions.slice(0, 512)).toContain(essential);
  });

  it("has flat schemas without references, and hints for every tool", async () => {
    for (const { name, annotations, inputSchema } of await definitions()) {
      expect(JSON.stringify(inputSchema), name).not.toMatch(/"\$ref"|"anyOf"|"oneOf"|"allOf"/);
      expect(Object.keys(annotations), name).toContain("readOnlyHint");
      expect("destructiveHint" in annotations, name).toBe(!annotations.readOnlyHint);
      expect(inputSchema, name).toMatchObject({ type: "object", additionalProperties: false });
      for (const field of Object.keys(inputSchema.properties)) expect(field, name).toMatch(/^[a-z_]+$/);
    }
  });
});

describe("arguments", () => {
  it.each([
    ["get_result", { id: "a", cursor: -1 }, ["cursor"]],
    ["list_runs", { limit: 1.5 }, ["limit"]],
    ["list_runs", { cursor: "foo" }, ["cursor", "previous page"]],
    ["list_runs", { cursor: `other.${"0".repeat(26)}` }, ["cursor other.", "sandbox default"]],
  ])("of %s that are out of range are named: %j", async (tool, args, names) => {
    const result = await owner.call(tool, args);
    expect(result.isError).toBe(true);
    for (const name of names) expect(result.text).toContain(name);
  });

  it.each([
    ["run_command", {}, "command is missing: it must be a text."],
    ["run_command", { command: "" }, "command must not be empty."],
    ["expose_port", { port: 80 }, "port must be a whole number from 1024 to 65535."],
    ["expose_port", { port: "8000", sandbox: 5 }, "port must be a number; sandbox must be a text."],
    ["run_code", { code: "1", language: "cobol" }, /^language must be python, .* or \w+\.$/],
    ["edit_file", { path: "a", edits: [] }, "edits must not be empty."],
    [
      "edit_file",
      { path: "a", edits: [{ old_text: "a", new: "b" }] },
      /^edits\.0\.new_text is missing.* has no parameter new\.$/,
    ],
    [
      "run_command",
      { command: "true", cmd: "x", working_directory: "/" },
      /^run_command has no parameter cmd, working_directory\. It accepts command, session, .*\.$/,
    ],
    // The hosts are not parsed.
    [
      "configure_sandbox",
      { allow_hosts: Array(101).fill("no host") },
      "allow_hosts must have at most 100 hosts.",
    ],
    ["run_command", { command: "true", env: { "1A": "x" } }, /^env\.1A is not a valid variable name: /],
    [
      "run_command",
      { command: "true", env: { ["A".repeat(1001)]: "x" } },
      /^env\.A{100} is not a valid variable name: use at most 1,000 /,
    ],
    // Without the cut, a name of 8 MB takes a second of the server's thread and 56 MB of the answer.
    [
      "run_command",
      { command: "true", env: { ["\x7f".repeat(1000)]: 5 } },
      /^env\.(?:\\u007f){100} must be a text\.$/,
    ],
  ])("of %s that are wrong cause a readable error: %j", async (tool, args, words) => {
    const { text: found } = await owner.call(tool, args);
    const prefix = `Input validation error: Invalid arguments for tool ${tool}: `;
    expect(found.slice(0, prefix.length)).toBe(prefix);
    expect(found.slice(prefix.length)).toMatch(words);
  });
});

describe("the progress of a call", () => {
  it("is sent if the call requested it", async () => {
    const args = { sandbox: "kit", command: "sleep 6; echo done" };
    const { messages } = await owner.send("run_command", args, { progressToken: "token-1" });
    const progress = messages.find(({ method }) => method === "notifications/progress");
    expect(progress).toMatchObject({ params: { progressToken: "token-1", progress: 5 } });
    expect(messages.at(-1)).toMatchObject({ result: { content: [text("exit_code: 0\nstdout: done")] } });
  });

  it("is not sent if its token is so long that each notification would take much memory", async () => {
    const args = { sandbox: "kit", command: "echo line; sleep 2" };
    const call = async (length: number) =>
      (await owner.send("run_command", args, { progressToken: "t".repeat(length) })).messages;
    expect(await call(256)).toContainEqual(expect.objectContaining({ method: "notifications/progress" }));
    expect(await call(257)).toEqual([expect.objectContaining({ result: expect.anything() })]);
  });

  it("has no further lines while clients have not read many, and is repeated all the same", async () => {
    vi.useFakeTimers();
    const { signal } = new AbortController();
    const unread = new RequestMemory("kit-progress", signal);
    unread.add(MAX_HELD_BYTES / 2 - 1000);
    const notify = vi.fn<(notification: object) => Promise<void>>(async () => undefined);
    const print = async (_args: unknown, { progress }: ToolContext) => {
      for (let line = 1; line <= 50; line++) progress?.(`line ${line}`);
      expect(notify.mock.calls.length).toBeGreaterThan(5);
      expect(notify.mock.calls.length).toBeLessThan(30);
      notify.mockClear();
      await vi.advanceTimersByTimeAsync(5000);
      progress?.("unread");
      unread.release();
      progress?.("next");
      return { content: [] };
    };
    const memory = new RequestMemory("kit-progress", signal);
    await callHandler(print, false, { _meta: { progressToken: "t" }, notify }, signal, memory);
    expect(notify.mock.calls).toMatchObject([
      [{ params: { message: "line 50: 5 s" } }],
      [{ params: { message: "next" } }],
    ]);
    memory.release();
  });

  it("has the last printed line, shortened and as plain text", async () => {
    const go = "/tmp/progress-go";
    const long = "x".repeat(1000);
    const command = `printf 'first\\n\\e[31mred\\e[0m \\a bell\\n'; until [ -e ${go} ]; do sleep 0.05; done; printf '10 %%\\r20 %%' >&2; sleep 1; echo ${long}; sleep 1`;
    const call = owner.send("run_command", { sandbox: "kit", command }, { progressToken: "token-2" });
    await owner.call("run_command", { sandbox: "kit", session: "b", command: `sleep 1; touch ${go}` });
    const progress = (await call).messages
      .filter(({ method }) => method === "notifications/progress")
      .map(({ params }) => (params as { message: string }).message);
    expect(progress).toContain("red \ufffd bell");
    expect(progress).toContain("20 %");
    expect(progress).toContain("x".repeat(200));
  });
});

/** Calls a tool with this handler outside a server. @param mcpReq what the tool gets of the request */
async function callHandler(
  handle: (args: unknown, context: ToolContext) => Promise<ToolOutput>,
  isStructured = false,
  mcpReq: object = {},
  client = new AbortController().signal,
  memory?: RequestMemory,
) {
  const tool = defineTool({
    name: "list_files",
    title: "Fail",
    description: "Fails",
    input: z.strictObject({}),
    annotations: { readOnlyHint: true },
    scopes: [],
    handle,
  });
  const lines: string[] = [];
  vi.spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
  const caller: CallerContext = {
    env: env as Env,
    config: parseConfig(env as Env),
    ctx: createExecutionContext(),
    principal: { id: "owner", scopes: [], via: "token" },
    metadata: undefined,
    origin: undefined,
    arrivedAt: Date.now(),
    requestID: "request-1",
    client,
    isStructured,
    ...(memory && { memory }),
  };
  const server = { mcpReq: { requestState: () => undefined, ...mcpReq } } as unknown as ServerContext;
  const result = await tool.call({}, caller, server);
  return { result, lines, log: lines.join("\n") };
}

describe("an error of a tool", () => {
  it("that is expected is a sentence that names the next call, and has a code if the client requested data", async () => {
    const fail = async () => {
      throw new ToolError("not_found", "There is no a.", "Use b.");
    };
    const { result, log } = await callHandler(fail);
    expect(result).toEqual({ content: [text("There is no a. Use b.")], isError: true });
    expect(JSON.parse(log)).toMatchObject({ event: "call", outcome: "error", error_code: "not_found" });
    const { result: data } = await callHandler(fail, true);
    const error = { code: "not_found", message: "There is no a.", hint: "Use b." };
    expect(data._meta).toEqual({ "sandbox-mcp/error": error });
    expect(data.structuredContent).toBeUndefined();
  });

  it("that is unexpected has a reference, and only the log has the details", async () => {
    const { result, log } = await callHandler(async () => {
      throw new RangeError("secret detail");
    });
    expect(result.isError).toBe(true);
    expect(result.content).toEqual([
      text("Internal error (ref request-1). The server's log has the details under that reference."),
    ]);
    expect(log).toContain("RangeError");
    expect(log).toContain("request-1");
  });
});

describe("an answer that its client has not read", () => {
  it.each([
    ["its escapes", { content: [text("\u0001".repeat(1000))] }],
    ["structured data that its text does not have", { content: [], structured: { html: "x".repeat(6000) } }],
  ])("counts with %s", (_, answer: ToolOutput) => {
    const memory = new RequestMemory("kit-unread", new AbortController().signal);
    const caller = { isStructured: true } as CallerContext;
    countAnswer(memory, sentPart(answer, caller), true);
    expect(memory.hasRoomFor(MAX_HELD_BYTES - 6000)).toBe(false);
    expect(memory.hasRoomFor(MAX_HELD_BYTES - 7000)).toBe(true);
    memory.release();
  });
});

describe("a call's line in the log", () => {
  const answer = async (): Promise<ToolOutput> => ({ content: [text("done")] });
  const outcomesOf = (log: string) => log.split("\n").map((line) => JSON.parse(line).outcome);

  it("comes when the client disconnects, and only then", async () => {
    const client = new AbortController();
    const disconnect = () => {
      client.abort();
      return answer();
    };
    const { log } = await callHandler(disconnect, false, {}, client.signal);
    expect(outcomesOf(log)).toEqual(["disconnected"]);
  });

  it("comes for a client that has disconnected before the call", async () => {
    const { log } = await callHandler(answer, false, {}, AbortSignal.abort());
    expect(outcomesOf(log)).toEqual(["disconnected"]);
  });

  it("comes once if the client disconnects after the call, and no listener stays at its signal", async () => {
    const client = new AbortController();
    const added = vi.spyOn(client.signal, "addEventListener");
    const removed = vi.spyOn(client.signal, "removeEventListener");
    const { log, lines } = await callHandler(answer, false, {}, client.signal);
    client.abort();
    expect(outcomesOf(log)).toEqual(["ok"]);
    expect(lines).toHaveLength(1);
    const listenersOf = ({ mock }: typeof added | typeof removed) =>
      new Set(mock.calls.map(([, listener]) => listener));
    expect(listenersOf(added).size).toBeGreaterThan(0);
    expect(listenersOf(removed)).toEqual(listenersOf(added));
  });
});
