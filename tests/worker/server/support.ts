/** The app with two tools that need no sandbox, for tests of guards, tokens and bodies. */
import { createExecutionContext } from "cloudflare:test";
import { McpServer } from "@modelcontextprotocol/server";
import { afterEach, beforeEach, vi } from "vitest";
import { z } from "zod";
import type { Scope } from "../../../src/shared/principal.ts";
import { createApp } from "../../../src/server/app.ts";
import type { MCPParts } from "../../../src/server/mcp-endpoint.ts";
import type { Env } from "../../../src/shared/config.ts";
import { mcpHeaders, messagesIn } from "../../setup/mcp-client.ts";

export const TOKEN = "server-token-0123456789";
export const ORIGIN = "https://sandbox.example";

const SCOPES_OF = new Map<string, readonly Scope[]>([
  ["add", ["sandbox:exec"]],
  ["note", ["sandbox:write", "sandbox:read"]],
]);

const product: MCPParts = {
  createMCPServer: ({ principal, requestID }) => {
    const server = new McpServer({ name: "two-tools", version: "1.0.0" });
    const numbers = z.object({ a: z.number(), b: z.number() });
    server.registerTool("add", { description: "Adds", inputSchema: numbers }, ({ a, b }) =>
      text(String(a + b)),
    );
    server.registerTool(
      "note",
      { description: "Notes", inputSchema: z.object({ text: z.string() }) },
      ({ text: note }) => text(`${principal.id} noted ${note.length} characters in ${requestID}`),
    );
    return server;
  },
  requiredScopes: (name) => SCOPES_OF.get(name) ?? [],
  resourceScopes: () => [],
};

function text(value: string) {
  return { content: [{ type: "text" as const, text: value }] };
}

export type Variables = Partial<Env>;

export function appWith(variables: Variables = {}, parts: Partial<MCPParts> = {}) {
  const app = createApp({ ...product, ...parts });
  const env = { SERVER_AUTH_TOKEN: TOKEN, ...variables } as Env;
  return async (path: string, init?: RequestInit): Promise<Response> => {
    const request = new Request(path.startsWith("/") ? ORIGIN + path : path, init);
    return app.fetch(request, env, createExecutionContext());
  };
}

/** An MCP POST of the 2025 revisions, with the correct token unless `headers` sets another. */
export function post(body: unknown, headers: Record<string, string> = {}): RequestInit {
  return {
    method: "POST",
    headers: { ...mcpHeaders(TOKEN), ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
}

export function call(name: string, args: unknown, id: number | string = 1) {
  return { jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args } };
}

export const LIST = { jsonrpc: "2.0", id: 1, method: "tools/list" };

export async function messages(response: Response): Promise<unknown[]> {
  return messagesIn(await response.text());
}

/**
 * Records the log from now on. `tokens()` has the lines about uses of tokens, `entries()` the others, `text()` the raw text. Sandboxes
 * of the previous file may still stop in the same workerd, so `entries()` leaves out lines about sandboxes.
 */
export function recordLogs() {
  const spy = vi.spyOn(console, "log").mockImplementation(() => {});
  const lines = () => spy.mock.calls.map(([line]) => String(line));
  const parsed = (): Record<string, unknown>[] => lines().map((line) => JSON.parse(line));
  return {
    entries: () => parsed().filter(({ event }) => event !== "token" && event !== "sandbox"),
    tokens: () => parsed().filter(({ event }) => event === "token"),
    text: () => lines().join("\n"),
  };
}

/** Records the log of each test of a file, and restores mocks after it. */
export function recordEachLog(): ReturnType<typeof recordLogs> {
  let logs: ReturnType<typeof recordLogs>;
  beforeEach(() => void (logs = recordLogs()));
  afterEach(() => void vi.restoreAllMocks());
  return { entries: () => logs.entries(), tokens: () => logs.tokens(), text: () => logs.text() };
}

export async function sha256Hex(value: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(value))).toHex();
}
