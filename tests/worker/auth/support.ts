/** The app with OAuth on, in process, and helpers for complete sign-ins. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { oauthAPI, oauthFor } from "../../../src/auth/oauth.ts";
import { type Env, parseConfig } from "../../../src/shared/config.ts";
import type { RequestContext } from "../../../src/shared/request-context.ts";
import { type App, Browser, Client, requireStatus, ORIGIN, type Tokens } from "../../setup/oauth-client.ts";
import { appWith, call, post, TOKEN, type Variables } from "../server/support.ts";

export * from "../../setup/oauth-client.ts";

const UNLIMITED: RateLimit = { limit: async () => ({ success: true }) };

/** The app with OAuth on, at `ORIGIN` unless the variables set another origin. */
export function oauthApp(variables: Variables = {}): App {
  return appWith({
    // Without these bindings the process counts the requests of all test files together.
    ADDRESS_LIMITER: UNLIMITED,
    RATE_LIMITER: UNLIMITED,
    PUBLIC_ORIGIN: ORIGIN,
    OAUTH_KV: env.OAUTH_KV,
    Attempts: env.Attempts,
    ANTHROPIC_API_KEY: "test-model-key",
    ...variables,
  });
}

/** The owner signs in and approves. Returns the code, and the URL of the client's callback. */
export async function approve(
  client: Client,
  parameters: Record<string, string | undefined> = {},
  fields: Record<string, string | string[] | undefined> = {},
): Promise<{ code: string; callback: URL }> {
  const browser = new Browser(client.app);
  const page = await browser.open(await client.authorizationURL(parameters));
  requireStatus(page, 200);
  const done = await browser.submit(page, { decision: "owner", token: TOKEN, ...fields });
  requireStatus(done, 303);
  const callback = done.location ?? new URL("about:blank");
  return { code: callback.searchParams.get("code") ?? "", callback };
}

/** Registers a client and completes its sign-in. */
export async function signIn(
  app: App,
  parameters: Record<string, string | undefined> = {},
  fields: Record<string, string | string[] | undefined> = {},
): Promise<{ client: Client; tokens: Tokens }> {
  const client = await Client.register(app);
  const { code } = await approve(client, parameters, fields);
  const response = await client.exchange(code);
  requireStatus(response, 200);
  return { client, tokens: await response.json<Tokens>() };
}

/** The principal of a token, from the result of a tool that names it. The token needs `sandbox:read` and `sandbox:write`. */
export async function whoIs(app: App, token: string): Promise<string> {
  const response = await app("/mcp", post(call("note", { text: "x" }), { authorization: `Bearer ${token}` }));
  requireStatus(response, 200);
  return /(\S+) noted/.exec(await response.text())?.[1]?.replace(/^.*"/, "") ?? "";
}

export async function statusOf(app: App, token: string, path = "/mcp"): Promise<number> {
  // A request in process has no Host header, and MCP's handler refuses requests to loopback without it.
  const headers = { authorization: `Bearer ${token}`, host: new URL(path, ORIGIN).host };
  return (await app(path, post(call("nothing", {}), headers))).status;
}

/** The error code in a response of the token endpoint, or undefined. */
export async function errorOf(response: Response): Promise<string | undefined> {
  return (await response.json<{ error?: string }>()).error;
}

/** A browser that shows the consent page of the panel. */
export async function panelSignIn(app: App) {
  const browser = new Browser(app);
  const { location } = await browser.open(`${ORIGIN}/panel/sign-in`);
  return { browser, consent: await browser.open(location?.href ?? "") };
}

/** A browser that has signed in to the panel as the owner. */
export async function panelBrowser(app: App, scope?: string[]): Promise<Browser> {
  const { browser, consent } = await panelSignIn(app);
  const fields = { decision: "owner", token: TOKEN, ...(scope && { scope }) };
  const approved = await browser.submit(consent, fields);
  const done = await browser.open(approved.location?.href ?? "");
  if (done.location?.href !== `${ORIGIN}/panel`) throw new Error(`not signed in: ${done.text}`);
  return browser;
}

/** A browser that has signed in to the panel as the principal `github:7`. @param open makes the app with its sign-in */
export async function panelBrowserOfGitHub(open: (variables: Variables) => App = oauthApp): Promise<Browser> {
  const variables = { GITHUB_CLIENT_ID: "id", GITHUB_CLIENT_SECRET: "s", GITHUB_ALLOWED_USERS: "id:7" };
  const browser = new Browser(open(variables));
  const { location } = await browser.open(`${ORIGIN}/panel/sign-in`);
  const context = {
    env: { OAUTH_KV: env.OAUTH_KV, ...variables },
    config: parseConfig({ ...variables, PUBLIC_ORIGIN: ORIGIN } as Env),
    ctx: createExecutionContext(),
    origin: ORIGIN,
    requestID: "test",
  } as RequestContext;
  const oauth = oauthFor(new Request(ORIGIN), context);
  if ("off" in oauth) throw new Error(oauth.off);
  const api = oauthAPI(oauth, context);
  const { redirectTo } = await api.completeAuthorization({
    request: await api.parseAuthRequest(new Request(location?.href ?? "")),
    userId: "github%3A7",
    metadata: {},
    scope: ["sandbox:read", "sandbox:write"],
    props: { principal: "github:7", via: "github", rule: "github:user:id:7" },
  });
  await browser.open(redirectTo);
  return browser;
}
