/** The whole authorization code flow, step by step, as a client without a library does it. */
import { describe, expect, it } from "vitest";
import { call, ORIGIN, post, TOKEN, recordEachLog } from "../server/support.ts";
import {
  approve,
  Browser,
  CALLBACK,
  Client,
  oauthApp,
  signIn,
  statusOf,
  type Tokens,
  whoIs,
} from "./support.ts";

const ALL = "sandbox:read sandbox:write sandbox:exec tasks:run";

const logs = recordEachLog();
const app = oauthApp();

describe("the authorization code flow", () => {
  it("returns a token for the owner's sandboxes, and the server's own token remains valid", async () => {
    const client = await Client.register(app);
    const { code, callback } = await approve(client);
    expect(callback.href.startsWith(`${CALLBACK}?`)).toBe(true);
    expect(callback.searchParams.get("state")).toBe("state-of-the-client");
    expect(callback.searchParams.get("iss")).toBe(ORIGIN);
    const response = await client.exchange(code);
    expect(response.headers.get("cache-control")).toContain("no-store");
    const tokens = await response.json<Tokens>();
    expect(tokens).toMatchObject({
      token_type: "bearer",
      expires_in: 3600,
      scope: ALL,
      resource: `${ORIGIN}/mcp`,
    });
    expect(await whoIs(app, tokens.access_token)).toBe("owner");
    expect(await whoIs(app, TOKEN)).toBe("owner");
  });

  it("logs a line for every step, without secrets", async () => {
    const { client, tokens } = await signIn(app);
    await statusOf(app, tokens.access_token);
    await client.refresh(tokens.refresh_token);
    await client.token({ token: tokens.access_token });
    const about = { via: "owner", client: client.id, scope: ALL };
    expect(logs.entries()).toMatchObject([
      { event: "sign_in", outcome: "approved", principal: "owner", level: "info", ...about },
    ]);
    expect(logs.tokens()).toMatchObject([
      { action: "issue", principal: "owner", ...about },
      { action: "use", principal: "owner", route: "/mcp", ...about },
      { action: "refresh", principal: "owner", ...about },
      { action: "revoke", client: client.id },
    ]);
    const written = logs.text();
    for (const secret of [
      TOKEN,
      ...[tokens.access_token, tokens.refresh_token].map(secretOf),
      client.verifier,
    ]) {
      expect(written).not.toContain(secret);
    }
  });

  it("accepts any port in a loopback redirect, as native apps need (RFC 8252)", async () => {
    const client = await Client.register(app, { redirect_uris: ["http://localhost:1111/callback"] });
    const redirect_uri = "http://localhost:2222/callback";
    const { code, callback } = await approve(client, { redirect_uri });
    expect(callback.origin).toBe("http://localhost:2222");
    expect((await client.exchange(code, { redirect_uri })).status).toBe(200);
  });
});

describe("a desktop app", () => {
  // What Cursor registers.
  const redirect_uris = [
    "cursor://anysphere.cursor-mcp/oauth/callback",
    "https://www.cursor.com/agents/mcp/oauth/callback",
    "http://localhost:8787/callback",
  ];

  it.each(["com.example.app:/callback", ...redirect_uris])("signs in by %s", async (redirect_uri) => {
    const registered = redirect_uris.includes(redirect_uri) ? redirect_uris : [redirect_uri];
    const client = await Client.register(app, { redirect_uris: registered });
    const { code, callback } = await approve(client, { redirect_uri });
    expect(callback.href.startsWith(`${redirect_uri}?`)).toBe(true);
    const response = await client.exchange(code, { redirect_uri });
    expect(await whoIs(app, (await response.json<Tokens>()).access_token)).toBe("owner");
  });
});

describe("scopes", () => {
  it("are all offered and ticked if the client requests none, or only offline access", async () => {
    const client = await Client.register(app);
    for (const scope of [undefined, "offline_access"]) {
      const page = await new Browser(app).open(await client.authorizationURL({ scope }));
      expect(page.scopes.join(" ")).toBe(ALL);
    }
  });

  it("that the page offers and ticks are the requested ones that the server knows", async () => {
    const client = await Client.register(app);
    const scope = "sandbox:exec email sandbox:read offline_access";
    const page = await new Browser(app).open(await client.authorizationURL({ scope }));
    expect(page.offered).toEqual(["sandbox:read", "sandbox:exec"]);
    expect(page.scopes).toEqual(page.offered);
  });

  it("are refused if the server knows none of them", async () => {
    const client = await Client.register(app);
    const page = await new Browser(app).open(await client.authorizationURL({ scope: "email profile" }));
    expect(page.status).toBe(400);
    expect(page.text).toContain("error=invalid_scope");
  });

  it("that the person unticked are not granted, and a call that needs one of them is refused with its name", async () => {
    const { tokens } = await signIn(app, {}, { scope: ["sandbox:read", "sandbox:write"] });
    expect(tokens.scope).toBe("sandbox:read sandbox:write");
    expect(await whoIs(app, tokens.access_token)).toBe("owner");
    const headers = { authorization: `Bearer ${tokens.access_token}` };
    const refused = await app("/mcp", post(call("add", { a: 1, b: 2 }), headers));
    expect(refused.status).toBe(403);
    const challenge = refused.headers.get("www-authenticate");
    expect(challenge).toContain(
      'error="insufficient_scope", scope="sandbox:read sandbox:write sandbox:exec"',
    );
    expect(challenge).toContain(`resource_metadata="${ORIGIN}/.well-known/oauth-protected-resource/mcp"`);
  });

  it("do not include tasks if the server has no credential for a model", async () => {
    const withoutModel = oauthApp({ ANTHROPIC_API_KEY: "" });
    const client = await Client.register(withoutModel);
    const page = await new Browser(withoutModel).open(await client.authorizationURL());
    expect(page.offered).toEqual(["sandbox:read", "sandbox:write", "sandbox:exec"]);
  });

  it("that were not offered cannot be added to the form", async () => {
    const { tokens } = await signIn(app, { scope: "sandbox:read" }, { scope: ["sandbox:read", "tasks:run"] });
    expect(tokens.scope).toBe("sandbox:read");
  });

  it("cannot be approved while all are unticked", async () => {
    const browser = new Browser(app);
    const page = await browser.open(await (await Client.register(app)).authorizationURL());
    const repeated = await browser.submit(page, { decision: "owner", token: TOKEN, scope: [] });
    expect(repeated.status).toBe(400);
    expect(repeated.text).toContain("Select at least one permission");
    expect(repeated.scopes).toEqual([]);
    const done = await browser.submit(repeated, { decision: "owner", token: TOKEN, scope: "sandbox:read" });
    expect(done.status).toBe(303);
  });

  it("can be reduced at a refresh, but not extended", async () => {
    const { client, tokens } = await signIn(app, { scope: "sandbox:read sandbox:write" });
    const narrowed = await client.refresh(tokens.refresh_token, { scope: "sandbox:read" });
    const next = await narrowed.json<Tokens>();
    expect(next.scope).toBe("sandbox:read");
    const widened = await client.refresh(next.refresh_token, { scope: "sandbox:read tasks:run" });
    expect((await widened.json<Tokens>()).scope).toBe("sandbox:read");
  });
});

describe("a step up", () => {
  it("requests the scopes of the challenge, and replaces the grant with one that has them all", async () => {
    const { client, tokens } = await signIn(app, { scope: "sandbox:read sandbox:write" });
    const refused = await app(
      "/mcp",
      post(call("add", { a: 1, b: 2 }), { authorization: `Bearer ${tokens.access_token}` }),
    );
    const [, scope] = /scope="([^"]+)"/.exec(refused.headers.get("www-authenticate") ?? "") ?? [];
    const { code } = await approve(client, { scope });
    const next = await (await client.exchange(code)).json<Tokens>();
    expect(next.scope).toBe("sandbox:read sandbox:write sandbox:exec");
    const headers = { authorization: `Bearer ${next.access_token}` };
    expect((await app("/mcp", post(call("add", { a: 1, b: 2 }), headers))).status).toBe(200);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
  });
});

describe("a person who declines", () => {
  it("makes the server send the client an error with the client's state and the issuer", async () => {
    const browser = new Browser(app);
    const client = await Client.register(app);
    const page = await browser.open(await client.authorizationURL());
    const done = await browser.submit(page, { decision: "deny" });
    expect(done.status).toBe(303);
    expect(done.location?.href.startsWith(`${CALLBACK}?`)).toBe(true);
    expect(Object.fromEntries(done.location?.searchParams ?? [])).toEqual({
      error: "access_denied",
      state: "state-of-the-client",
      iss: ORIGIN,
    });
    expect(browser.cookies.size).toBe(0);
    expect(logs.entries()).toMatchObject([{ event: "sign_in", outcome: "denied", client: client.id }]);
  });
});

/** The secret part of a token. The rest names the user and the grant, so that the server can find it. */
function secretOf(token: string): string {
  return token.split(":").at(-1) ?? token;
}
