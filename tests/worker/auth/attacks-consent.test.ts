/**
 * Attacks on the consent page and its user, which the server refuses. The form's hidden field `handle` has a random value that
 * identifies the request that the person approves.
 */
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { ORIGIN, recordLogs, TOKEN, recordEachLog } from "../server/support.ts";
import { Browser, CALLBACK, Client, oauthApp, register } from "./support.ts";

recordEachLog();

const app = oauthApp();

const approval = { decision: "owner", token: TOKEN };

/** A browser that shows the consent page of a new client. */
async function openConsentPage(browser = new Browser(app)) {
  const page = await browser.open(await (await Client.register(app)).authorizationURL());
  return { browser, page };
}

describe("the consent form", () => {
  it("cross-site request forgery: a form without the browser's cookie is refused", async () => {
    const { browser, page } = await openConsentPage();
    expect((await new Browser(app).submit(page, approval)).isErrorPage).toBe(true);
    expect((await browser.submit(page, approval)).status).toBe(303);
  });

  it("says that the client is not registered if the client was removed while its page was open", async () => {
    const browser = new Browser(app);
    const client = await Client.register(app);
    const page = await browser.open(await client.authorizationURL());
    await env.OAUTH_KV?.delete(`client:${client.id}`);
    const { status, text } = await browser.submit(page, approval);
    expect([status, text]).toEqual([400, expect.stringContaining("This app is not registered")]);
  });

  it("cross-site request forgery: the attacker's handle is refused in the victim's browser", async () => {
    const attacker = await openConsentPage();
    const victim = await openConsentPage();
    expect((await victim.browser.submit(attacker.page, approval)).isErrorPage).toBe(true);
    // The victim's own page still works.
    expect((await victim.browser.submit(victim.page, approval)).status).toBe(303);
  });

  it.each(["https://evil.example", "null", "https://sandbox.example.evil.example"])(
    "cross-site request forgery: a form sent by a page of %s is refused",
    async (origin) => {
      const { browser, page } = await openConsentPage();
      const headers = { "content-type": "application/x-www-form-urlencoded", origin };
      const response = await browser.submit(page, approval, { headers });
      expect(response.status).toBe(403);
      expect((await browser.submit(page, approval)).status).toBe(303);
    },
  );

  it("cross-site request forgery: a page that may call the API cannot send the form", async () => {
    const open = oauthApp({ ALLOWED_ORIGINS: "https://app.example" });
    const { browser, page } = await openConsentPage(new Browser(open));
    const headers = { "content-type": "application/x-www-form-urlencoded", origin: "https://app.example" };
    const response = await browser.submit(page, approval, { headers });
    expect(response.status).toBe(403);
    expect(response.text).toContain("sent from another site");
  });

  it("cross-site request forgery: other sites, scripts and other hosts cannot use the cookie", async () => {
    const { page } = await openConsentPage();
    const [cookie = ""] = page.response.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-sandbox-mcp-consent-[0-9a-f]{16}=[0-9a-f]{64}; /);
    const attributes = cookie.split("; ").slice(1);
    expect(attributes.sort()).toEqual(["HttpOnly", "Max-Age=600", "Path=/", "SameSite=Lax", "Secure"]);
  });

  it("a JSON or multipart form is refused", async () => {
    const { browser, page } = await openConsentPage();
    for (const type of ["application/json", "multipart/form-data; boundary=x", "text/plain"]) {
      expect(
        (await browser.submit(page, approval, { headers: { "content-type": type, origin: ORIGIN } }))
          .isErrorPage,
      ).toBe(true);
    }
    expect((await browser.submit(page, approval)).status).toBe(303);
  });

  it("session fixation: there is no session, and every approval needs the credential again", async () => {
    const browser = new Browser(app);
    const first = await openConsentPage(browser);
    expect((await browser.submit(first.page, approval)).status).toBe(303);
    expect(browser.cookies.size).toBe(0);
    const second = await openConsentPage(browser);
    const response = await browser.submit(second.page, { decision: "owner", token: "" });
    expect(response.status).toBe(403);
    expect(response.location).toBeUndefined();
  });

  it("session fixation: a planted cookie does not make a handle valid", async () => {
    const attacker = await openConsentPage();
    const victim = new Browser(app);
    for (const name of attacker.browser.cookies.keys()) victim.cookies.set(name, "0".repeat(64));
    const response = await victim.submit(attacker.page, approval);
    expect(response.isErrorPage).toBe(true);
    expect(response.text).toContain("has expired");
  });

  it("session fixation: a cookie whose name begins with a space that only scripts trim does not count", async () => {
    const attacker = await openConsentPage();
    const victim = new Browser(app);
    // Another host of the same domain may set it, because the prefix `__Host-` is not at its beginning.
    for (const [name, value] of attacker.browser.cookies) victim.cookies.set(`\u2000${name}`, value);
    expect((await victim.submit(attacker.page, approval)).isErrorPage).toBe(true);
    const names = Array.from(attacker.browser.cookies.keys());
    for (const name of names) attacker.browser.cookies.set(`\u2000${name}`, "x");
    expect((await attacker.browser.submit(attacker.page, approval)).status).toBe(303);
  });

  it("a handle works once, even with a wrong token", async () => {
    const { browser, page } = await openConsentPage();
    const pageAfterWrongToken = await browser.submit(page, { decision: "owner", token: "wrong" });
    expect(pageAfterWrongToken.status).toBe(403);
    expect((await browser.submit(page, approval)).isErrorPage).toBe(true);
    const done = await browser.submit(pageAfterWrongToken, approval);
    expect(done.status).toBe(303);
    expect((await browser.submit(pageAfterWrongToken, approval)).isErrorPage).toBe(true);
  });

  it("an expired handle is refused, with a way to start again", async () => {
    const { browser, page } = await openConsentPage();
    const { keys } = await env.OAUTH_KV.list({ prefix: "transaction:" });
    for (const { name } of keys) await env.OAUTH_KV.delete(name);
    const response = await browser.submit(page, approval);
    expect(response.isErrorPage).toBe(true);
    expect(response.text).toContain("has expired");
    expect(response.text).toMatch(/href="\/authorize\?response_type=code[^>]*>Start again/);
  });

  it("a handle is kept for at most ten minutes, and its record cannot be read without it", async () => {
    const { page } = await openConsentPage();
    const { keys } = await env.OAUTH_KV.list({ prefix: "transaction:" });
    expect(keys).not.toEqual([]);
    for (const { name, expiration } of keys) {
      expect(expiration).toBeLessThanOrEqual(Date.now() / 1000 + 601);
      expect(name).not.toContain(page.handle);
      expect(await env.OAUTH_KV.get(name)).not.toContain("client.example");
    }
  });

  it("clickjacking: pages cannot be framed, run scripts or send a form elsewhere", async () => {
    const { browser, page } = await openConsentPage();
    const pageAfterWrongToken = await browser.submit(page, { decision: "owner", token: "wrong" });
    const message = await browser.open(`${ORIGIN}/authorize`);
    for (const { response } of [page, pageAfterWrongToken, message]) {
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

  it("script injection: a client's description of itself is shown as text", async () => {
    const client_name = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`;
    const client = await Client.register(app, { client_name });
    const state = `"><script>alert(2)</script>`;
    const page = await new Browser(app).open(await client.authorizationURL({ state }));
    expect(page.text).not.toMatch(/<script|<img/i);
    expect(page.text).toContain("&#60;script&#62;alert(1)");
  });

  it("spoofing: a name cannot reverse the writing direction, hide or overflow the page", async () => {
    const client_name = `Claude\u202egro.live\u200b\n\n${"x".repeat(500)}`;
    const client = await Client.register(app, { client_name });
    const page = await new Browser(app).open(await client.authorizationURL());
    expect(page.text).not.toMatch(/[\u202e\u200b]/);
    expect(page.text).toContain("<bdi>Claude gro.live xxx");
    expect(page.text).not.toContain("x".repeat(80));
  });

  it.each([
    "\u2800\u2800",
    "\u3164",
    "\u115f\u1160",
    "\uffa0",
    "\u{1d159}",
    "\u034f",
    "\u0301",
    " \u200b\u3000",
  ])("spoofing: an invisible name counts as missing: %j", async (client_name) => {
    const client = await Client.register(app, { client_name });
    const page = await new Browser(app).open(await client.authorizationURL());
    expect(page.text).toContain("<bdi>An app without a name</bdi>");
    expect(page.text).toContain("<title>An app without a name asks for access</title>");
  });

  it("spoofing: a name keeps combining marks and emoji, and loses invisible filler characters", async () => {
    const client = await Client.register(app, { client_name: "Cafe\u0301 \u2764\ufe0f \u3164x" });
    const page = await new Browser(app).open(await client.authorizationURL());
    expect(page.text).toContain("<bdi>Cafe\u0301 \u2764\ufe0f x</bdi>");
  });

  it("policy injection: every kind of registration refuses a host that would add a directive to the page's policy", async () => {
    const id = "https://client.example/metadata.json";
    const hosts = ["a;sandbox", "a,default-src", "a%3Bsandbox", "*", "*.example", "a'b", "a(b)"];
    for (const host of hosts) {
      const redirect_uri = `https://${host}/cb`;
      const refused = await register(app, { redirect_uris: [CALLBACK, redirect_uri] });
      expect(refused.status).toBe(400);
      expect(await refused.json()).toMatchObject({ error: "invalid_redirect_uri" });
      const document = { client_id: id, client_name: "x", redirect_uris: [redirect_uri] };
      vi.spyOn(globalThis, "fetch").mockImplementation(async () =>
        Response.json({ ...document, token_endpoint_auth_method: "none" }),
      );
      const page = await new Browser(app).open(await new Client(app, id).authorizationURL({ redirect_uri }));
      expect(page.isErrorPage).toBe(true);
      expect(page.response.headers.get("content-security-policy")).not.toContain(host);
      expect(page.response.headers.get("content-security-policy")).toContain("form-action 'self';");
    }
    for (const redirect_uri of [
      "http://[::1]:3000/cb",
      "https://xn--bcher-kva.example:8443/cb",
      "http://127.0.0.1/a;b",
    ]) {
      const client = await Client.register(app, { redirect_uris: [redirect_uri] });
      expect((await new Browser(app).open(await client.authorizationURL({ redirect_uri }))).status).toBe(200);
    }
  });

  it.each([
    [
      "a failure of the server",
      // Reading this record throws.
      async () => ({
        get redirectUris(): never {
          throw new Error("secret of the store");
        },
      }),
      { status: 500, heading: "Something went wrong", error_name: "Error" },
    ],
    [
      "a failure of the store",
      () => Promise.reject(new Error("secret of the store")),
      { status: 503, heading: "Try again in a moment", error_name: "StoreError" },
    ],
  ])("%s is reported without internal details", async (_what, get, { status, heading, error_name }) => {
    const logs = recordLogs();
    const broken = new Proxy(env.OAUTH_KV, { get: () => get });
    const page = await new Browser(oauthApp({ OAUTH_KV: broken })).open(
      await new Client(app, "any").authorizationURL(),
    );
    expect(page.status).toBe(status);
    expect(page.text).toContain(heading);
    expect(page.text).not.toContain("secret");
    expect(logs.entries()).toMatchObject([{ event: "error", where: "authorize", error_name }]);
    expect(logs.text()).not.toContain("secret");
  });
});
