import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Client as Client1, StreamableHTTPClientTransport as Transport1 } from "../../clients/sdk1.ts";
import { McpServer } from "@modelcontextprotocol/server";
import { describe, expect, it } from "vitest";
import { appWith, call, LIST, messages, ORIGIN, post, sha256Hex, recordEachLog } from "./support.ts";

recordEachLog();

const info = { name: "test-client", version: "1.0.0" };

/** A client's `fetch` that calls the app in this process, and records each exchange. */
function wire(token: string, app = appWith()) {
  const exchanges: { method: string; protocol: string | null; status: number }[] = [];
  const fetch = async (url: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const { method, headers } = new Request(url, init);
    const response = await app(String(url), init);
    exchanges.push({ method, protocol: headers.get("mcp-protocol-version"), status: response.status });
    return response;
  };
  return { exchanges, options: { fetch, requestInit: { headers: { authorization: `Bearer ${token}` } } } };
}

describe("a client that is refused", () => {
  it("gets a readable error", async () => {
    const { options } = wire("wrong");
    const url = new URL("/mcp", ORIGIN);
    await expect(new Client1(info).connect(new Transport1(url, options))).rejects.toThrow(
      "The token is not valid for this server",
    );
    const client = new Client(info, { versionNegotiation: { mode: "auto" } });
    await expect(client.connect(new StreamableHTTPClientTransport(url, options))).rejects.toThrow(
      /401|Unauthorized/,
    );
  });

  it("for a missing scope gets the scope's name, in old and new revisions", async () => {
    const AUTH_TOKENS = JSON.stringify([
      { name: "r", sha256: await sha256Hex("reader"), scopes: ["sandbox:read"] },
    ]);
    const { options } = wire("reader", appWith({ AUTH_TOKENS }));
    for (const mode of ["legacy", "auto"] as const) {
      const client = new Client(info, { versionNegotiation: { mode } });
      await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", ORIGIN), options));
      await expect(client.callTool({ name: "add", arguments: { a: 1, b: 2 } })).rejects.toThrow(
        /sandbox:exec/,
      );
      expect((await client.listTools()).tools).toHaveLength(2);
      await client.close();
    }
  });
});

describe("the MCP endpoint", () => {
  it.each(["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])(
    "initialises a client of revision %s without a session",
    async (version) => {
      const params = { protocolVersion: version, capabilities: {}, clientInfo: info };
      const response = await appWith()("/mcp", post({ jsonrpc: "2.0", id: 0, method: "initialize", params }));
      expect(response.headers.has("mcp-session-id")).toBe(false);
      expect(await messages(response)).toMatchObject([{ id: 0, result: { protocolVersion: version } }]);
      const started = post(
        { jsonrpc: "2.0", method: "notifications/initialized" },
        { "mcp-protocol-version": version },
      );
      expect((await appWith()("/mcp", started)).status).toBe(202);
      const listed = await appWith()("/mcp", post(LIST, { "mcp-protocol-version": version }));
      expect(await messages(listed)).toMatchObject([
        { id: 1, result: { tools: [{ name: "add" }, { name: "note" }] } },
      ]);
    },
  );

  it("responds to a call of a 2025 revision with JSON if the call ends at once, and with an event stream if it takes longer", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const createMCPServer = () => {
      const server = new McpServer({ name: "waits", version: "1.0.0" });
      const content = [{ type: "text" as const, text: "over" }];
      server.registerTool("at-once", {}, async () => ({ content }));
      server.registerTool("later", {}, () => released.then(() => ({ content })));
      return server;
    };
    const app = appWith({}, { createMCPServer });
    const typeOf = ({ headers }: Response) => headers.get("content-type");
    const over = [{ id: 1, result: { content: [{ text: "over" }] } }];
    const quick = await app("/mcp", post(call("at-once", {})));
    expect(typeOf(quick)).toBe("application/json");
    expect(await messages(quick)).toMatchObject(over);
    const slow = await app("/mcp", post(call("later", {})));
    expect(typeOf(slow)).toBe("text/event-stream");
    release();
    expect(await messages(slow)).toMatchObject(over);
  });

  it("responds to every call in a batch of revision 2025-03-26", async () => {
    const batch = [call("add", { a: 1, b: 1 }, "a"), call("add", { a: 2, b: 2 }, "b")];
    const response = await appWith()("/mcp", post(batch, { "mcp-protocol-version": "2025-03-26" }));
    const answers = (await messages(response)).toSorted((x, y) =>
      JSON.stringify(x).localeCompare(JSON.stringify(y)),
    );
    expect(answers).toMatchObject([
      { id: "a", result: { content: [{ text: "2" }] } },
      { id: "b", result: { content: [{ text: "4" }] } },
    ]);
  });

  it("accepts a request of revision 2026-07-28 without initialisation, but only if its headers agree with its body", async () => {
    const meta = {
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientInfo": info,
      "io.modelcontextprotocol/clientCapabilities": {},
    };
    const body = {
      ...call("add", { a: 2, b: 3 }),
      params: { name: "add", arguments: { a: 2, b: 3 }, _meta: meta },
    };
    const headers = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "add" };
    const response = await appWith()("/mcp", post(body, headers));
    expect(response.status).toBe(200);
    expect(await messages(response)).toMatchObject([{ id: 1, result: { content: [{ text: "5" }] } }]);
    expect((await appWith()("/mcp", post(body, { ...headers, "mcp-name": "note" }))).status).toBe(400);
    const unknown = { ...headers, "mcp-protocol-version": "2099-01-01" };
    expect((await appWith()("/mcp", post(body, unknown))).status).toBe(400);
  });
});
