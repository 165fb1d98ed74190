/** Shared by the tests of sign-in methods: a sign-in at the Worker on loopback, and its principal. */
import { MCPClient } from "./mcp-client.ts";
import { type App, Browser, Client, type Page, type Tokens } from "./oauth-client.ts";
import type { OAuthServer } from "./oauth-server.ts";

export const web: App = (url, init) => fetch(url, init);

/** The log lines of sign-ins from now on. */
export function signInsOf(server: OAuthServer): () => Record<string, unknown>[] {
  const before = server.logs().length;
  return () =>
    server
      .logs()
      .slice(before)
      .filter(({ event }) => event === "sign_in");
}

/** Registers a client, and opens its consent page in a new browser. */
export async function openConsentPage({ origin }: OAuthServer, headers: Record<string, string> = {}) {
  const client = await Client.register(web, {}, origin);
  const browser = new Browser(web);
  const page = await browser.open(await client.authorizationURL(), { headers });
  return { client, browser, page };
}

/** The principal for which the server issued this code. */
export async function principalOf(server: OAuthServer, client: Client, done: Page): Promise<unknown> {
  const code = done.location?.searchParams.get("code") ?? "";
  const response = await client.exchange(code);
  const tokens: Tokens = await response.json();
  const holder = new MCPClient(`${server.origin}/mcp`, tokens.access_token);
  const { status } = await holder.post({ method: "tools/list" });
  if (status !== 200) throw new Error(`The server responds to the token with ${status}`);
  return server.logs().findLast(({ action }) => action === "use")?.principal;
}
