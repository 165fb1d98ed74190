/** OAuth 2.1's security considerations: attacks on codes, redirects and clients. */
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { call, ORIGIN, TOKEN, recordEachLog } from "../server/support.ts";
import {
  approve,
  Browser,
  CALLBACK,
  challengeOf,
  Client,
  errorOf,
  oauthApp,
  panelBrowser,
  panelBrowserOfGitHub,
  panelSignIn,
  register,
  type Tokens,
  statusOf,
} from "./support.ts";
import { mcpHeaders } from "../../setup/mcp-client.ts";

const logs = recordEachLog();

const app = oauthApp();

function checks(): unknown[] {
  return logs.entries().flatMap(({ check }) => check ?? []);
}

describe("authorization codes", () => {
  it("a code used twice is refused, and the tokens of the first use are revoked", async () => {
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

  it("a code from another client is refused", async () => {
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

  it("a code that is older than ten minutes is refused", async () => {
    const client = await Client.register(app);
    const { code } = await approve(client);
    const [user, grant] = code.split(":");
    // The key-value store deletes the record after its expiry.
    await env.OAUTH_KV.delete(`grant:${user}:${grant}`);
    expect(await errorOf(await client.exchange(code))).toBe("invalid_grant");
  });

  it("a code is kept as a hash, for at most ten minutes", async () => {
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
    ["a challenge that is not a SHA-256 is refused", { code_challenge: "short" }],
  ])("%s", async (_, parameters) => {
    for (const token_endpoint_auth_method of ["none", "client_secret_basic"]) {
      const client = await Client.register(app, { token_endpoint_auth_method });
      const page = await new Browser(app).open(await client.authorizationURL(parameters));
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain("error=invalid_request");
    }
  });
});

const CURSOR = ["cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost:8787/callback"];

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
    expect(page.isErrorPage).toBe(true);
    expect(page.text).not.toContain("evil.example");
  });

  it.each([
    "javascript:alert(1)",
    "data:text/html,x",
    "http://evil.example/callback",
    "https://user@evil.example/",
    "https://evil.example/#x",
    "cursor://evil/callback#x",
    "file:///etc/passwd",
    "blob:https://evil.example/x",
    "About:blank",
    " view-source:https://evil.example/",
  ])("a client cannot register the redirect URI %s", async (redirect_uri) => {
    expect((await register(app, { redirect_uris: [redirect_uri] })).status).toBe(400);
  });

  it("a client with a secret cannot use a redirect URI with an app's own scheme", async () => {
    const [redirect_uri] = CURSOR;
    const metadata = { token_endpoint_auth_method: "client_secret_basic" };
    const refused = await register(app, { ...metadata, redirect_uris: [redirect_uri] });
    expect(await refused.text()).toContain("Only a public client (token_endpoint_auth_method none)");
    const client = await Client.register(app, { ...metadata, redirect_uris: CURSOR });
    expect((await new Browser(app).open(await client.authorizationURL({ redirect_uri }))).isErrorPage).toBe(
      true,
    );
  });

  it.each([
    "app://localhost:2/callback",
    "app://localhost:1/other",
    "APP://localhost:1/callback",
    "other://localhost:1/callback",
    "http://evil.example/",
  ])("a redirect URI with an app's own scheme must be the registered one, not %s", async (redirect_uri) => {
    const redirect_uris = ["app://localhost:1/callback", "http://evil.example/"];
    const client = await Client.register(app, { redirect_uris });
    const page = await new Browser(app).open(await client.authorizationURL({ redirect_uri }));
    expect(page.isErrorPage).toBe(true);
  });

  it("policy injection: a host after an app's own scheme adds nothing to the page's policy, and is shown with the scheme", async () => {
    const redirect_uri = "app://github.com;script-src%20*/callback";
    const client = await Client.register(app, { redirect_uris: [redirect_uri] });
    const page = await new Browser(app).open(await client.authorizationURL({ redirect_uri }));
    const policy = page.response.headers.get("content-security-policy") ?? "";
    expect(policy.split("; ")).toContain("form-action 'self' app:");
    expect(policy).not.toContain("script-src *");
    expect(page.text).toContain(
      "<strong>app://github.com;script-src%20*</strong>, a program on this computer",
    );
  });

  it("open redirect: an error for a registered client is shown on a page with a link, and the server does not redirect", async () => {
    const client = await Client.register(app, { redirect_uris: ["https://evil.example/"] });
    for (const wrongParameters of [
      { response_type: "token" },
      { scope: "email" },
      { resource: "https://other.example/" },
    ]) {
      const page = await new Browser(app).open(
        await client.authorizationURL({ redirect_uri: "https://evil.example/", ...wrongParameters }),
      );
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain('href="https://evil.example/?error=');
    }
  });

  it.each([
    [{ code_challenge: undefined }, "did not send a code_challenge of method S256"],
    [
      { redirect_uri: "https://evil.example/" },
      "an address (redirect_uri) that is not registered or not allowed",
    ],
    [{ response_type: "token" }, "must request the response_type code"],
    [{ resource: "https://other.example/" }, "does not name exactly one resource of this server"],
    [{ client_id: "x".repeat(300) }, "In the app, remove this server and add it again"],
  ])(
    "an error page says what is wrong and what to do, in this server's words: %j",
    async (wrong, problem) => {
      const client = await Client.register(app);
      const page = await new Browser(app).open(await client.authorizationURL(wrong));
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain(problem);
      expect(page.text).toMatch(/contact the app|remove this server/);
    },
  );

  it("open redirect: no other parameter makes the server redirect elsewhere", async () => {
    for (const name of ["next", "return_to", "url", "continue"]) {
      const page = await new Browser(app).open(`${ORIGIN}/authorize?${name}=https://evil.example/`);
      expect(page.isErrorPage).toBe(true);
      expect(page.text).not.toContain("evil.example");
    }
  });

  it("a repeated parameter is refused", async () => {
    const url = await (await Client.register(app)).authorizationURL();
    for (const extra of [
      "redirect_uri=https://evil.example/",
      "client_id=x",
      "code_challenge=x",
      "state=x",
    ]) {
      const page = await new Browser(app).open(`${url}&${extra}`);
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain("The request has the same parameter twice");
    }
  });

  it("the redirect after a form is followed with GET, so that no token is sent on", async () => {
    const browser = new Browser(app);
    const page = await browser.open(await (await Client.register(app)).authorizationURL());
    const done = await browser.submit(page, { decision: "owner", token: TOKEN });
    expect(done.status).toBe(303);
    expect(done.response.headers.get("referrer-policy")).toBe("no-referrer");
    expect(done.text).toBe("");
  });
});

describe("mix-up", () => {
  it("every response to a client names its issuer (RFC 9207), as the metadata say", async () => {
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

describe("clients", () => {
  it("a client with a wrong secret, or without one, is refused", async () => {
    const client = await Client.register(app, { token_endpoint_auth_method: "client_secret_post" });
    const { code } = await approve(client);
    for (const secret of [undefined, "", "wrong"]) {
      const thief = new Client(app, client.id, secret);
      thief.verifier = client.verifier;
      expect(await errorOf(await thief.exchange(code))).toBe("invalid_client");
    }
  });

  it("an unknown client gets an error instead of the consent page, and no token at the token endpoint", async () => {
    const nobody = new Client(app, "nobody");
    expect((await new Browser(app).open(await nobody.authorizationURL())).isErrorPage).toBe(true);
    expect(await errorOf(await nobody.exchange("a:b:c"))).toBe("invalid_client");
  });

  it.each(["password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:token-exchange"])(
    "a grant of type %s is refused",
    async (grant_type) => {
      const client = await Client.register(app);
      const response = await client.token({
        grant_type,
        username: "owner",
        password: TOKEN,
        subject_token: TOKEN,
      });
      expect(await errorOf(response)).toBe("unsupported_grant_type");
    },
  );
});

/** A tool call as the panel's page sends it. */
function panelCall(browser: Browser, headers: Record<string, string> = {}, name = "note") {
  const { authorization: _, ...own } = mcpHeaders("");
  const body = JSON.stringify(call(name, { text: "x", a: 1, b: 2 }));
  const init = { method: "POST", body, headers: { ...own, origin: ORIGIN, ...headers } };
  return browser.open(`${ORIGIN}/panel/mcp`, init);
}

describe("the panel's session", () => {
  it("is hidden from scripts, other sites and other hosts, and its page calls tools for the person who signed in", async () => {
    const { browser, consent } = await panelSignIn(app);
    expect(consent.text).toContain("Sign in to the panel");
    const approved = await browser.submit(consent, { decision: "owner", token: TOKEN });
    const done = await browser.open(approved.location?.href ?? "");
    const [cookie = ""] = done.response.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-sandbox-mcp-panel=owner:/);
    expect(cookie.split("; ").slice(1).sort()).toEqual([
      "HttpOnly",
      "Max-Age=604800",
      "Path=/",
      "SameSite=Strict",
      "Secure",
    ]);
    expect((await panelCall(browser)).text).toContain("owner noted");
    expect([...browser.cookies.keys()]).toEqual(["__Host-sandbox-mcp-panel"]);
  });

  it("cross-site request forgery: can be used only by the panel's own page, and only for the panel", async () => {
    const open = oauthApp({ ALLOWED_ORIGINS: "https://app.example" });
    const browser = await panelBrowser(app);
    const evil = new Browser(open);
    for (const [name, value] of browser.cookies) evil.cookies.set(name, value);
    for (const origin of ["https://evil.example", "https://app.example", "null", ""])
      expect((await panelCall(evil, { origin })).status).toBe(403);
    expect((await panelCall(evil)).status).toBe(200);
    const headers = { origin: ORIGIN, "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(call("note", { text: "x" })) };
    for (const path of ["/mcp", "/", "/execute"])
      expect((await browser.open(ORIGIN + path, init)).status).toBe(401);
    const [session = ""] = browser.cookies.values();
    const stolen = { ...init, headers: mcpHeaders(session) };
    for (const path of ["/mcp", "/", "/execute"]) expect((await app(ORIGIN + path, stolen)).status).toBe(401);
    expect((await app(`${ORIGIN}/sandboxes/a/files/b`, { headers: mcpHeaders(session) })).status).toBe(401);
    expect((await browser.open(`${ORIGIN}/panel/sign-out`, { method: "POST" })).status).toBe(403);
    expect((await panelCall(browser)).status).toBe(200);
  });

  it("ends with sign-out, also for copies of its cookie, and only in this browser", async () => {
    const [browser, other] = [await panelBrowser(app), await panelBrowser(app)];
    const stolen = new Browser(app);
    for (const [name, value] of browser.cookies) stolen.cookies.set(name, value);
    expect((await panelCall(stolen)).status).toBe(200);
    const out = await browser.open(`${ORIGIN}/panel/sign-out`, {
      method: "POST",
      headers: { origin: ORIGIN },
    });
    expect([out.status, browser.cookies.size]).toEqual([204, 0]);
    expect((await panelCall(stolen)).status).toBe(401);
    expect((await panelCall(other)).status).toBe(200);
  });

  it("ends when the server no longer accepts the token that approved it", async () => {
    const browser = await panelBrowser(app);
    const later = new Browser(oauthApp({ SERVER_AUTH_TOKEN: "another-token-of-the-server" }));
    for (const [name, value] of browser.cookies) later.cookies.set(name, value);
    expect((await panelCall(later)).status).toBe(401);
  });

  it("has only the scopes that were ticked", async () => {
    const browser = await panelBrowser(app, ["sandbox:read", "sandbox:write"]);
    expect((await panelCall(browser)).status).toBe(200);
    const refused = await panelCall(browser, {}, "add");
    expect([refused.status, refused.text]).toEqual([403, expect.stringContaining("sandbox:exec")]);
  });

  it("session fixation: does not start with another person's sign-in, a planted cookie or another client's token", async () => {
    const attacker = await panelSignIn(app);
    const approved = await attacker.browser.submit(attacker.consent, { decision: "owner", token: TOKEN });
    const victim = new Browser(app);
    // The attacker's response is refused, with or without a sign-in in progress in the victim's browser.
    for (const begin of [false, true]) {
      if (begin) await victim.open(`${ORIGIN}/panel/sign-in`);
      const response = await victim.open(approved.location?.href ?? "");
      expect([response.status, victim.cookies.size]).toEqual([400, 0]);
    }
    const browser = await panelBrowser(app);
    const [[name, value] = ["", ""]] = browser.cookies;
    const twice = await app(`${ORIGIN}/panel/mcp`, {
      method: "POST",
      headers: { origin: ORIGIN, cookie: `${name}=x; ${name}=${value}` },
    });
    expect(twice.status).toBe(401);
    const client = await Client.register(app);
    const { code } = await approve(client);
    const { access_token } = await (await client.exchange(code)).json<Tokens>();
    victim.cookies.set(name, access_token);
    expect((await panelCall(victim)).status).toBe(401);
  });

  it("spoofing: on loopback, a program on another port cannot sign in as the panel", async () => {
    const origin = "http://localhost:8787";
    const local = oauthApp({ PUBLIC_ORIGIN: undefined });
    const client = new Client(local, "panel", undefined, origin);
    const open = async (redirect_uri: string) =>
      new Browser(local).open(await client.authorizationURL({ redirect_uri, resource: `${origin}/mcp` }));
    expect((await open(`${origin}/panel/callback`)).text).toContain("Sign in to the panel");
    expect((await open("http://localhost:9999/panel/callback")).isErrorPage).toBe(true);
  });

  it("cookie tossing: ignores a cookie whose name begins with a space that only scripts trim", async () => {
    // The prefix `__Host-` is not at the beginning of such a name, so another host of the domain may set the cookie.
    const browser = await panelBrowser(app);
    const [[name, value] = ["", ""]] = browser.cookies;
    for (const space of ["\u00a0", "\u2000", "\ufeff"]) {
      const victim = new Browser(app);
      victim.cookies.set(space + name, value);
      expect((await panelCall(victim)).status).toBe(401);
      browser.cookies.set(space + name, "x");
      expect((await panelCall(browser)).status).toBe(200);
    }
  });

  it("of one principal shows no data of another principal", async () => {
    const browser = await panelBrowserOfGitHub();
    expect((await panelCall(browser)).text).toContain("github:7 noted");
    expect((await panelCall(await panelBrowser(app))).text).toContain("owner noted");
  });

  it("clickjacking: has a page that cannot be framed and runs only its own script", async () => {
    const { response, text } = await new Browser(app).open(`${ORIGIN}/panel`);
    const policy = response.headers.get("content-security-policy") ?? "";
    for (const rule of [
      "default-src 'none'",
      "script-src 'self'",
      "frame-ancestors 'none'",
      "base-uri 'none'",
    ])
      expect(policy.split("; ")).toContain(rule);
    expect(policy).not.toContain("unsafe");
    expect(response.headers.get("x-frame-options")).toBe("DENY");
    const paths = Array.from(text.matchAll(/(?:src|href)="([^"]+)"/g), ([, path = ""]) => path);
    expect(paths).toHaveLength(2);
    for (const path of paths) expect((await app(path)).headers.get("cache-control")).toContain("immutable");
    expect((await app("/panel/assets/constructor")).status).toBe(404);
  });
});
