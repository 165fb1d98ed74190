import { describe, expect, it } from "vitest";
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

  it("is limited for an endless body, which the server soon stops reading, whatever its Content-Length", async () => {
    let sent = 0;
    const endless = () =>
      new ReadableStream({
        type: "bytes",
        pull(controller) {
          sent += 1024 * 1024;
          controller.enqueue(new Uint8Array(1024 * 1024));
        },
      });
    // Two answers that are not read. Nevertheless the bodies of the next tests have room.
    for (let count = 0; count < 2; count++) {
      const init = { ...post("", { "content-length": "10" }), body: endless() };
      expect((await appWith()("/mcp", init)).status).toBe(413);
    }
    expect(sent).toBeLessThan(160 * 1024 * 1024);
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
    ["half a message", JSON.stringify(LIST).slice(0, -1), "not JSON"],
    ["a form", "token=secret-in-body", "not JSON"],
    ["bytes that are not UTF-8", new Uint8Array([0x22, 0xff, 0xfe, 0x22]), "not UTF-8"],
    ["a character cut off at the end", utf8.encode('"é').slice(0, 2), "not UTF-8"],
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
    const body = new ReadableStream({
      type: "bytes",
      start(controller) {
        controller.enqueue(bytes.slice(0, cut));
        controller.enqueue(bytes.slice(cut));
        controller.close();
      },
    });
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

describe("an unexpected error", () => {
  const throwing = () => {
    throw new TypeError("secret detail: /etc/passwd");
  };

  it.each([
    ["in the MCP server", "abc", { ...LIST, id: "abc" }, { createMCPServer: throwing }],
    ["before the MCP server exists", null, call("add", {}), { requiredScopes: throwing }],
  ])(
    "has the status 500, an id and a reference, and only the log has details: %s",
    async (_, id, body, parts) => {
      const response = await appWith({}, parts)("/mcp", post(body));
      expect(response.status).toBe(500);
      const text = await response.text();
      const ref = response.headers.get("x-request-id");
      const error = { code: -32603, message: `Internal error (ref ${ref})` };
      expect(JSON.parse(text)).toEqual({ jsonrpc: "2.0", id, error });
      expect(text).not.toMatch(/secret|TypeError|at /);
      const error_stack = expect.arrayContaining([expect.stringMatching(/^at /)]);
      const logged = { event: "error", level: "error", ref, error_name: "TypeError", error_stack };
      expect(logs.entries()).toMatchObject([logged]);
      expect(logs.text()).not.toContain("secret detail");
      expect(logs.text()).not.toContain(TOKEN);
    },
  );

  it("has its message in the log at the level debug", async () => {
    await appWith({ LOG_LEVEL: "debug" }, { createMCPServer: throwing })("/mcp", post(LIST));
    expect(logs.entries().at(-1)).toMatchObject({ error_message: "secret detail: /etc/passwd" });
  });
});

describe("the content of a body", () => {
  const send = (body: unknown) => appWith()("/mcp", post(body, { "mcp-protocol-version": "2025-03-26" }));
  const emptyLists = `[${Array<string>(2_700_000).fill("[]").join(",")}]`;
  const keys = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, n) => [`k${n}`, 1]));
  const cancel = (requestId: number) => ({
    jsonrpc: "2.0",
    method: "notifications/cancelled",
    params: { requestId },
  });
  const reading = (uri: string) => ({ ...LIST, method: "resources/read", params: { uri } });
  const long = "x".repeat(16_385);
  const quotes = '"'.repeat(300_000);
  const _meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": { extensions: { [quotes]: 1 } },
  };
  it.each<[what: string, body: unknown, problem: string]>([
    ["millions of values", emptyLists, "2000 values"],
    ["deeply nested lists", "[".repeat(4_000_000), "2000 values"],
    ["thousands of keys", call("note", keys(2000)), "2000 values"],
    ["more than a hundred messages", Array.from({ length: 101 }, (_, id) => listAs(id)), "100 messages"],
    ["requests with one id", [1, 2, 1].map(listAs), "different ids"],
    ["a request and its cancellation", [listAs(1), cancel(1)], "cancel"],
    ["a long id", listAs(long), "at most 16384 characters"],
    ["a long name of a tool", call(long, {}), "at most 16384 characters"],
    ["a long address", reading(`sandbox://s/${long}`), "at most 16384 characters"],
    ["a long method", { ...LIST, method: quotes }, "at most 65536 characters"],
    ["a long name of an extension", { ...LIST, params: { _meta } }, "at most 65536 characters"],
    [
      "many long methods",
      Array.from({ length: 100 }, (_, id) => ({ ...LIST, id, method: long })),
      "at most 65536 characters",
    ],
  ])("is refused with 400 before it is handled: %s", async (_, body, problem) => {
    const response = await send(body);
    expect(response.status).toBe(400);
    const text = await response.text();
    expect(text).toContain(problem);
    expect(text.length).toBeLessThan(300);
  });

  const brackets = `${'[{"a":[1,2]},'.repeat(200_000)}\\`;
  it.each<[what: string, body: unknown]>([
    [
      "a hundred calls with several arguments",
      Array.from({ length: 100 }, (_, id) => call("note", keys(8), id)),
    ],
    ["ids of both types, and none", [1, "1", undefined, undefined].map(listAs)],
    ["a request and the cancellation of another", [listAs(1), cancel(2)]],
    ["a text with many brackets and commas", call("note", { text: brackets })],
  ])("may be %s", async (_, body) => {
    const response = await send(body);
    expect([response.status, await messages(response)]).toEqual([200, expect.any(Array)]);
  });
});

describe("the memory of a principal's bodies", () => {
  const hold = (principalID = "long-bodies") =>
    RequestMemory.forCall(principalID, new AbortController().signal);
  const hasAdded = async (memory: RequestMemory, bytes: number) =>
    (await memory.addBody(bytes)) !== undefined;

  it.each<[string, (memory: RequestMemory, bytes: number) => Promise<boolean>]>([
    ["a long body", hasAdded],
    ["an image", (memory, bytes) => memory.whileHoldingImage(bytes, async () => true)],
  ])("leaves room for other calls; %s waits until there is room for it", async (_, add) => {
    const [first, second, short] = [hold(), hold(), hold()];
    expect(await hasAdded(first, MAX_BODY_BYTES)).toBe(true);
    const waiting = add(second, MAX_BODY_BYTES - 500_000);
    expect(short.hasRoomFor(1_000_000)).toBe(true);
    first.release();
    expect(await waiting).toBe(true);
    second.release();
    short.release();
  });

  it("is that of the bytes that arrived, not of the length that a chunked body might have", async () => {
    const [first, second] = [hold(), hold()];
    const bounds = { maxBytes: MAX_BODY_BYTES, reserve: (bytes: number) => first.addBody(bytes) };
    const { body } = new Response(new Uint8Array(100_000));
    expect(await readBody({ body, headers: new Headers() }, bounds)).toHaveProperty("bytes");
    expect(second.hasRoomFor(3 * MAX_BODY_BYTES)).toBe(true);
    first.release();
    second.release();
  });

  it("counts each call of a batch", async () => {
    const memory = hold("owner");
    memory.add(MAX_HELD_BYTES - 2 * 1024 * 1024);
    const batch = Array.from({ length: 100 }, (_, id) => listAs(id));
    const send = () => appWith()("/mcp", post(batch, { "mcp-protocol-version": "2025-03-26" }));
    expect((await send()).status).toBe(429);
    memory.release();
    const response = await send();
    expect([response.status, (await messages(response)).length]).toEqual([200, 100]);
  });
});
