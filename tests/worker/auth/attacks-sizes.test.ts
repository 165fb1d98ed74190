/** The server refuses input that is one byte or character too long. */
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { isOwnAuthorization } from "../../../src/auth/bearer.ts";
import { parseConfig } from "../../../src/shared/config.ts";
import { beforeCalls } from "../../setup/before-calls.ts";
import { ORIGIN, TOKEN, recordEachLog, urlsParsedBy } from "../server/support.ts";
import { Browser, CALLBACK, Client, errorOf, oauthApp } from "./support.ts";

const logs = recordEachLog();

const app = oauthApp();

describe("the limits of sizes", () => {
  it("ids, codes and tokens that are too long for a key of the store are refused before the store is used", async () => {
    const storeKeys: string[] = [];
    const OAUTH_KV = beforeCalls(env.OAUTH_KV, (_operation, [key]) => void storeKeys.push(String(key)));
    const watched = oauthApp({ OAUTH_KV });
    const client = new Client(watched, (await Client.register(app)).id);
    const reaches = async (request: () => Promise<unknown>) => {
      storeKeys.length = 0;
      await request();
      return storeKeys.length > 0;
    };
    for (const name of ["code", "refresh_token", "token"]) {
      const grant_type = name === "refresh_token" ? name : "authorization_code";
      const send = (length: number) => client.token({ grant_type, [name]: `${"u".repeat(length - 4)}:g:s` });
      expect(await errorOf(await send(361))).toBe("invalid_request");
      expect(await reaches(() => send(361))).toBe(false);
      expect(await reaches(() => send(360))).toBe(true);
    }
    const exchange = (length: number) => new Client(watched, "c".repeat(length)).exchange("a:b:c");
    expect((await exchange(361)).status).toBe(400);
    expect(await reaches(() => exchange(361))).toBe(false);
    expect(await reaches(() => exchange(360))).toBe(true);
    const open = async (length: number) =>
      new Browser(watched).open(await new Client(watched, "c".repeat(length)).authorizationURL());
    expect((await open(257)).isErrorPage).toBe(true);
    expect(await reaches(() => open(257))).toBe(false);
    expect(await reaches(() => open(256))).toBe(true);
    expect(logs.entries().some(({ event }) => event === "error")).toBe(false);
  });

  it("ids, codes and tokens that are too long in bytes, but not in characters, are refused too", async () => {
    const client = await Client.register(app);
    const statuses = await Promise.all([
      new Client(app, "é".repeat(300)).token({ token: "x" }),
      new Client(app, "é".repeat(300)).exchange("a:b:c"),
      client.exchange(`${"é".repeat(300)}:b:c`),
      client.refresh(`${"🐍".repeat(166)}:g:s`),
    ]);
    for (const response of statuses) {
      expect(response.status).toBe(400);
      expect(await errorOf(response)).toBe("invalid_request");
    }
    const url = await new Client(app, "é".repeat(256)).authorizationURL();
    expect((await new Browser(app).open(url)).isErrorPage).toBe(true);
    // A client's id may also come in a header, or be a URL while the server fetches no client documents.
    const authorization = `Basic ${btoa(`${"c".repeat(600)}:secret`)}`;
    const headers = { authorization, "content-type": "application/x-www-form-urlencoded" };
    const basic = await app("/oauth/token", { method: "POST", headers, body: "grant_type=refresh_token" });
    expect(basic.status).toBe(401);
    const off = oauthApp({ OAUTH_CLIENT_METADATA: "off" });
    const byURL = await new Client(off, `https://c.example/${"c".repeat(600)}`).exchange("a:b:c");
    expect(await errorOf(byURL)).toBe("invalid_client");
    expect(logs.entries().some(({ event }) => event === "error")).toBe(false);
  });

  it("bodies that end early are refused with an OAuth error", async () => {
    const makeBrokenBody = () =>
      new ReadableStream({
        pull(controller) {
          controller.error(new Error("The client left"));
        },
      });
    for (const path of ["/oauth/register", "/oauth/token"]) {
      const response = await app(path, { method: "POST", body: makeBrokenBody() });
      expect(response.status).toBe(400);
      expect(await errorOf(response)).toBe("invalid_request");
    }
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const page = await new Browser(app).open("/authorize", {
      method: "POST",
      headers,
      body: makeBrokenBody(),
    });
    expect(page.isErrorPage).toBe(true);
    expect(logs.entries().some(({ event }) => event === "error")).toBe(false);
  });

  it("fewer than 20 words of a preview's Authorization header are decoded, however many it has", async () => {
    const config = parseConfig({ ...env, SERVER_AUTH_TOKEN: TOKEN });
    const decode = vi.spyOn(globalThis, "atob");
    const separators = (number: number) =>
      number.toString(4).replaceAll(/./g, (digit) => ':;="'[Number(digit)] ?? "");
    try {
      expect(await isOwnAuthorization("% ".repeat(5000), config)).toBe(false);
      const distinct = Array.from({ length: 5000 }, (_, number) => separators(number));
      expect(await isOwnAuthorization(distinct.join(","), config)).toBe(true);
      expect(decode.mock.calls.length).toBeLessThan(20);
    } finally {
      decode.mockRestore();
    }
  });

  it("a long or not encoded redirect URI is refused before it is parsed, once for each registered one", async () => {
    const redirect_uris = [CALLBACK, ...Array.from({ length: 49 }, () => "a:")];
    const client = await Client.register(app, { redirect_uris });
    const uris = [`https://${"字".repeat(280)}.example/`, `${CALLBACK}?${"{".repeat(1000)}`];
    for (const redirect_uri of uris) {
      const url = await client.authorizationURL({ redirect_uri });
      let page: Awaited<ReturnType<Browser["open"]>> | undefined;
      const parsed = await urlsParsedBy(async () => (page = await new Browser(app).open(url)));
      expect(page?.isErrorPage).toBe(true);
      expect(page?.text).toContain("redirect_uri");
      expect(parsed).not.toContain(redirect_uri);
      const refused = await client.token({ grant_type: "authorization_code", code: "a:b:c", redirect_uri });
      expect(await errorOf(refused)).toBe("invalid_request");
    }
  });

  it("an assertion is refused before its client id is parsed", async () => {
    const id = `https://${"字".repeat(1300)}.example/`;
    const base64 = (text: string) => new TextEncoder().encode(text).toBase64({ alphabet: "base64url" });
    const client_assertion = [{ alg: "RS256" }, { iss: id }, {}].map((part) => base64(JSON.stringify(part)));
    const fields = {
      grant_type: "refresh_token",
      refresh_token: "u:g:s",
      client_assertion: client_assertion.join("."),
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    };
    const parsed = await urlsParsedBy(async () => {
      const body = new URLSearchParams(fields);
      expect((await app("/oauth/token", { method: "POST", body })).status).toBe(401);
    });
    expect(parsed.filter((url) => url.length > 1000)).toEqual([]);
  });

  it("requests that are too large are refused", async () => {
    const metadata = JSON.stringify({ client_name: "x", redirect_uris: [CALLBACK] });
    const headers = { "content-type": "application/json" };
    const register = (bytes: number) =>
      app("/oauth/register", { method: "POST", headers, body: metadata.padEnd(bytes) });
    expect((await register(16 * 1024 + 1)).status).toBe(413);
    expect((await register(16 * 1024)).status).toBe(201);
    const token = (bytes: number) =>
      app("/oauth/token", { method: "POST", headers, body: "x=".padEnd(bytes, "x") });
    expect((await token(16 * 1024 + 1)).status).toBe(413);
    expect((await token(16 * 1024)).status).toBe(400);

    const openPage = async (length: number) => {
      const url = `${ORIGIN}/authorize?client_id=x&state=`;
      return new Browser(app).open(url.padEnd(length + `${ORIGIN}/authorize`.length, "s"));
    };
    const tooLong = await openPage(8193);
    expect(tooLong.isErrorPage).toBe(true);
    expect(tooLong.text).toContain("The request is too long.");
    expect((await openPage(8192)).text).not.toContain("too long");

    const browser = new Browser(app);
    const page = await browser.open(await (await Client.register(app)).authorizationURL());
    const submit = (bytes: number) => {
      const form = new URLSearchParams({ handle: page.handle, decision: "owner", token: TOKEN });
      form.append("scope", "sandbox:read");
      return browser.open(new URL(page.action, page.url).href, {
        method: "POST",
        headers: { "content-type": "application/x-www-form-urlencoded", origin: ORIGIN },
        body: `${form}&x=`.padEnd(bytes, "x"),
      });
    };
    expect((await submit(16 * 1024 + 1)).isErrorPage).toBe(true);
    // The server did not read the form, so the handle still works.
    expect((await submit(16 * 1024)).status).toBe(303);
  });
});
