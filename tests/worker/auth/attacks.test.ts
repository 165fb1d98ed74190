/** Attacks of OAuth 2.1's security considerations on codes, redirects and clients. docs/security.md names these tests. */
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ORIGIN, recordLogs, TOKEN } from "../server/support.ts";
import {
  approve,
  Browser,
  CALLBACK,
  challengeOf,
  Client,
  errorOf,
  oauthApp,
  register,
  type Tokens,
  statusOf,
} from "./support.ts";

let logs: ReturnType<typeof recordLogs>;
beforeEach(() => void (logs = recordLogs()));
afterEach(() => vi.restoreAllMocks());

const app = oauthApp();

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
      expect(page.toldHere).toBe(true);
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
    expect(page.toldHere).toBe(true);
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
      expect(page.toldHere).toBe(true);
      expect(page.text).toContain('href="https://evil.example/?error=');
    }
  });

  it("no other parameter makes one of it", async () => {
    for (const name of ["next", "return_to", "url", "continue"]) {
      const page = await new Browser(app).open(`${ORIGIN}/authorize?${name}=https://evil.example/`);
      expect(page.toldHere).toBe(true);
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
      expect(page.toldHere).toBe(true);
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
    expect((await new Browser(app).open(await nobody.authorizationURL())).toldHere).toBe(true);
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
});
