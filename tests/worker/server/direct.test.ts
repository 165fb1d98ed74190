import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Product } from "../../../src/server/app.ts";
import { appWith, call, messages, post, recordLogs, sha256Hex } from "./support.ts";

beforeEach(() => void recordLogs());
afterEach(() => vi.restoreAllMocks());

const VERSION = { "mcp-protocol-version": "2025-11-25" };
const ADD = call("add", { a: 2, b: 3 }, 7);
const SUM = { jsonrpc: "2.0", id: 7, result: { content: [{ type: "text", text: "5" }] } };

/** The product's `add`, ready to be called directly; what was called so is counted. */
function direct(work?: (requester: Parameters<Tool>[1]) => Promise<void>) {
  const made = vi.fn<Tool>(async (_call, requester) => {
    await work?.(requester);
    return { content: [{ type: "text", text: "5" }] };
  });
  const findCall: Product["findCall"] = (name) => (name === "add" ? made : undefined);
  return { made, app: appWith({}, { findCall }) };
}

type Tool = NonNullable<ReturnType<NonNullable<Product["findCall"]>>>;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describe("a tool call of a 2025 client", () => {
  it.each(["2025-03-26", "2025-06-18", "2025-11-25"])(
    "of %s is answered by one JSON message",
    async (version) => {
      const { app, made } = direct();
      const response = await app("/mcp", post(ADD, { "mcp-protocol-version": version }));
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toContain("application/json");
      expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
      expect(await response.json()).toEqual(SUM);
      expect(made).toHaveBeenCalledTimes(1);
    },
  );

  it("says the same as the long way", async () => {
    const long = await messages(await appWith()("/mcp", post(ADD, VERSION)));
    expect(long).toEqual([SUM]);
  });

  it("keeps a string as its id", async () => {
    const response = await direct().app("/mcp", post({ ...ADD, id: "seven" }, VERSION));
    expect(await response.json()).toEqual({ ...SUM, id: "seven" });
  });

  it("needs the tool's scopes all the same", async () => {
    const { made } = direct();
    const tokens = [{ name: "reader", sha256: await sha256Hex("reader"), scopes: ["sandbox:read"] }];
    const app = appWith({ AUTH_TOKENS: JSON.stringify(tokens) }, { findCall: () => made });
    const response = await app("/mcp", post(ADD, { ...VERSION, authorization: "Bearer reader" }));
    expect(response.status).toBe(403);
    expect(made).not.toHaveBeenCalled();
  });

  it("that takes long is answered by an event stream", async () => {
    const { app } = direct(() => pause(1500));
    const response = await app("/mcp", post(ADD, VERSION));
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(await messages(response)).toEqual([SUM]);
  });

  it("that reports progress is answered by an event stream with all of it, in order", async () => {
    const report = (progress: number) => {
      return { method: "notifications/progress" as const, params: { progressToken: "p", progress } };
    };
    const { app, made } = direct(async ({ mcpReq }) => {
      for (const progress of [1, 2]) await mcpReq.notify(report(progress));
      await pause(100);
      await mcpReq.notify(report(3));
    });
    const asked = { ...ADD, params: { ...ADD.params, _meta: { progressToken: "p" } } };
    const events = await messages(await app("/mcp", post(asked, VERSION)));
    expect(events).toEqual([...[1, 2, 3].map((value) => ({ jsonrpc: "2.0", ...report(value) })), SUM]);
    expect(made.mock.calls[0]?.[1].mcpReq._meta).toEqual({ progressToken: "p" });
  });

  it("goes on when the client leaves its event stream", async () => {
    const { promise: finished, resolve } = Promise.withResolvers<void>();
    const { app } = direct(() => pause(1500).then(resolve));
    const response = await app("/mcp", post(ADD, VERSION));
    await response.body?.cancel();
    await finished;
  });
});

describe("the long way", () => {
  const { params } = ADD;
  it.each<[string, unknown, Record<string, string>]>([
    ["without a revision", ADD, {}],
    ["of an unknown revision", ADD, { "mcp-protocol-version": "2024-01-01" }],
    ["in a batch", [ADD], { "mcp-protocol-version": "2025-03-26" }],
    ["for JSON alone", ADD, { ...VERSION, accept: "application/json" }],
    ["with a fractional id", { ...ADD, id: 1.5 }, VERSION],
    ["without an id", { ...ADD, id: undefined }, VERSION],
    ["with another field", { ...ADD, more: 1 }, VERSION],
    ["with another parameter", { ...ADD, params: { ...params, task: {} } }, VERSION],
    [
      "with the envelope of 2026-07-28",
      { ...ADD, params: { ...params, _meta: { "io.modelcontextprotocol/x": 1 } } },
      VERSION,
    ],
    [
      "with a progress token that is none",
      { ...ADD, params: { ...params, _meta: { progressToken: {} } } },
      VERSION,
    ],
    ["of a tool that is not found", call("note", { text: "a" }), VERSION],
    ["of another method", { ...ADD, method: "tools/list" }, VERSION],
  ])("is taken by a call %s", async (_what, body, headers) => {
    const { app, made } = direct();
    await (await app("/mcp", post(body, headers))).text();
    expect(made).not.toHaveBeenCalled();
  });
});
