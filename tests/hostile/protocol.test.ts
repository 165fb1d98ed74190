/** Violations of the protocol in each revision: the server still responds, and never with 500. */
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Server, startServer } from "../setup/server.ts";
import { expectHarmless, nastyString, nastyValue, postRaw, tries } from "./support.ts";

let server: Server;
beforeAll(async () => {
  server = await startServer({ flags: ["--network", "none"] });
});
afterAll(() => server.stop());

const ERAS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"] as const;

/** The metadata that a client of the stateless revision sends with each request. */
function meta(version: string): Record<string, unknown> {
  return {
    "io.modelcontextprotocol/protocolVersion": version,
    "io.modelcontextprotocol/clientInfo": { name: "hostile", version: "0" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
}

async function send(
  message: unknown,
  headers: Record<string, string>,
): Promise<{ status: number; text: string }> {
  const body = JSON.stringify(message) ?? "null";
  const response = await postRaw(server.url, body, headers);
  expectHarmless(response.status, response.text, body);
  return response;
}

const METHODS = [
  "initialize",
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
  "notifications/roots/list_changed",
  "ping",
  "tools/list",
  "tools/call",
  "resources/list",
  "resources/read",
  "resources/templates/list",
  "resources/subscribe",
  "prompts/list",
  "prompts/get",
  "completion/complete",
  "logging/setLevel",
  "server/discover",
  "subscriptions/listen",
  "sampling/createMessage",
  "elicitation/create",
  "roots/list",
  "tasks/get",
  "rpc.discover",
  "constructor",
  "__proto__",
  "",
];

const method = fc.oneof({ weight: 5, arbitrary: fc.constantFrom<unknown>(...METHODS) }, nastyValue);
const id = fc.oneof(fc.constantFrom<unknown>(1, "a", 0, -1, 1.5, 2 ** 53, null, "", true), nastyValue);

const params = fc.oneof(
  nastyValue,
  fc.record(
    {
      name: fc.oneof(fc.constantFrom<unknown>("run_command", "list_sandboxes"), nastyValue),
      arguments: fc.oneof(fc.constantFrom<unknown>({}, { command: "true" }), nastyValue),
      cursor: nastyValue,
      uri: nastyString,
      protocolVersion: fc.oneof(fc.constantFrom<unknown>(...ERAS, "1"), nastyValue),
      capabilities: nastyValue,
      clientInfo: nastyValue,
      requestId: nastyValue,
      level: nastyValue,
      _meta: fc.oneof(
        fc.constantFrom<unknown>(...ERAS.map(meta), { progressToken: 1 }, { progressToken: {} }),
        nastyValue,
      ),
    },
    { requiredKeys: [] },
  ),
);

const message = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record(
      { jsonrpc: fc.constantFrom<unknown>("2.0", "2.0", "2.0", "1.0", 2, null), id, method, params },
      { requiredKeys: ["jsonrpc"] },
    ),
  },
  // Responses to requests that nobody made.
  { weight: 1, arbitrary: fc.record({ jsonrpc: fc.constant("2.0"), id, result: nastyValue }) },
  { weight: 1, arbitrary: fc.record({ jsonrpc: fc.constant("2.0"), id, error: nastyValue }) },
);

const headers = fc
  .record(
    {
      "mcp-protocol-version": fc.constantFrom<string>(...ERAS, "1", "2027-01-01", "null", ""),
      "mcp-session-id": fc.constantFrom("x", "0", "x".repeat(4000)),
      "mcp-method": fc.constantFrom(...METHODS.filter(Boolean)),
      "mcp-name": fc.constantFrom("run_command", "=?base64?cnVu?=", "=?base64?%%?="),
      accept: fc.constantFrom(
        "application/json",
        "text/event-stream",
        "*/*",
        "text/html",
        "application/json, text/event-stream",
      ),
      "last-event-id": fc.constantFrom("1", "x"),
    },
    { requiredKeys: [] },
  )
  .map((given): Record<string, string> => Object.assign({}, given));

describe("when clients send arbitrary messages and headers", () => {
  it("the server responds to each message, but never with 500 or its internals", async () => {
    await fc.assert(
      fc.asyncProperty(message, headers, async (sent, under) => void (await send(sent, under))),
      tries(250),
    );
  });

  it("the server responds to each batch, but never with 500, its internals or too many responses", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(message, { maxLength: 6 }), headers, async (sent, under) => {
        const { text } = await send(sent, under);
        // At most one response for each message, and one error for the whole batch.
        expect((text.match(/"jsonrpc":/g) ?? []).length).toBeLessThanOrEqual(Math.max(1, sent.length) + 1);
      }),
      tries(80),
    );
  });
});

describe.each(ERAS)("when a client violates the protocol: revision %s", (version) => {
  const versionHeader = { "mcp-protocol-version": version };

  it.each([
    ["calls before it has initialized", { jsonrpc: "2.0", id: 1, method: "tools/list" }],
    [
      "initializes twice in a batch",
      [1, 2].map((n) => ({
        jsonrpc: "2.0",
        id: n,
        method: "initialize",
        params: { protocolVersion: version, capabilities: {}, clientInfo: { name: "a", version: "1" } },
      })),
    ],
    ["initializes with nothing", { jsonrpc: "2.0", id: 1, method: "initialize" }],
    [
      "sends a request as a notification",
      {
        jsonrpc: "2.0",
        method: "tools/call",
        params: { name: "run_command", arguments: { command: "touch /workspace/notified" } },
      },
    ],
    ["sends a notification as a request", { jsonrpc: "2.0", id: 1, method: "notifications/initialized" }],
    [
      "cancels a request that it never sent",
      { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 99 } },
    ],
    ["responds to a request that the server never sent", { jsonrpc: "2.0", id: 99, result: {} }],
    [
      "sends a request that only a client can fulfil",
      { jsonrpc: "2.0", id: 1, method: "sampling/createMessage", params: { messages: [] } },
    ],
    ["speaks another version of JSON-RPC", { jsonrpc: "1.0", id: 1, method: "tools/list" }],
    [
      "names another version in the body than in the header",
      {
        jsonrpc: "2.0",
        id: 1,
        method: "tools/list",
        params: { _meta: meta(version === "2026-07-28" ? "2025-11-25" : "2026-07-28") },
      },
    ],
  ])("the server responds, and the client's next request works: %s", async (_what, sent) => {
    const { status } = await send(sent, versionHeader);
    expect(status).toBeLessThan(500);
    const { text } = await send(
      {
        jsonrpc: "2.0",
        id: 1,
        method: "tools/list",
        params: version === "2026-07-28" ? { _meta: meta(version) } : {},
      },
      version === "2026-07-28" ? { ...versionHeader, "mcp-method": "tools/list" } : versionHeader,
    );
    expect(text).toContain("run_command");
  });
});
