/** The server refuses each of these attacks on tokens and with tokens. */
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { DAY_MS } from "../../../src/shared/days.ts";
import { ORIGIN, recordEachLog } from "../server/support.ts";
import { until } from "../support.ts";
import {
  approve,
  Browser,
  CALLBACK,
  Client,
  errorOf,
  oauthApp,
  signIn,
  statusOf,
  type Tokens,
} from "./support.ts";

const logs = recordEachLog();

const app = oauthApp();

/** A request to the token endpoint with the client's secret in the header. */
function basic(client: Client, parameters: Record<string, string>): Promise<Response> {
  const headers = {
    "content-type": "application/x-www-form-urlencoded",
    authorization: `Basic ${btoa(`${client.id}:${client.secret}`)}`,
  };
  return app("/oauth/token", { method: "POST", headers, body: new URLSearchParams(parameters).toString() });
}

function checks(): unknown[] {
  return logs.entries().flatMap(({ check }) => check ?? []);
}

describe("tokens", () => {
  it("a token for one resource is refused at the other", async () => {
    const { tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token, "/mcp")).toBe(200);
    expect(await statusOf(app, tokens.access_token, "/")).toBe(401);
    const { tokens: root } = await signIn(app, { resource: ORIGIN });
    expect(await statusOf(app, root.access_token, "/")).toBe(200);
    expect(await statusOf(app, root.access_token, "/mcp")).toBe(401);
  });

  it("a token of another server is refused because of its audience", async () => {
    const elsewhere = "https://elsewhere.example";
    const { tokens } = await signIn(app);
    // Both servers share a key-value store, as if two names led to one Worker.
    const other = oauthApp({ PUBLIC_ORIGIN: elsewhere });
    expect(await statusOf(other, tokens.access_token, `${elsewhere}/mcp`)).toBe(401);
  });

  it.each(["https://other.example/mcp", `${ORIGIN}/mcp/`, `${ORIGIN}/other`, "mcp"])(
    "a resource that is not ours is refused: %s",
    async (resource) => {
      const page = await new Browser(app).open(
        await (await Client.register(app)).authorizationURL({ resource }),
      );
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain("error=invalid_target");
    },
  );

  it("a code for one resource gets no token for another", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    expect(await errorOf(await client.exchange(code, { resource: ORIGIN }))).toBe("invalid_target");
  });

  it("an expired token is refused", async () => {
    const { tokens } = await signIn(app);
    vi.useFakeTimers({ now: Date.now() + 3599_000, toFake: ["Date"] });
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    vi.setSystemTime(Date.now() + 3000);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
  });

  it("a revoked access token is refused, and its client can refresh", async () => {
    const { client, tokens } = await signIn(app);
    expect((await client.token({ token: tokens.access_token })).status).toBe(200);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
    expect((await client.refresh(tokens.refresh_token)).status).toBe(200);
  });

  it("revoking a refresh token revokes every token of that sign-in", async () => {
    const { client, tokens } = await signIn(app);
    expect((await client.token({ token: tokens.refresh_token })).status).toBe(200);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
  });

  it.each([
    [
      "the client revoked it",
      (client: Client, tokens: Tokens) => client.token({ token: tokens.refresh_token }),
    ],
    ["the person approved the client anew", (client: Client) => approve(client)],
  ])("a refresh that ends after a sign-in has ended, because %s, does not restore it", async (_, end) => {
    const { client, tokens } = await signIn(app);
    // What such a refresh stores: the grant and a token.
    const names = (await env.OAUTH_KV.list()).keys.map(({ name }) => name);
    const [user, grant] = tokens.access_token.split(":");
    const own = names.filter((name) => name.includes(`:${user}:${grant}`));
    expect(own).toHaveLength(2);
    const values = await Promise.all(own.map(async (name) => [name, await env.OAUTH_KV.get(name)] as const));
    await end(client, tokens);
    for (const [name, value] of values) await env.OAUTH_KV.put(name, value ?? "");
    await until(async () => (await statusOf(app, tokens.access_token)) === 401);
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
    expect(await env.OAUTH_KV.get(`grant:${user}:${grant}`)).toBeNull();
  });

  it("a location that still has an old copy of a revoked grant does not restore it", async () => {
    const { client, tokens } = await signIn(app);
    const [user, grant] = tokens.access_token.split(":");
    const key = `grant:${user}:${grant}`;
    const copy = (await env.OAUTH_KV.get(key)) ?? "";
    const distant = new Proxy(env.OAUTH_KV, {
      get(store, name) {
        if (name === "get")
          return async (...given: [string, "json"]) =>
            given[0] === key ? JSON.parse(copy) : store.get(...given);
        const member: unknown = Reflect.get(store, name);
        return typeof member === "function" ? member.bind(store) : member;
      },
    });
    const there = new Client(oauthApp({ OAUTH_KV: distant }), client.id);
    expect((await client.token({ token: tokens.refresh_token })).status).toBe(200);
    expect(await errorOf(await there.refresh(tokens.refresh_token))).toBe("invalid_grant");
    expect(await env.OAUTH_KV.get(key)).toBeNull();
  });

  it("another client cannot revoke a token", async () => {
    const { tokens } = await signIn(app);
    const other = await Client.register(app);
    await other.token({ token: tokens.access_token });
    await other.token({ token: tokens.refresh_token });
    expect(await statusOf(app, tokens.access_token)).toBe(200);
  });

  it("a revocation is logged with its owner, but only if it revoked something", async () => {
    const revocations = () => logs.tokens().filter(({ action }) => action === "revoke");
    const { client, tokens } = await signIn(app, {}, { scope: ["sandbox:read", "sandbox:exec"] });
    const other = await Client.register(app);
    const [user, grant] = tokens.access_token.split(":");
    for (const token of ["garbage", "a:b:c", `${user}:${grant}:${"x".repeat(32)}`]) {
      expect((await client.token({ token })).status).toBe(200);
    }
    for (const token of [tokens.access_token, tokens.refresh_token]) {
      expect((await other.token({ token })).status).toBe(200);
    }
    expect(revocations()).toEqual([]);
    const common = { principal: "owner", via: "owner", client: client.id, route: "/oauth/token" };
    await client.token({ token: tokens.access_token, token_type_hint: "refresh_token" });
    await client.token({ token: tokens.access_token });
    expect(revocations()).toMatchObject([{ ...common, scope: "sandbox:read sandbox:exec" }]);
    const narrowed = await client.refresh(tokens.refresh_token, { scope: "sandbox:read" });
    const { access_token } = await narrowed.json<Tokens>();
    await client.token({ token: access_token });
    expect(revocations().at(-1)).toMatchObject({ ...common, scope: "sandbox:read" });
    await client.token({ token: tokens.refresh_token });
    await client.token({ token: tokens.refresh_token });
    expect(revocations()).toHaveLength(3);
    expect(revocations().at(-1)).toMatchObject({ ...common, scope: "sandbox:read sandbox:exec" });
    expect(logs.text()).not.toContain(tokens.access_token);
  });

  it("a revocation by a client that sends its secret in the header names the client", async () => {
    const client = await Client.register(app, { token_endpoint_auth_method: "client_secret_basic" });
    const { code } = await approve(client);
    const exchanged = await basic(client, {
      grant_type: "authorization_code",
      code,
      redirect_uri: CALLBACK,
      code_verifier: client.verifier,
    });
    const { access_token } = await exchanged.json<Tokens>();
    expect((await basic(client, { token: access_token })).status).toBe(200);
    expect(logs.tokens().at(-1)).toMatchObject({ action: "revoke", principal: "owner", client: client.id });
  });

  it("a refresh token or a code is not accepted as an access token", async () => {
    const { tokens } = await signIn(app);
    const { code } = await approve(await Client.register(app));
    expect(await statusOf(app, tokens.refresh_token)).toBe(401);
    expect(await statusOf(app, code)).toBe(401);
  });

  it("a token with any part changed is refused", async () => {
    const { tokens } = await signIn(app);
    const [user, grant, secret = ""] = tokens.access_token.split(":");
    const flipped = (secret.startsWith("A") ? "B" : "A") + secret.slice(1);
    for (const token of [
      `${user}:${grant}:${flipped}`,
      `github%3A1:${grant}:${secret}`,
      `${user}:${grant}`,
      secret,
    ]) {
      expect(await statusOf(app, token)).toBe(401);
    }
  });

  it.each([
    ["a token of 16,000 characters", `owner:${"g".repeat(16)}:${"x".repeat(16_000)}`],
    ["a user part of 1 KB", `${"u".repeat(1024)}:${"g".repeat(16)}:${"x".repeat(32)}`],
    ["a user part beyond ASCII", "ówner:gggggggggggggggg:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"],
  ])("an invalid token of an unusual form is refused: %s", async (_, token) => {
    expect(await statusOf(app, token)).toBe(401);
  });
});

describe("refresh tokens", () => {
  it("a refresh token works again for a minute, also at the same time, and every new token works until it is used", async () => {
    const { client, tokens } = await signIn(app);
    const start = Date.now();
    vi.useFakeTimers({ now: start, toFake: ["Date"] });
    const refresh = async (token: string) => (await client.refresh(token)).json<Tokens>();
    const atOnce = await Promise.all([refresh(tokens.refresh_token), refresh(tokens.refresh_token)]);
    vi.setSystemTime(start + 59_000);
    // A client that received no response repeats the request.
    const answers = [...atOnce, await refresh(tokens.refresh_token)];
    for (const { access_token } of answers) expect(await statusOf(app, access_token)).toBe(200);
    vi.setSystemTime(start + 61_000);
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
    const next: Tokens[] = [];
    for (const { refresh_token } of answers) next.push(await refresh(refresh_token));
    vi.setSystemTime(start + 122_000);
    for (const { refresh_token } of answers)
      expect(await errorOf(await client.refresh(refresh_token))).toBe("invalid_grant");
    const [first, ...others] = next;
    await client.token({ token: first?.refresh_token });
    for (const { refresh_token } of others)
      expect(await errorOf(await client.refresh(refresh_token))).toBe("invalid_grant");
    const mismatches = Array(4).fill("refresh-token-grant/refresh_token_mismatch");
    expect(checks()).toEqual([...mismatches, ...Array(2).fill("refresh-token-grant/grant_not_found")]);
    const [user, grant] = tokens.access_token.split(":");
    const { keys } = await env.OAUTH_KV.list({ prefix: `refresh:${user}:${grant}` });
    expect(keys).toHaveLength(3);
  });

  it("a refresh token is refused from another client", async () => {
    const { tokens } = await signIn(app);
    const thief = await Client.register(app);
    expect(await errorOf(await thief.refresh(tokens.refresh_token))).toBe("invalid_grant");
  });

  it("a grant ends 30 days after the sign-in, however often it is refreshed", async () => {
    const { client, tokens } = await signIn(app);
    const start = Date.now();
    vi.useFakeTimers({ now: start + 29 * DAY_MS, toFake: ["Date"] });
    const later = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    vi.setSystemTime(start + 30 * DAY_MS);
    expect(await errorOf(await client.refresh(later.refresh_token))).toBe("invalid_grant");
  });

  it("a grant ends when the server no longer accepts the token that approved it", async () => {
    const { client, tokens } = await signIn(app);
    const rotated = oauthApp({ SERVER_AUTH_TOKEN: "another-server-token" });
    expect(await statusOf(rotated, tokens.access_token)).toBe(401);
    expect(await errorOf(await new Client(rotated, client.id).refresh(tokens.refresh_token))).toBe(
      "invalid_grant",
    );
    expect(checks()).toContain("grant_policy/rule_gone");
  });
});
