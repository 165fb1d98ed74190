import { describe, expect, it, vi } from "vitest";
import { MAX_BODY_BYTES } from "../../../src/server/body.ts";
import { MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import { readBody } from "../../../src/shared/stream-bytes.ts";
import { appWith, call, LIST, messages, post, TOKEN, recordEachLog } from "./support.ts";

const logs = recordEachLog();

const listAs = (id: unknown) => ({ ...LIST, id });

function callOfSize(bytes: number): string {
  const empty = JSON.stringify(call("note", { text: "" })).length;
  return JSON.stringify(call("note", { text: "a".repeat(bytes - empty) }));
}

function stream(...chunks: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    type: "bytes",
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

describe("the size of a body", () => {
  it("may be exactly the limit", async () => {
    const response = await appWith()("/mcp", post(callOfSize(MAX_BODY_BYTES)));
    expect(response.status).toBe(200);
    expect(JSON.stringify(await messages(response))).toContain("characters in");
  });

  it("may not be one byte more: 413 names the limit and what to do", async () => {
    const response = await appWith()("/mcp", post(callOfSize(MAX_BODY_BYTES + 1)));
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({
      jsonrpc: "2.0",
      id: null,
      error: { message: expect.stringMatching(/8388608 bytes \(8 MiB\).*write_file with append/) },
    });
    expect(logs.entries()).toMatchObject([{ status: 413, reason: "body_too_large", principal: "owner" }]);
    expect(logs.text().length).toBeLessThan(500);
  });

  it("is the number of received bytes, not Content-Length", async () => {
    const app = appWith();
    const small = post(LIST, { "content-length": String(MAX_BODY_BYTES * 2) });
    expect((await app("/mcp", small)).status).toBe(200);
    const chunk = new Uint8Array(1024 * 1024).fill(0x20);
    const large = {
      ...post("", { "content-length": "10" }),
      body: stream(...Array.from({ length: 9 }, () => chunk.slice())),
    };
    expect((await app("/mcp", large)).status).toBe(413);
  });

  it("is limited for an endless body, which the server soon stops reading", async () => {
    let sent = 0;
    const endless = new ReadableStream({
      type: "bytes",
      pull(controller) {
        sent += 1024 * 1024;
        controller.enqueue(new Uint8Array(1024 * 1024));
      },
    });
    expect((await appWith()("/mcp", { ...post(""), body: endless })).status).toBe(413);
    expect(sent).toBeLessThan(80 * 1024 * 1024);
  });

  it("is checked only after the token", async () => {
    const init = post(callOfSize(MAX_BODY_BYTES + 1), { authorization: "Bearer wrong" });
    expect((await appWith()("/mcp", init)).status).toBe(401);
  });
});

describe("the JSON of a body", () => {
  const utf8 = new TextEncoder();
  it.each<[string, BodyInit | null, string]>([
    ["nothing", null, "not JSON"],
    ["an empty text", "", "not JSON"],
    ["half a message", JSON.stringify(LIST).slice(0, -1), "not JSON"],
    ["two messages", JSON.stringify(LIST).repeat(2), "not JSON"],
    ["a form", "token=secret-in-body", "not JSON"],
    ["bytes that are not UTF-8", new Uint8Array([0x22, 0xff, 0xfe, 0x22]), "not UTF-8"],
    ["a character cut off at the end", utf8.encode('"é').slice(0, 2), "not UTF-8"],
    ["UTF-16", new Uint8Array([0x7b, 0, 0x7d, 0]), "not JSON"],
  ])("is refused with 400 if it is invalid: %s", async (_, body, problem) => {
    const response = await appWith()("/mcp", { ...post(""), body });
    expect(response.status).toBe(400);
    const text = await response.text();
    expect(JSON.parse(text)).toMatchObject({ jsonrpc: "2.0", id: null, error: { code: -32700 } });
    expect(text).toContain(problem);
    expect(logs.entries()).toMatchObject([{ status: 400, reason: "bad_body" }]);
    expect(text + logs.text()).not.toContain("secret-in-body");
  });

  it("is accepted if a character is split between two chunks, or it begins with a byte order mark", async () => {
    const bytes = utf8.encode(`\ufeff${JSON.stringify(call("note", { text: "héé" }))}`);
    const cut = bytes.indexOf(0xc3) + 1;
    const body = stream(bytes.slice(0, cut), bytes.slice(cut));
    const response = await appWith()("/mcp", { ...post(""), body });
    expect(JSON.stringify(await messages(response))).toContain("noted 3 characters");
  });

  it("is refused with 415 if its Content-Type is not JSON", async () => {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]) {
      expect((await appWith()("/mcp", post(LIST, { "content-type": type }))).status).toBe(415);
    }
    expect(
      (await appWith()("/mcp", post(LIST, { "content-type": "Application/JSON; charset=utf-8" }))).status,
    ).toBe(200);
  });
});

function throwFrom(error: Error): () => never {
  return () => {
    throw error;
  };
}

describe("an unexpected error", () => {
  it("has the status 500 and a reference, and only the log has details", async () => {
    const createMCPServer = throwFrom(new TypeError("secret detail: /etc/passwd"));
    for (const id of [1, "abc"]) {
      const body = { ...LIST, id };
      const response = await appWith({}, { createMCPServer })("/mcp", post(body));
      expect(response.status).toBe(500);
      const text = await response.text();
      const ref = response.headers.get("x-request-id");
      expect(JSON.parse(text)).toEqual({
        jsonrpc: "2.0",
        id,
        error: { code: -32603, message: `Internal error (ref ${ref})` },
      });
      expect(text).not.toMatch(/secret|TypeError|at /);
      expect(logs.entries().at(-1)).toMatchObject({
        event: "error",
        level: "error",
        ref,
        error_name: "TypeError",
      });
      expect(logs.entries().at(-1)?.error_stack).toEqual(
        expect.arrayContaining([expect.stringMatching(/^at /)]),
      );
    }
    expect(logs.text()).not.toContain("secret detail");
  });

  it("has its message in the log at the level debug", async () => {
    const createMCPServer = throwFrom(new TypeError("the detail"));
    await appWith({ LOG_LEVEL: "debug" }, { createMCPServer })("/mcp", post(LIST));
    expect(logs.entries().at(-1)).toMatchObject({ error_message: "the detail" });
  });

  it("has the status 500 and no details also before the MCP server exists", async () => {
    const requiredScopes = throwFrom(new RangeError("secret detail"));
    const response = await appWith({}, { requiredScopes })("/mcp", post(call("add", {})));
    expect(response.status).toBe(500);
    expect(await response.text()).not.toMatch(/secret|RangeError/);
    expect(logs.entries()).toMatchObject([{ event: "error", error_name: "RangeError" }]);
    expect(logs.text()).not.toContain(TOKEN);
  });
});

describe("the content of a body", () => {
  const post1 = (body: string) => appWith()("/mcp", post(body));
  const keys = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 1]));
  const emptyLists = (count: number) => `[${Array.from({ length: count }, () => "[]").join(",")}]`;

  it.each([
    ["millions of empty lists", emptyLists(2_700_000)],
    ["millions of empty objects", emptyLists(2_700_000).replaceAll("[]", "{}")],
    ["a list of numbers", JSON.stringify(call("note", { text: Array.from({ length: 15_000 }, () => 1) }))],
    ["tens of thousands of keys", JSON.stringify(call("note", keys(99_000)))],
    ["thousands of variables", JSON.stringify(call("run_command", { command: "true", env: keys(2000) }))],
    ["deeply nested lists", "[".repeat(4_000_000)],
    ["lists with strings between", `[${Array.from({ length: 15_000 }, () => '"\\\\\\"["').join(",")}]`],
  ])("is bounded before it is parsed: %s", async (_what, body) => {
    const parse = vi.spyOn(JSON, "parse");
    const response = await post1(body);
    // The test runner may parse its own messages meanwhile.
    expect(parse.mock.calls.some(([text]) => text === body)).toBe(false);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("2000 values");
  });

  const long = "x".repeat(16_385);
  it.each([
    ["an id", { ...LIST, id: long }],
    ["the name of a tool", call(long, {})],
    ["an address", { ...LIST, method: "resources/read", params: { uri: `sandbox://s/${long}` } }],
    [
      "the host of an address",
      { ...LIST, method: "resources/read", params: { uri: `http://${"x".repeat(1001)}/` } },
    ],
    ["a template", { ...LIST, method: "completion/complete", params: { ref: { uri: long } } }],
  ])("is refused if a string that the response would repeat is too long: %s", async (_what, message) => {
    const response = await post1(JSON.stringify(message));
    expect(response.status).toBe(400);
    const text = await response.text();
    expect(text).toContain("at most 16384 characters");
    expect(text.length).toBeLessThan(300);
  });

  const meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const modern = (method: string, params: Record<string, unknown>, more: Record<string, unknown> = {}) => ({
    ...LIST,
    method,
    params: { ...params, _meta: { ...meta, ...more } },
  });
  const quotes = '"'.repeat(300_000);
  const complete = { ref: { type: "ref/resource", uri: "sandbox://{sandbox}/{+path}" } };
  it.each([
    ["a version", modern("tools/list", {}, { "io.modelcontextprotocol/protocolVersion": quotes })],
    ["a method", modern(quotes, {})],
    ["the id of a task", modern("tasks/get", { taskId: quotes })],
    [
      "the name of an extension",
      modern(
        "tools/list",
        {},
        { "io.modelcontextprotocol/clientCapabilities": { extensions: { [quotes]: 1 } } },
      ),
    ],
    [
      "names of a completion",
      {
        ...LIST,
        method: "completion/complete",
        params: {
          ...complete,
          argument: { name: "path", value: "" },
          context: { arguments: { [quotes]: 1 } },
        },
      },
    ],
    [
      "many long methods",
      Array.from({ length: 100 }, (_, id) => ({ ...LIST, id, method: "x".repeat(16_000) })),
    ],
  ])("is refused if an error could repeat more than is counted as unread: %s", async (_what, message) => {
    const response = await post1(JSON.stringify(message));
    expect(response.status).toBe(400);
    const text = await response.text();
    expect(text).toContain("at most 65536 characters");
    expect(text.length).toBeLessThan(300);
  });

  it("may be a batch of calls with several arguments each", async () => {
    const batch = Array.from({ length: 100 }, (_, id) => call("note", { text: "x", ...keys(8) }, id));
    const response = await appWith()(
      "/mcp",
      post(JSON.stringify(batch), { "mcp-protocol-version": "2025-03-26" }),
    );
    expect(response.status).toBe(200);
  });

  it("is parsed alone if it is long: other work is done between two such bodies", async () => {
    const app = appWith();
    const events: string[] = [];
    const parseText = JSON.parse;
    vi.spyOn(JSON, "parse").mockImplementation((text, ...more) => {
      if (text.length > 1024 * 1024) events.push("body");
      return parseText(text, ...more);
    });
    const ticks = setInterval(() => events.push("tick"));
    const send = () => app("/mcp", post(callOfSize(2 * 1024 * 1024)));
    const responses = await Promise.all(Array.from({ length: 4 }, send));
    clearInterval(ticks);
    expect(responses.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    const bodies = events.flatMap((event, at) => (event === "body" ? at : []));
    expect(bodies).toHaveLength(4);
    expect(bodies.slice(1).every((at) => events[at - 1] === "tick")).toBe(true);
  });

  it("is counted without brackets and commas inside strings", async () => {
    const text = `${'[{"a":[1,2]},'.repeat(200_000)}\\`;
    const response = await post1(JSON.stringify(call("note", { text })));
    expect(response.status).toBe(200);
    expect(await response.text()).toContain(`${text.length} characters`);
  });

  it("is refused if it is a batch of requests with one id", async () => {
    const batch = (...ids: unknown[]) => JSON.stringify(ids.map(listAs));
    const send = (text: string) => appWith()("/mcp", post(text, { "mcp-protocol-version": "2025-03-26" }));
    expect((await send(batch(1, "1", undefined, undefined))).status).toBe(200);
    const response = await send(batch(1, 2, 1));
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("different ids");
  });

  it("is refused if it is a batch that cancels one of its requests, which would never get an answer", async () => {
    const cancel = (requestId: unknown) => ({
      jsonrpc: "2.0",
      method: "notifications/cancelled",
      params: { requestId },
    });
    const send = (...batch: unknown[]) =>
      appWith()("/mcp", post(JSON.stringify(batch), { "mcp-protocol-version": "2025-03-26" }));
    expect((await send(listAs(1), cancel(2))).status).toBe(200);
    const response = await send(listAs(1), cancel(1));
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("cancel");
  });

  it("may have at most a hundred messages of any kind", async () => {
    const batch = (count: number) => JSON.stringify(Array.from({ length: count }, (_, id) => listAs(id)));
    const init = (count: number) => post(batch(count), { "mcp-protocol-version": "2025-03-26" });
    expect((await appWith()("/mcp", init(100))).status).toBe(200);
    const response = await appWith()("/mcp", init(101));
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("must not exceed 100 messages");
  });
});

describe("the memory of long bodies", () => {
  const hold = () => RequestMemory.forCall("long-bodies", new AbortController().signal);

  const hasAdded = async (memory: RequestMemory, bytes: number) =>
    (await memory.addBody(bytes)) !== undefined;

  it.each<[string, (memory: RequestMemory, bytes: number) => Promise<boolean>]>([
    ["a long body", hasAdded],
    ["an image", (memory, bytes) => memory.whileHoldingImage(bytes, async () => true)],
  ])(
    "leaves room for other calls of their principal; %s waits until there is room for it",
    async (_, add) => {
      const [first, second, short] = [hold(), hold(), hold()];
      expect(await hasAdded(first, MAX_BODY_BYTES)).toBe(true);
      const waiting = add(second, MAX_BODY_BYTES - 500_000);
      expect(short.hasRoomFor(1_000_000)).toBe(true);
      first.release();
      expect(await waiting).toBe(true);
      second.release();
      short.release();
    },
  );

  it("is that of the bytes that arrived, not of the length that a chunked body might have", async () => {
    const [first, second] = [hold(), hold()];
    const bounds = { maxBytes: MAX_BODY_BYTES, reserve: (bytes: number) => first.addBody(bytes) };
    const body = stream(new Uint8Array(100_000));
    expect(await readBody({ body, headers: new Headers() }, bounds)).toHaveProperty("bytes");
    expect(second.hasRoomFor(3 * MAX_BODY_BYTES)).toBe(true);
    first.release();
    second.release();
  });

  it("is needed only for the size of a short body, also if the client does not announce it", async () => {
    const [memory, other] = [hold(), hold()];
    other.add(MAX_HELD_BYTES - MAX_BODY_BYTES / 2);
    const body = new ReadableStream({
      type: "bytes",
      start(controller) {
        controller.enqueue(new Uint8Array(20_000));
        controller.close();
      },
    });
    const bounds = { maxBytes: MAX_BODY_BYTES, reserve: (bytes: number) => memory.addBody(bytes) };
    expect(await readBody({ body, headers: new Headers() }, bounds)).toHaveProperty("bytes");
    memory.release();
    other.release();
  });
});
