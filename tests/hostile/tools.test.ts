/**
 * The first tests send hostile input to every tool, which has to return a result or a readable error. The other tests violate the
 * protocol in each revision; the server has to respond, and never with 500.
 */
import * as fc from "../setup/chance.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MCPClient } from "../setup/mcp-client.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer, TOKEN } from "../setup/server.ts";
import { tool } from "../setup/tool.ts";
import { expectHarmless, nastyString, nastyValue, postRaw, tries } from "./support.ts";
import { words } from "../setup/words.ts";

const server = endLater(await startServer({ flags: ["--network", "none"] }));
beforeAll(() => tool(server.url, "run_command", { command: "true" }));
afterAll(async () => {
  // The hostile input has not harmed the server.
  const { text } = await tool(server.url, "run_command", { command: "echo unharmed", sandbox: "last" });
  expect(text).toContain("unharmed");
});

interface Property {
  type?: string;
  enum?: string[];
}

interface Definition {
  name: string;
  inputSchema: { properties: Record<string, Property>; required?: string[] };
}

async function definitions(): Promise<Definition[]> {
  const client = new MCPClient(server.url, TOKEN);
  const { tools } = await client.result<{ tools: Definition[] }>({ method: "tools/list" });
  expect(tools.length).toBeGreaterThan(0);
  return tools;
}

/** Names of sandboxes for calls: only a few, because a principal's number of sandboxes is limited. */
const SANDBOXES = ["default", "constructor", "a", "0-0"];

/** A value for a field, usually a valid one, so that calls pass the schema. */
function valueFor(name: string, { type, enum: choices }: Property): fc.Arbitrary<unknown> {
  if (name === "wait_seconds") return fc.constantFrom<unknown>(0, 0.1, 1, -1, "1", null, 1e300);
  if (name === "timeout_seconds") return fc.constantFrom<unknown>(1, 2, 0, -5, 1.5, 1e300, "2", null);
  const nasty = { weight: 1, arbitrary: nastyValue };
  if (name === "sandbox") return fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...SANDBOXES) }, nasty);
  if (choices) return fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...choices) }, nasty);
  if (type === "string") return fc.oneof({ weight: 6, arbitrary: nastyString }, nasty);
  if (type === "integer" || type === "number")
    return fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 0, max: 1000 }) }, nasty);
  if (type === "boolean") return fc.oneof({ weight: 4, arbitrary: fc.boolean() }, nasty);
  return nastyValue;
}

function inputFor({ inputSchema }: Definition): fc.Arbitrary<Record<string, unknown>> {
  const fields = Object.fromEntries(
    Object.entries(inputSchema.properties).map(([name, property]) => [name, valueFor(name, property)]),
  );
  const known = fc.record(fields, { requiredKeys: inputSchema.required ?? [] });
  const unknown = fc.dictionary(nastyString, nastyValue, { maxKeys: 1 });
  return fc
    .tuple(known, fc.oneof({ weight: 8, arbitrary: fc.constant({}) }, unknown))
    .map(([a, b]) => Object.assign(a, b));
}

async function call(name: string, args: unknown): Promise<string> {
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
  const body = JSON.stringify(message);
  const { status, text } = await postRaw(server.url, body);
  expectHarmless(status, text, body);
  expect(text, body).toMatch(/"(result|error)"/);
  return text;
}

/** These tools are slow, so they get fewer tries. After `destroy_sandbox` the next call has to start a sandbox. */
const SLOW: Record<string, number> = { run_code: 25, run_command: 40, destroy_sandbox: 20, execute_task: 8 };

describe("when a tool gets hostile input", () => {
  it("every tool returns a result or a readable error for hostile values of its fields", async () => {
    for (const definition of await definitions()) {
      await fc.assert(
        fc.asyncProperty(inputFor(definition), async (args) => void (await call(definition.name, args))),
        tries(SLOW[definition.name] ?? 50),
      );
    }
  });

  it("every tool returns a result or a readable error for arguments of any shape", async () => {
    const names = (await definitions()).map(({ name }) => name);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        nastyValue,
        async (name, args) => void (await call(name, args)),
      ),
      tries(40),
    );
  });

  it("a call of an unknown tool with any name gets a readable error", async () => {
    await fc.assert(
      fc.asyncProperty(nastyValue, async (name) => void (await call(name as string, {}))),
      tries(40),
    );
  });
});

describe("when input contains arbitrary text", () => {
  it("a command gets any text of an environment variable unchanged", async () => {
    const value = fc
      .string({ unit: "binary", maxLength: 60 })
      .filter((text) => text.isWellFormed() && !text.includes("\0"));
    await fc.assert(
      fc.asyncProperty(value, async (text) => {
        const env = { GIVEN: text, constructor: "c", sbx_next: "mine", sbx_name: "mine" };
        const command = 'printf %s "$GIVEN" | base64 -w 0';
        const { structured } = await tool(server.url, "run_command", { command, env, session: "env" });
        expect(structured.stdout).toBe(Buffer.from(text).toString("base64"));
      }),
      tries(25),
    );
  });

  it("a call's variables do not break the session's shell, whatever their names", async () => {
    for (const name of words(`
      PATH BASH_ENV ENV LD_PRELOAD UID SHELLOPTS BASHOPTS PPID IFS PS4 sbx_next sbx_command sbx_pair
      sbx_before sbx_directory SANDBOX_MCP_RUN __proto__ constructor
    `)) {
      const env = JSON.parse(`{"${name}": "/nowhere"}`);
      await call("run_command", { command: "echo here", env, session: "vars" });
      const { text } = await tool(server.url, "run_command", {
        command: "cd /tmp; echo after",
        session: "vars",
      });
      expect(text, name).toContain("after");
      const next = await tool(server.url, "run_command", { command: "pwd", session: "vars" });
      expect(next.text, name).toContain("/tmp");
    }
  });

  it("any code gets a result, also with a syntax error", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("python", "javascript", "typescript"),
        nastyString,
        async (language, code) => {
          if (code === "") return;
          const { text } = await tool(server.url, "run_code", { language, code, timeout_seconds: 5 });
          expect(text).not.toContain("Internal error");
          const next = await tool(server.url, "run_code", { language, code: "6 * 7" });
          expect(next.text).toContain("42");
        },
      ),
      tries(20),
    );
  });
});

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
