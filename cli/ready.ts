/** Checks a server with requests like a client's. */
import { parseJSON } from "../src/shared/bounded.ts";
import { unexpectedResponse } from "./texts.ts";

/** Sends a JSON-RPC request without parameters, outside any session. */
export function postRPC(
  url: string,
  method: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: {} }),
    signal,
    // Redirects are not followed, because fetch would send the token to the new address too.
    redirect: "manual",
  });
}

/** Lists the tools of the server at `url`. @returns undefined if the server lists them, else the problem */
export async function whyNotServing(url: string, token: string): Promise<string | undefined> {
  const headers = { authorization: `Bearer ${token}`, "mcp-protocol-version": "2025-11-25" };
  const response = await postRPC(url, "tools/list", headers, AbortSignal.timeout(30_000));
  const body = await response.text();
  if (response.ok && body.includes('"tools"')) return undefined;
  return explain(body) ?? unexpectedResponse(url, response.status, body);
}

/** The problems of the configuration, from the Worker's response. */
function explain(body: string): string | undefined {
  const { problems } = (parseJSON(body) ?? {}) as { problems?: unknown };
  return Array.isArray(problems) ? problems.join("\n") : undefined;
}
