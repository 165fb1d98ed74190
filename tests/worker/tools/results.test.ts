/** The parts of a tool's answer: text for models, and data only for programs that request it. */
import { describe, expect, it } from "vitest";
import { type Caller, owner } from "../support.ts";

const sandbox = "results";

interface Listed {
  name: string;
  outputSchema?: { type: string; properties: Record<string, object> };
}

/** The raw result of a call, without checks. */
async function raw(caller: Caller, name: string, args: Record<string, unknown>) {
  const { messages } = await caller.send(name, args);
  return messages.at(-1)?.result as {
    content: { type: string; text: string }[];
    structuredContent?: unknown;
  };
}

const list = async (caller: Caller) =>
  (await caller.result<{ tools: Listed[] }>({ method: "tools/list" })).tools;

/** Calls of every tool that needs no preparation. */
const CALLS: [tool: string, args: Record<string, unknown>][] = [
  ["run_command", { sandbox, command: "echo one" }],
  ["run_code", { sandbox, code: "print('two'); 3" }],
  ["write_file", { sandbox, path: "a.txt", content: "text" }],
  ["read_file", { sandbox, path: "a.txt" }],
  ["list_files", { sandbox }],
  ["list_runs", { sandbox }],
  ["list_sandboxes", {}],
  ["destroy_sandbox", { sandbox: "results-never" }],
];

/** Tools with answers that can contain an image. */
const SHOWS_IMAGES = ["run_code", "read_file", "get_result"];

describe("an answer", () => {
  it.each(CALLS)("of %s has text, and data only for programs that request data", async (tool, args) => {
    const result = await raw(owner, tool, args);
    expect(Object.keys(result)).not.toContain("structuredContent");
    const { structuredContent, content } = await raw(owner.withQuery("?results=structured"), tool, args);
    expect(structuredContent).toBeTypeOf("object");
    for (const text of [result.content[0]?.text, content[0]?.text]) expect(text).not.toBe("");
  });

  it("of get_result has the source of a run as data, cut after 16,383 characters", async () => {
    const command = "echo first\necho second";
    const ran = await owner.call("run_command", { sandbox, command });
    const result = { id: ran.structured.id, wait_seconds: 0 };
    expect((await owner.call("get_result", result)).structured).toMatchObject({
      kind: "command",
      title: "echo first",
      source: command,
      started_at: expect.stringMatching(/^\d{4}-.*Z$/),
      duration_ms: expect.any(Number),
    });
    const code = `# ${"x".repeat(20_000)}`;
    const long = await owner.call("run_code", { sandbox, code });
    const { structured } = await owner.call("get_result", { id: long.structured.id, wait_seconds: 0 });
    expect(structured.source).toBe(`${code.slice(0, 16_383)}…`);
  });

  it("has no id and no duration if no next call needs them", async () => {
    for (const [tool, args] of CALLS.slice(0, 3)) {
      const { content } = await raw(owner, tool, args);
      expect(content.map(({ text }) => text).join("\n")).not.toMatch(/results\.[0-9a-z]{26}|\d m?s\b/);
    }
    const { content } = await raw(owner, "run_command", { sandbox, command: "sleep 2", wait_seconds: 0 });
    expect(content[0]?.text).toMatch(/get_result, id results\.[0-9a-z]{26}/);
  });

  it("of get_result has the log as data, in parts", async () => {
    const { structured } = await owner.call("run_command", { sandbox, command: "echo out; echo err >&2" });
    const read = await owner.call("get_result", { id: structured.id, cursor: 0 });
    expect(read.structured).toMatchObject({ state: "succeeded", exit_code: 0, next_cursor: 8, log_bytes: 8 });
    expect(read.structured.log).toContainEqual({ stream: "stderr", text: "err\n" });
  });
});

describe("an answer of cancel_run", () => {
  const PIXEL = `import base64
from IPython.display import Image
Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="))`;

  it("leaves images to get_result", async () => {
    const { structured } = await owner.call("run_code", { sandbox, code: PIXEL });
    const types = async (tool: string) =>
      (await raw(owner, tool, { id: structured.id })).content.map(({ type }) => type);
    expect(await types("get_result")).toContain("image");
    expect(new Set(await types("cancel_run"))).toEqual(new Set(["text"]));
    expect((await owner.call("cancel_run", { id: structured.id })).text).toContain(
      "images: 1, shown by get_result",
    );
  });

  it("has the run as data, for every kind of run", async () => {
    const program = owner.withQuery("?results=structured");
    const code = await program.call("run_code", { sandbox, code: "6 * 7" });
    const command = await program.call("run_command", { sandbox, command: "sleep 3605", wait_seconds: 0 });
    const cancel = (id: unknown) => program.call("cancel_run", { id });
    expect((await cancel(code.structured.id)).structured).toMatchObject({
      state: "succeeded",
      result: "42",
    });
    expect((await cancel(command.structured.id)).structured).toMatchObject({
      state: "cancelled",
      stdout: "",
    });
  });
});

it("the list of tools has output schemas only for programs, except for tools that may return an image", async () => {
  for (const tool of await list(owner)) expect(tool).not.toHaveProperty("outputSchema");
  const tools = await list(owner.withQuery("?results=structured"));
  const schemas = tools.filter(({ outputSchema }) => outputSchema);
  expect(tools.filter(({ outputSchema }) => !outputSchema).map(({ name }) => name)).toEqual(
    expect.arrayContaining(SHOWS_IMAGES),
  );
  expect(tools).toHaveLength(schemas.length + SHOWS_IMAGES.length);
  for (const { name, outputSchema } of schemas)
    expect([name, outputSchema?.type, Object.keys(outputSchema?.properties ?? {}).length > 1]).toEqual([
      name,
      "object",
      true,
    ]);
  expect(JSON.stringify({ tools }).length).toBeLessThan(24_576);
});
