/** Checks that the server is ready, with an MCP request such as clients send. */

/**
 * Lists the tools of the server at `url`.
 * @returns undefined, or for the user what went wrong
 */
export async function whyNotServing(url: string, token: string): Promise<string | undefined> {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2025-11-25",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} }),
    signal: AbortSignal.timeout(30_000),
  });
  const body = await response.text();
  if (response.ok && body.includes('"tools"')) return undefined;
  return explain(body) ?? `${url} answered ${response.status}: ${body.slice(0, 500)}`;
}

/** The problems of the configuration, which the Worker reports by variable. */
function explain(body: string): string | undefined {
  try {
    const { problems }: { problems?: unknown } = JSON.parse(body);
    return Array.isArray(problems) ? problems.join("\n") : undefined;
  } catch {
    return undefined;
  }
}
