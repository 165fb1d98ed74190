/** The whole server, for tests of pages that an elicitation by URL opens. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect } from "vitest";
import worker from "../../../src/index.ts";
import type { Env } from "../../../src/shared/config.ts";
import type { App } from "../auth/support.ts";
import { mcpHeaders, type ModernAnswer } from "../../setup/mcp-client.ts";
import { TOKEN } from "../server/support.ts";
import { Caller, ORIGIN } from "../support.ts";

export const variables: Env = {
  ...(env as Env),
  SERVER_AUTH_TOKEN: TOKEN,
  PUBLIC_ORIGIN: ORIGIN,
  LOG_LEVEL: "error",
};

/** The server with other variables. */
export const appOf =
  (more: Partial<Env> = {}): App =>
  (url, init) =>
    worker.fetch(new Request(url, init), { ...variables, ...more }, createExecutionContext());

export const app = appOf();
export const owner = new Caller("owner", TOKEN, variables);

export const OPENS_URLS = { elicitation: { url: {} } };

export interface Elicitation {
  mode: string;
  url: string;
  message: string;
  elicitationId?: string;
}

/** The elicitation in a result, and the state that the client's next call must repeat. */
export function elicitationIn({ result }: ModernAnswer): Elicitation & { state: { requestState: unknown } } {
  expect(result).toMatchObject({ resultType: "input_required" });
  const requests = result?.inputRequests as Record<string, { method: string; params: Elicitation }>;
  const [request] = Object.values(requests);
  if (request?.method !== "elicitation/create" || request.params.mode !== "url")
    throw new Error(JSON.stringify(result));
  return { ...request.params, state: { requestState: result?.requestState } };
}

/** Calls a tool as a client of 2025-11-25 that opens addresses. Returns the body of the response. */
export async function callLegacy(name: string, args: object): Promise<string> {
  const post = (body: object, session: Record<string, string> = {}) =>
    app(`${ORIGIN}/mcp`, {
      method: "POST",
      headers: { ...mcpHeaders(TOKEN), ...session },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, ...body }),
    });
  const clientInfo = { name: "test", version: "1" };
  const params = { protocolVersion: "2025-11-25", capabilities: OPENS_URLS, clientInfo };
  const opened = await post({ method: "initialize", params });
  await opened.text();
  const session = { "mcp-session-id": opened.headers.get("mcp-session-id") ?? "" };
  return (await post({ method: "tools/call", params: { name, arguments: args } }, session)).text();
}
