/** What the tests of the sign-in methods share: a sign-in at the Worker on loopback, and the principal it ends in. */
import { type App, Browser, Client, type Page, type Tokens } from "./oauth-client.ts";
import type { OAuthServer } from "./oauth-server.ts";

export const web: App = (url, init) => fetch(url, init);

/** What was logged from here on of sign-ins. */
export function signInsOf(server: OAuthServer): () => Record<string, unknown>[] {
  const before = server.logs().length;
  return () =>
    server
      .logs()
      .slice(before)
      .filter(({ event }) => event === "sign_in");
}

/** A browser before the page of a new client. */
export async function consent({ origin }: OAuthServer, headers: Record<string, string> = {}) {
  const client = await Client.register(web, {}, origin);
  const browser = new Browser(web);
  const page = await browser.open(await client.authorizationURL(), { headers });
  return { client, browser, page };
}

/** The principal the server takes the holder of this code for. */
export async function principalOf(server: OAuthServer, client: Client, done: Page): Promise<unknown> {
  const code = done.location?.searchParams.get("code") ?? "";
  const response = await client.exchange(code);
  const tokens: Tokens = await response.json();
  const status = await list(server, tokens.access_token);
  if (status !== 200) throw new Error(`The token is answered with ${status}`);
  return server.logs().findLast(({ action }) => action === "use")?.principal;
}

async function list({ origin }: OAuthServer, token: string): Promise<number> {
  const response = await fetch(`${origin}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
  });
  await response.text();
  return response.status;
}
