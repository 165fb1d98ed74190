/** The attacks of OAuth 2.1's security considerations, each refused. docs/security.md points here by these names. */
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ORIGIN, post, recordLogs, TOKEN } from "../server/support.ts";
import {
  approve,
  Browser,
  CALLBACK,
  challengeOf,
  Client,
  oauthApp,
  type Page,
  register,
  signedIn,
  statusOf,
  type Tokens,
} from "./support.ts";

let logs: ReturnType<typeof recordLogs>;
beforeEach(() => void (logs = recordLogs()));
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const app = oauthApp();

/** A page that tells the person of an error and sends the browser nowhere by itself. */
function expectToldHere(page: Page): void {
  expect(page.status).toBe(400);
  expect(page.location).toBeUndefined();
  expect(page.text).not.toMatch(/http-equiv|<script|<form/i);
}

const approval = { decision: "owner", token: TOKEN };

/** A browser before the page of a new client. */
async function consent(browser = new Browser(app)) {
  const page = await browser.open(await (await Client.register(app)).authorizationURL());
  return { browser, page };
}

async function errorOf(response: Response): Promise<unknown> {
  expect(response.status).toBeGreaterThanOrEqual(400);
  return (await response.json<{ error: string }>()).error;
}

function checks(): unknown[] {
  return logs.entries().flatMap(({ check }) => check ?? []);
}

describe("authorization codes", () => {
  it("a code used twice is refused, and what the first use gave is revoked", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    const tokens = await (await client.exchange(code)).json<Tokens>();
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    expect(await errorOf(await client.exchange(code))).toBe("invalid_grant");
    expect(await statusOf(app, tokens.access_token)).toBe(401);
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
    expect(checks()).toContain("authorization-code-grant/code_replayed");
  });

  it("a code without its verifier is refused", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    expect(await errorOf(await client.exchange(code, { code_verifier: undefined }))).toBe("invalid_request");
    expect(checks()).toContain("authorization-code-grant/code_verifier_missing");
  });

  it("a code with another verifier is refused", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    const code_verifier = "another-verifier-another-verifier-another-verifier";
    expect(await errorOf(await client.exchange(code, { code_verifier }))).toBe("invalid_grant");
    expect(
      await errorOf(await client.exchange(code, { code_verifier: await challengeOf(client.verifier) })),
    ).toBe("invalid_grant");
  });

  it("a code at another client is refused", async () => {
    const client = await Client.register(app);
    const thief = await Client.register(app);
    const { code } = await approve(client);
    thief.verifier = client.verifier;
    expect(await errorOf(await thief.exchange(code))).toBe("invalid_grant");
    expect((await client.exchange(code)).status).toBe(200);
  });

  it("a code with another redirect URI is refused", async () => {
    const other = "https://client.example/other";
    const client = await Client.register(app, { redirect_uris: [CALLBACK, other] });
    const { code } = await approve(client);
    expect(await errorOf(await client.exchange(code, { redirect_uri: other }))).toBe("invalid_grant");
  });

  it("a code older than ten minutes is refused", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    const [user, grant] = code.split(":");
    // As the key-value store does when the time is up.
    await env.OAUTH_KV.delete(`grant:${user}:${grant}`);
    expect(await errorOf(await client.exchange(code))).toBe("invalid_grant");
  });

  it("is kept for ten minutes at most, as a hash", async () => {
    const { code } = await approve(await Client.register(app));
    const [user, grant] = code.split(":");
    const { keys } = await env.OAUTH_KV.list({ prefix: `grant:${user}:${grant}` });
    expect(keys[0]?.expiration).toBeLessThanOrEqual(Date.now() / 1000 + 601);
    expect(await env.OAUTH_KV.get(keys[0]?.name ?? "")).not.toContain(code.split(":").at(-1));
  });
});

describe("PKCE", () => {
  it.each([
    ["the plain method is refused", { code_challenge_method: "plain" }],
    ["a challenge without a method, which means plain, is refused", { code_challenge_method: undefined }],
    ["no challenge at all is refused", { code_challenge: undefined, code_challenge_method: undefined }],
    ["a challenge that is no SHA-256 is refused", { code_challenge: "short" }],
  ])("%s", async (_, parameters) => {
    for (const token_endpoint_auth_method of ["none", "client_secret_basic"]) {
      const client = await Client.register(app, { token_endpoint_auth_method });
      const page = await new Browser(app).open(await client.authorizationURL(parameters));
      expectToldHere(page);
      expect(page.text).toContain("error=invalid_request");
    }
  });
});

describe("redirects", () => {
  it.each([
    "https://evil.example/callback",
    `${CALLBACK}/more`,
    `${CALLBACK}?more=1`,
    `${CALLBACK}#fragment`,
    "https://client.example",
    "https://client.example.evil.example/callback",
    "https://client.example@evil.example/callback",
    "https://CLIENT.example/callback",
    "//client.example/callback",
    "javascript:alert(1)//client.example/callback",
    "http://client.example/callback",
    "",
  ])("a redirect URI that is not registered is refused: %s", async (redirect_uri) => {
    const page = await new Browser(app).open(
      await (await Client.register(app)).authorizationURL({ redirect_uri }),
    );
    expectToldHere(page);
    expect(page.text).not.toContain("evil.example");
  });

  it.each([
    "javascript:alert(1)",
    "data:text/html,x",
    "http://evil.example/callback",
    "https://user@evil.example/",
    "https://evil.example/#x",
    "cursor://evil/callback",
  ])("a client cannot register to be sent to %s", async (redirect_uri) => {
    expect((await register(app, { redirect_uris: [redirect_uri] })).status).toBe(400);
  });

  it("the server is no open redirector: an error of a registered client is shown, with a link to follow or not", async () => {
    const client = await Client.register(app, { redirect_uris: ["https://evil.example/"] });
    for (const wrong of [
      { response_type: "token" },
      { scope: "email" },
      { resource: "https://other.example/" },
    ]) {
      const page = await new Browser(app).open(
        await client.authorizationURL({ redirect_uri: "https://evil.example/", ...wrong }),
      );
      expectToldHere(page);
      expect(page.text).toContain('href="https://evil.example/?error=');
    }
  });

  it("no other parameter makes one of it", async () => {
    for (const name of ["next", "return_to", "url", "continue"]) {
      const page = await new Browser(app).open(`${ORIGIN}/authorize?${name}=https://evil.example/`);
      expectToldHere(page);
      expect(page.text).not.toContain("evil.example");
    }
  });

  it("a parameter that is there twice is refused", async () => {
    const url = await (await Client.register(app)).authorizationURL();
    for (const extra of [
      "redirect_uri=https://evil.example/",
      "client_id=x",
      "code_challenge=x",
      "state=x",
    ]) {
      const page = await new Browser(app).open(`${url}&${extra}`);
      expectToldHere(page);
      expect(page.text).toContain("A parameter is there twice");
    }
  });

  it("the answer to a form is followed with GET, so that no token travels on", async () => {
    const browser = new Browser(app);
    const page = await browser.open(await (await Client.register(app)).authorizationURL());
    const done = await browser.submit(page, { decision: "owner", token: TOKEN });
    expect(done.status).toBe(303);
    expect(done.response.headers.get("referrer-policy")).toBe("no-referrer");
    expect(done.text).toBe("");
  });
});

describe("tokens", () => {
  it("a token for one resource is refused at the other", async () => {
    const { tokens } = await signedIn(app);
    expect(await statusOf(app, tokens.access_token, "/mcp")).toBe(200);
    expect(await statusOf(app, tokens.access_token, "/")).toBe(401);
    const { tokens: root } = await signedIn(app, { resource: ORIGIN });
    expect(await statusOf(app, root.access_token, "/")).toBe(200);
    expect(await statusOf(app, root.access_token, "/mcp")).toBe(401);
  });

  it("a token of another server's is refused: the audience is part of it", async () => {
    const elsewhere = "https://elsewhere.example";
    const { tokens } = await signedIn(app);
    // The same key-value store, as where two names lead to one Worker.
    const other = oauthApp({ PUBLIC_ORIGIN: elsewhere });
    expect(await statusOf(other, tokens.access_token, `${elsewhere}/mcp`)).toBe(401);
  });

  it.each(["https://other.example/mcp", `${ORIGIN}/mcp/`, `${ORIGIN}/other`, "mcp"])(
    "a resource that is not ours is refused: %s",
    async (resource) => {
      const page = await new Browser(app).open(
        await (await Client.register(app)).authorizationURL({ resource }),
      );
      expectToldHere(page);
      expect(page.text).toContain("error=invalid_target");
    },
  );

  it("a code for one resource buys no token for the other", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    expect(await errorOf(await client.exchange(code, { resource: ORIGIN }))).toBe("invalid_target");
  });

  it("an expired token is refused", async () => {
    const { tokens } = await signedIn(app);
    vi.useFakeTimers({ now: Date.now() + 3599_000, toFake: ["Date"] });
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    vi.setSystemTime(Date.now() + 3000);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
  });

  it("a revoked access token is refused, and its client can refresh", async () => {
    const { client, tokens } = await signedIn(app);
    expect((await client.token({ token: tokens.access_token })).status).toBe(200);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
    expect((await client.refresh(tokens.refresh_token)).status).toBe(200);
  });

  it("revoking a refresh token ends everything that came of the sign-in", async () => {
    const { client, tokens } = await signedIn(app);
    expect((await client.token({ token: tokens.refresh_token })).status).toBe(200);
    expect(await statusOf(app, tokens.access_token)).toBe(401);
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
  });

  it("another client cannot revoke a token", async () => {
    const { tokens } = await signedIn(app);
    const other = await Client.register(app);
    await other.token({ token: tokens.access_token });
    await other.token({ token: tokens.refresh_token });
    expect(await statusOf(app, tokens.access_token)).toBe(200);
  });

  it("a refresh token or a code is no access token", async () => {
    const { tokens } = await signedIn(app);
    const { code } = await approve(await Client.register(app));
    expect(await statusOf(app, tokens.refresh_token)).toBe(401);
    expect(await statusOf(app, code)).toBe(401);
  });

  it("a token changed in any part is refused", async () => {
    const { tokens } = await signedIn(app);
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

  it("a token in the query or in the form is not looked at", async () => {
    const { tokens } = await signedIn(app);
    const init = post({ jsonrpc: "2.0", id: 1, method: "tools/list", access_token: tokens.access_token });
    const headers = new Headers(init.headers);
    headers.delete("authorization");
    const answer = await app(`/mcp?access_token=${tokens.access_token}`, { ...init, headers });
    expect(answer.status).toBe(401);
  });

  it.each([
    ["two headers", (token: string) => [`Bearer ${token}`, `Bearer ${token}`], 401],
    ["a scheme in lower case", (token: string) => [`bearer ${token}`], 200],
    ["spaces around", (token: string) => [`  Bearer   ${token}  `], 200],
    ["a token of 1 MB", () => [`Bearer owner:${"g".repeat(16)}:${"x".repeat(1024 * 1024)}`], 401],
    ["a user part of 1 KB", () => [`Bearer ${"u".repeat(1024)}:${"g".repeat(16)}:${"x".repeat(32)}`], 401],
    ["unicode", () => ["Bearer ówner:gggggggggggggggg:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"], 401],
  ] as const)("header tricks: %s", async (_, headersOf, status) => {
    const { tokens } = await signedIn(app);
    const init = post({ jsonrpc: "2.0", id: 1, method: "tools/list" });
    const headers = new Headers(init.headers);
    headers.delete("authorization");
    for (const value of headersOf(tokens.access_token)) headers.append("authorization", value);
    expect((await app("/mcp", { ...init, headers })).status).toBe(status);
  });
});

describe("refresh tokens", () => {
  it("the one before is good until the new one is used, and older ones are not", async () => {
    const { client, tokens } = await signedIn(app);
    const second = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    // The answer may have been lost: once more with the first.
    const again = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    // That replaced the second, which nobody had used.
    expect(await errorOf(await client.refresh(second.refresh_token))).toBe("invalid_grant");
    const third = await (await client.refresh(again.refresh_token)).json<Tokens>();
    expect(await errorOf(await client.refresh(tokens.refresh_token))).toBe("invalid_grant");
    expect((await client.refresh(third.refresh_token)).status).toBe(200);
    expect(checks()).toEqual(Array(2).fill("refresh-token-grant/refresh_token_mismatch"));
  });

  it("a refresh token at another client is refused", async () => {
    const { tokens } = await signedIn(app);
    const thief = await Client.register(app);
    expect(await errorOf(await thief.refresh(tokens.refresh_token))).toBe("invalid_grant");
  });

  it("a grant ends 30 days after the sign-in however often it is refreshed", async () => {
    const { client, tokens } = await signedIn(app);
    const start = Date.now();
    vi.useFakeTimers({ now: start + 29 * 86_400_000, toFake: ["Date"] });
    const later = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    vi.setSystemTime(start + 30 * 86_400_000);
    expect(await errorOf(await client.refresh(later.refresh_token))).toBe("invalid_grant");
  });

  it("a grant ends when the token it was approved with is no longer the server's", async () => {
    const { client, tokens } = await signedIn(app);
    const rotated = oauthApp({ SERVER_AUTH_TOKEN: "another-server-token" });
    expect(await statusOf(rotated, tokens.access_token)).toBe(401);
    expect(await errorOf(await new Client(rotated, client.id).refresh(tokens.refresh_token))).toBe(
      "invalid_grant",
    );
    expect(checks()).toContain("admission/rule_gone");
  });
});

describe("mix-up", () => {
  it("every answer to a client says who gave it (RFC 9207), as the metadata announce", async () => {
    const client = await Client.register(app);
    const { callback } = await approve(client);
    expect(callback.searchParams.get("iss")).toBe(ORIGIN);
    const metadata = await app("/.well-known/oauth-authorization-server");
    expect(await metadata.json()).toMatchObject({
      issuer: ORIGIN,
      authorization_response_iss_parameter_supported: true,
    });
    const page = await new Browser(app).open(await client.authorizationURL({ response_type: "token" }));
    expect(page.text).toContain(`iss=${encodeURIComponent(ORIGIN)}`);
  });
});

describe("the consent form", () => {
  it("cross-site request forgery: a form without the browser's cookie is refused", async () => {
    const { browser, page } = await consent();
    expectToldHere(await new Browser(app).submit(page, approval));
    expect((await browser.submit(page, approval)).status).toBe(303);
  });

  it("cross-site request forgery: a handle of the attacker's is refused in the victim's browser", async () => {
    const attacker = await consent();
    const victim = await consent();
    expectToldHere(await victim.browser.submit(attacker.page, approval));
    // The victim's own page is still good.
    expect((await victim.browser.submit(victim.page, approval)).status).toBe(303);
  });

  it.each(["https://evil.example", "null", "https://sandbox.example.evil.example"])(
    "cross-site request forgery: a form sent by a page of %s is refused",
    async (origin) => {
      const { browser, page } = await consent();
      const headers = { "content-type": "application/x-www-form-urlencoded", origin };
      const answer = await browser.submit(page, approval, { headers });
      expect(answer.status).toBe(403);
      expect((await browser.submit(page, approval)).status).toBe(303);
    },
  );

  it("cross-site request forgery: not even a page that may call the API can send the form", async () => {
    const open = oauthApp({ ALLOWED_ORIGINS: "https://app.example" });
    const { browser, page } = await consent(new Browser(open));
    const headers = { "content-type": "application/x-www-form-urlencoded", origin: "https://app.example" };
    const answer = await browser.submit(page, approval, { headers });
    expect(answer.status).toBe(403);
    expect(answer.text).toContain("came from elsewhere");
  });

  it("cross-site request forgery: the cookie is kept from other sites, from scripts and from other hosts", async () => {
    const { page } = await consent();
    const [cookie = ""] = page.response.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-sandbox-mcp-consent-[0-9a-f]{16}=[0-9a-f]{64}; /);
    const attributes = cookie.split("; ").slice(1);
    expect(attributes.sort()).toEqual(["HttpOnly", "Max-Age=600", "Path=/", "SameSite=Lax", "Secure"]);
  });

  it("a JSON or multipart form is refused", async () => {
    const { browser, page } = await consent();
    for (const type of ["application/json", "multipart/form-data; boundary=x", "text/plain"]) {
      expectToldHere(
        await browser.submit(page, approval, { headers: { "content-type": type, origin: ORIGIN } }),
      );
    }
    expect((await browser.submit(page, approval)).status).toBe(303);
  });

  it("session fixation: there is no session to fix, every approval needs the credential again", async () => {
    const browser = new Browser(app);
    const first = await consent(browser);
    expect((await browser.submit(first.page, approval)).status).toBe(303);
    expect(browser.cookies.size).toBe(0);
    const second = await consent(browser);
    const answer = await browser.submit(second.page, { decision: "owner", token: "" });
    expect(answer.status).toBe(403);
    expect(answer.location).toBeUndefined();
  });

  it("session fixation: a planted cookie does not make a handle good", async () => {
    const attacker = await consent();
    const victim = new Browser(app);
    for (const name of attacker.browser.cookies.keys()) victim.cookies.set(name, "0".repeat(64));
    const answer = await victim.submit(attacker.page, approval);
    expectToldHere(answer);
    expect(answer.text).toContain("no longer good");
  });

  it("a handle works once, even with a wrong token", async () => {
    const { browser, page } = await consent();
    const wrong = await browser.submit(page, { decision: "owner", token: "wrong" });
    expect(wrong.status).toBe(403);
    expectToldHere(await browser.submit(page, approval));
    const done = await browser.submit(wrong, approval);
    expect(done.status).toBe(303);
    expectToldHere(await browser.submit(wrong, approval));
  });

  it("an expired handle is refused, with a way to start again", async () => {
    const { browser, page } = await consent();
    const { keys } = await env.OAUTH_KV.list({ prefix: "transaction:" });
    for (const { name } of keys) await env.OAUTH_KV.delete(name);
    const answer = await browser.submit(page, approval);
    expectToldHere(answer);
    expect(answer.text).toContain("no longer good");
    expect(answer.text).toMatch(/href="\/authorize\?response_type=code[^>]*>Start again/);
  });

  it("a handle is kept for ten minutes at most, and its record cannot be read without it", async () => {
    const { page } = await consent();
    const { keys } = await env.OAUTH_KV.list({ prefix: "transaction:" });
    for (const { name, expiration } of keys) {
      expect(expiration).toBeLessThanOrEqual(Date.now() / 1000 + 601);
      expect(name).not.toContain(page.handle);
      expect(await env.OAUTH_KV.get(name)).not.toContain("client.example");
    }
  });

  it("clickjacking: no page of ours can be framed, run a script or send its form elsewhere", async () => {
    const { browser, page } = await consent();
    const wrong = await browser.submit(page, { decision: "owner", token: "wrong" });
    const message = await browser.open(`${ORIGIN}/authorize`);
    for (const { response } of [page, wrong, message]) {
      expect(response.headers.get("x-frame-options")).toBe("DENY");
      const policy = (response.headers.get("content-security-policy") ?? "").split("; ");
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).toContain("base-uri 'none'");
      expect(policy.join()).not.toMatch(/unsafe|script-src|\*/);
      expect(response.headers.get("cache-control")).toBe("no-store");
    }
    expect(page.response.headers.get("content-security-policy")).toContain(
      "form-action 'self' https://client.example;",
    );
    expect(message.response.headers.get("content-security-policy")).toContain("form-action 'self';");
  });

  it("script injection: what a client says of itself is text", async () => {
    const client_name = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`;
    const client = await Client.register(app, { client_name });
    const state = `"><script>alert(2)</script>`;
    const page = await new Browser(app).open(await client.authorizationURL({ state }));
    expect(page.text).not.toMatch(/<script|<img/i);
    expect(page.text).toContain("&#60;script&#62;alert(1)");
  });

  it("spoofing: a name cannot turn the writing round, hide or run over the page", async () => {
    const client_name = `Claude\u202egro.live\u200b\n\n${"x".repeat(500)}`;
    const client = await Client.register(app, { client_name });
    const page = await new Browser(app).open(await client.authorizationURL());
    expect(page.text).not.toMatch(/[\u202e\u200b]/);
    expect(page.text).toContain("<bdi>Claude gro.live xxx");
    expect(page.text).not.toContain("x".repeat(80));
  });
});

describe("clients", () => {
  it("another's secret, or none, is refused", async () => {
    const client = await Client.register(app, { token_endpoint_auth_method: "client_secret_post" });
    const { code } = await approve(client);
    for (const secret of [undefined, "", "wrong"]) {
      const thief = new Client(app, client.id, secret);
      thief.verifier = client.verifier;
      expect(await errorOf(await thief.exchange(code))).toBe("invalid_client");
    }
  });

  it("an unknown one is told here, and gets nothing at the token endpoint", async () => {
    const nobody = new Client(app, "nobody");
    expectToldHere(await new Browser(app).open(await nobody.authorizationURL()));
    expect(await errorOf(await nobody.exchange("a:b:c"))).toBe("invalid_client");
  });

  it.each(["password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:token-exchange"])(
    "there is no grant of type %s",
    async (grant_type) => {
      const client = await Client.register(app);
      const answer = await client.token({
        grant_type,
        username: "owner",
        password: TOKEN,
        subject_token: TOKEN,
      });
      expect(await errorOf(answer)).toBe("unsupported_grant_type");
    },
  );

  it("parts too long for a key of the store are refused before they get there", async () => {
    const client = await Client.register(app);
    const long = `${"u".repeat(600)}:g:s`;
    for (const parameters of [{ code: long }, { refresh_token: long }, { token: long }]) {
      const answer = await client.token({ grant_type: "authorization_code", ...parameters });
      expect(await errorOf(answer)).toBe("invalid_request");
    }
    expect((await new Client(app, "c".repeat(600)).exchange("a:b:c")).status).toBe(400);
    expectToldHere(await new Browser(app).open(await new Client(app, "c".repeat(600)).authorizationURL()));
    expect(logs.entries().some(({ event }) => event === "error")).toBe(false);
  });

  it("requests that are too large are refused", async () => {
    const body = JSON.stringify({ client_name: "x".repeat(70_000), redirect_uris: [CALLBACK] });
    const headers = { "content-type": "application/json" };
    expect((await app("/oauth/register", { method: "POST", headers, body })).status).toBe(413);
    expectToldHere(await new Browser(app).open(`${ORIGIN}/authorize?client_id=x&state=${"s".repeat(9000)}`));
  });
});
