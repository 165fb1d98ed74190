/** How a client finds the sign-in, and how the server reports that OAuth is off. */
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { call, LIST, ORIGIN, post, TOKEN, type Variables, recordEachLog } from "../server/support.ts";
import { approve, Browser, Client, oauthApp, register, signIn, statusOf, type Tokens } from "./support.ts";

const logs = recordEachLog();

const SCOPES = ["sandbox:read", "sandbox:write", "sandbox:exec", "tasks:run"];

describe("the metadata", () => {
  it.each([
    ["/.well-known/oauth-protected-resource", ORIGIN],
    ["/.well-known/oauth-protected-resource/mcp", `${ORIGIN}/mcp`],
  ])("%s describes %s (RFC 9728)", async (path, resource) => {
    const response = await oauthApp()(path);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toContain("application/json");
    expect(await response.json()).toEqual({
      resource,
      authorization_servers: [ORIGIN],
      scopes_supported: SCOPES,
      bearer_methods_supported: ["header"],
      resource_name: "sandbox-mcp",
    });
    expect((await oauthApp()(path, { method: "HEAD" })).status).toBe(200);
    expect((await oauthApp()(path, { method: "POST" })).status).toBe(405);
  });

  it("describe the authorization server (RFC 8414)", async () => {
    const response = await oauthApp()("/.well-known/oauth-authorization-server");
    expect(await response.json()).toMatchObject({
      issuer: ORIGIN,
      authorization_endpoint: `${ORIGIN}/authorize`,
      token_endpoint: `${ORIGIN}/oauth/token`,
      registration_endpoint: `${ORIGIN}/oauth/register`,
      revocation_endpoint: `${ORIGIN}/oauth/token`,
      protected_resources: [`${ORIGIN}/mcp`, ORIGIN, `${ORIGIN}/panel`],
      scopes_supported: SCOPES,
      response_types_supported: ["code"],
      grant_types_supported: ["authorization_code", "refresh_token"],
      code_challenge_methods_supported: ["S256"],
      authorization_response_iss_parameter_supported: true,
      client_id_metadata_document_supported: true,
      token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post", "none"],
    });
    const path = "/.well-known/oauth-authorization-server";
    expect((await oauthApp()(path, { method: "HEAD" })).status).toBe(200);
  });

  it("can be read only by a page that may call the server", async () => {
    const app = oauthApp({ ALLOWED_ORIGINS: "https://app.example" });
    for (const path of [
      "/.well-known/oauth-authorization-server",
      "/.well-known/oauth-protected-resource/mcp",
    ]) {
      const allowed = await app(path, { headers: { origin: "https://app.example" } });
      expect(allowed.headers.get("access-control-allow-origin")).toBe("https://app.example");
      expect((await app(path, { headers: { origin: "https://evil.example" } })).status).toBe(403);
    }
  });
});

describe("a challenge", () => {
  it.each([
    ["/mcp", `${ORIGIN}/.well-known/oauth-protected-resource/mcp`],
    ["/", `${ORIGIN}/.well-known/oauth-protected-resource`],
  ])("at %s names the metadata of that resource", async (path, metadata) => {
    const app = oauthApp();
    const bare = await app(path, post(LIST, { authorization: "" }));
    expect(bare.status).toBe(401);
    expect(bare.headers.get("www-authenticate")).toBe(
      `Bearer realm="sandbox-mcp", resource_metadata="${metadata}"`,
    );
    const refused = await app(path, post(LIST, { authorization: "Bearer wrong" }));
    expect(refused.headers.get("www-authenticate")).toContain(`error="invalid_token"`);
    expect(refused.headers.get("www-authenticate")).toContain(`resource_metadata="${metadata}"`);
  });
});

describe("tokens when OAuth is on", () => {
  /** A store that no test may use. */
  const untouched = new Proxy(env.OAUTH_KV, {
    get: (_, name) => {
      throw new Error(`OAUTH_KV.${String(name)} was used`);
    },
  });

  it("that are static or have another form are checked without the store, whether they are right or wrong", async () => {
    const app = oauthApp({ OAUTH_KV: untouched });
    expect((await app("/mcp", post(call("add", { a: 1, b: 2 })))).status).toBe(200);
    for (const token of ["wrong", `${TOKEN}x`, "a:b:c", `a:b:${"c".repeat(32)}`]) {
      expect(await statusOf(app, token)).toBe(401);
    }
    expect(logs.entries().every(({ reason }) => reason === "invalid_token")).toBe(true);
  });

  it("in the form of OAuth tokens get an error that asks for a retry, not a new sign-in, when the store fails", async () => {
    const app = oauthApp({ OAUTH_KV: untouched });
    const token = `owner:${"g".repeat(16)}:${"s".repeat(32)}`;
    const response = await app("/mcp", post(LIST, { authorization: `Bearer ${token}` }));
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("5");
    expect(response.headers.has("www-authenticate")).toBe(false);
    expect(logs.entries()).toMatchObject([
      { event: "error", where: "oauth" },
      { event: "refusal", status: 503, reason: "token_check_failed" },
    ]);
  });
});

describe("/health says", () => {
  const rows: [string, string, Variables, RegExp][] = [
    ["without the store", ORIGIN, { OAUTH_KV: undefined }, /^bearer \(no oauth: .*OAUTH_KV/],
    [
      "without PUBLIC_ORIGIN",
      ORIGIN,
      { PUBLIC_ORIGIN: undefined },
      /^bearer \(no oauth: PUBLIC_ORIGIN is not set\)$/,
    ],
    [
      "with a public origin without TLS",
      "http://192.168.1.5:8787",
      { PUBLIC_ORIGIN: "http://192.168.1.5:8787" },
      /^bearer \(no oauth: PUBLIC_ORIGIN is not an https origin\)$/,
    ],
    [
      "without a sign-in method",
      ORIGIN,
      { SERVER_AUTH_TOKEN: undefined },
      /^none \(no oauth: no sign-in method/,
    ],
    [
      "without a counter of guesses",
      ORIGIN,
      { Attempts: undefined },
      /^bearer \(no oauth: no sign-in method/,
    ],
    ["under a name below localhost", "http://app.localhost:8787", { PUBLIC_ORIGIN: undefined }, /no oauth/],
  ];

  it.each(rows)("that OAuth is off, and why: %s", async (_, origin, variables, expected) => {
    const app = oauthApp(variables);
    const health = await app(`${origin}/health`);
    expect((await health.json<{ auth_method: string }>()).auth_method).toMatch(expected);
    for (const path of ["/authorize", "/.well-known/oauth-authorization-server", "/authorize/github"]) {
      expect((await app(`${origin}${path}`)).status).toBe(404);
    }
    expect((await app(`${origin}/oauth/token`, { method: "POST" })).status).toBe(404);
    const refused = await app(`${origin}/mcp`, post(LIST, { authorization: "" }));
    expect(refused.headers.get("www-authenticate")).toBe('Bearer realm="sandbox-mcp"');
  });

  it("which sign-in methods are on if OAuth is on", async () => {
    const methods = [
      [oauthApp(), "bearer and oauth"],
      [
        oauthApp({
          SERVER_AUTH_TOKEN: undefined,
          GITHUB_CLIENT_ID: "id",
          GITHUB_CLIENT_SECRET: "secret",
          GITHUB_ALLOWED_USERS: "octocat",
        }),
        "oauth",
      ],
    ] as const;
    for (const [app, method] of methods) {
      expect(await (await app("/health")).json()).toMatchObject({ auth_method: method });
    }
  });
});

describe("the issuer", () => {
  it.each(["http://localhost:8787", "http://127.0.0.1:8787", "http://[::1]:8787"])(
    "is the request's own origin on loopback: %s",
    async (origin) => {
      const app = oauthApp({ PUBLIC_ORIGIN: undefined });
      const metadata = await app(`${origin}/.well-known/oauth-authorization-server`);
      // If metadata documents were supported here, a link could make the server fetch one from inside the user's network.
      expect(await metadata.json()).toMatchObject({
        issuer: origin,
        client_id_metadata_document_supported: false,
      });
      const client = await Client.register(app, {}, origin);
      const browser = new Browser(app);
      const page = await browser.open(await client.authorizationURL());
      // Browsers keep no `__Host-` cookie that came over plain HTTP.
      expect([...browser.cookies.keys()]).toEqual([expect.stringMatching(/^sandbox-mcp-consent-/)]);
      const done = await browser.submit(page, { decision: "owner", token: TOKEN });
      expect(done.location?.searchParams.get("iss")).toBe(origin);
      expect(browser.cookies.size).toBe(0);
      const code = done.location?.searchParams.get("code") ?? "";
      const tokens = await (await client.exchange(code)).json<Tokens>();
      expect(await statusOf(app, tokens.access_token, `${origin}/mcp`)).toBe(200);
    },
  );

  it("is PUBLIC_ORIGIN and not the request's host, for example behind a tunnel", async () => {
    const app = oauthApp();
    for (const origin of ["http://127.0.0.1:8787", "http://sandbox.example"]) {
      const metadata = await app(`${origin}/.well-known/oauth-authorization-server`, {
        headers: { host: new URL(origin).host },
      });
      expect(await metadata.json()).toMatchObject({ issuer: ORIGIN });
    }
    const { tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token, "http://127.0.0.1:8787/mcp")).toBe(200);
  });
});

describe("a client metadata document", () => {
  const id = "https://client.example/metadata.json";
  const document = {
    client_id: id,
    client_name: "Documented",
    redirect_uris: ["https://client.example/callback"],
    token_endpoint_auth_method: "none",
  };

  const KEYS = {
    token_endpoint_auth_method: "private_key_jwt",
    token_endpoint_auth_signing_alg: "RS256",
    jwks_uri: "https://client.example/keys",
  };

  /** A stub of the internet that serves only this document. */
  function serveDocument(at = id, more: object = {}): void {
    vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
      const url = input instanceof Request ? input.url : String(input);
      return url === at
        ? Response.json({ ...document, ...more, client_id: at })
        : new Response(null, { status: 404 });
    });
  }

  it("makes a client known by its domain, without registration", async () => {
    serveDocument();
    const app = oauthApp();
    const client = new Client(app, id);
    const page = await new Browser(app).open(await client.authorizationURL());
    expect(page.text).toContain("Published by <strong>client.example</strong>");
    const { code } = await approve(client);
    expect((await client.exchange(code)).status).toBe(200);
  });

  it.each([
    ["a link to a file in a sandbox", `${ORIGIN}/files/default-abcdefgh23456723.00abcdefghijk`],
    ["such a link with another port", `${ORIGIN}:8443/files/default-abcdefgh23456723.00abcdefghijk`],
    ["such a link with a final dot", `${ORIGIN}./files/default-abcdefgh23456723.00abcdefghijk`],
    ["a preview", "https://8000-default.preview.example/client.json"],
  ])(
    "spoofing: at the address of %s does not make a client known by the server's own name",
    async (_, at) => {
      serveDocument(at);
      const app = oauthApp({ PREVIEW_HOST: "preview.example" });
      const page = await new Browser(app).open(await new Client(app, at).authorizationURL());
      expect(page.isErrorPage).toBe(true);
      expect(page.text).toContain("This app is not registered");
    },
  );

  // As published between February and October 2026, without the fields that only a page shows.
  const published: [string, string, { redirect_uris: string[] } & Record<string, unknown>][] = [
    [
      "ChatGPT",
      "https://chatgpt.com/oauth/client.json",
      {
        redirect_uris: ["https://chatgpt.com/connector_platform_oauth_redirect"],
        grant_types: ["authorization_code", "refresh_token"],
        token_endpoint_auth_method: "private_key_jwt",
        token_endpoint_auth_methods_supported: ["none", "private_key_jwt"],
        token_endpoint_auth_signing_alg: "RS256",
        jwks_uri: "https://chatgpt.com/oauth/jwks.json",
      },
    ],
    [
      "Claude",
      "https://claude.ai/oauth/mcp-oauth-client-metadata",
      {
        redirect_uris: ["https://claude.ai/api/mcp/auth_callback"],
        grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
      },
    ],
    [
      "VS Code",
      "https://vscode.dev/oauth/client-metadata.json",
      {
        redirect_uris: ["https://vscode.dev/redirect", "http://127.0.0.1:33418/"],
        grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      },
    ],
    [
      "Claude Code",
      "https://claude.ai/oauth/claude-code-client-metadata",
      { redirect_uris: ["http://localhost/callback"] },
    ],
  ];

  it.each(published)("of %s lets the client sign in and refresh its tokens", async (_, at, fields) => {
    serveDocument(at, fields);
    const client = new Client(oauthApp(), at);
    const redirect = { redirect_uri: fields.redirect_uris[0] };
    const { code } = await approve(client, redirect);
    const tokens = await (await client.exchange(code, redirect)).json<Tokens>();
    expect((await client.refresh(tokens.refresh_token)).status).toBe(200);
  });

  it("of a client that can authenticate only with keys is refused before the person approves it", async () => {
    serveDocument(id, KEYS);
    const app = oauthApp();
    const page = await new Browser(app).open(await new Client(app, id).authorizationURL());
    expect(page.isErrorPage).toBe(true);
    expect(page.text).toContain("authenticates only by keys (private_key_jwt)");
  });

  it("makes the server fetch nothing for a request for tokens with an assertion", async () => {
    const fetched = vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
      const url = input instanceof Request ? input.url : String(input);
      return Response.json(url === id ? { ...document, ...KEYS } : { keys: [] });
    });
    const encode = (part: object) => btoa(JSON.stringify(part)).replaceAll("=", "");
    const claims = { iss: id, sub: id, aud: ORIGIN, exp: Math.floor(Date.now() / 1000) + 60, jti: "first" };
    const body = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: "a:b:c",
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      client_assertion: `${encode({ alg: "RS256" })}.${encode(claims)}.AAAA`,
    });
    const refused = await oauthApp()("/oauth/token", { method: "POST", body });
    expect([refused.status, await refused.json()]).toMatchObject([401, { error: "invalid_client" }]);
    expect(fetched).not.toHaveBeenCalled();
  });

  it("that the server cannot fetch is reported to the person", async () => {
    serveDocument();
    const app = oauthApp();
    const page = await new Browser(app).open(
      await new Client(app, "https://client.example/other.json").authorizationURL(),
    );
    expect(page.status).toBe(400);
    expect(page.text).toContain("cannot be verified");
  });

  it("that cannot be fetched for a moment does not end the sign-in", async () => {
    serveDocument();
    const client = new Client(oauthApp(), id);
    const { code } = await approve(client);
    const tokens = await (await client.exchange(code)).json<Tokens>();
    for (const status of [404, 502]) {
      vi.spyOn(globalThis, "fetch").mockResolvedValue(new Response(null, { status }));
      const response = await client.refresh(tokens.refresh_token);
      expect([response.status, await response.json()]).toMatchObject([
        503,
        { error: "temporarily_unavailable" },
      ]);
      expect(response.headers.get("retry-after")).toBe("30");
    }
    serveDocument();
    expect((await client.refresh(tokens.refresh_token)).status).toBe(200);
  });

  it("can be switched off", async () => {
    const fetch = vi.spyOn(globalThis, "fetch");
    const app = oauthApp({ OAUTH_CLIENT_METADATA: "off" });
    const metadata = await app("/.well-known/oauth-authorization-server");
    expect(await metadata.json()).toMatchObject({ client_id_metadata_document_supported: false });
    const page = await new Browser(app).open(await new Client(app, id).authorizationURL());
    expect(page.status).toBe(400);
    expect(fetch).not.toHaveBeenCalled();
  });
});

describe("a registration", () => {
  it("creates a client for 90 days", async () => {
    const app = oauthApp();
    const response = await register(app, { client_name: "Dynamic" });
    const { client_id } = await response.json<{ client_id: string }>();
    const { keys } = await env.OAUTH_KV.list({ prefix: `client:${client_id}` });
    expect(keys[0]?.expiration).toBeGreaterThan(Date.now() / 1000 + 89 * 86_400);
  });
});

describe("an address that registers too often", () => {
  it("is refused with 429, and can still read the metadata", async () => {
    const remaining = new Map<string, number>();
    const limit = async ({ key }: { key: string }) => {
      remaining.set(key, (remaining.get(key) ?? 2) - 1);
      return { success: (remaining.get(key) ?? 0) >= 0 };
    };
    const app = oauthApp({ ADDRESS_LIMITER: { limit } });
    const statuses = [];
    for (let request = 0; request < 3; request++)
      statuses.push((await register(app, { client_name: "x" })).status);
    expect(statuses).toEqual([201, 201, 429]);
    expect((await app("/.well-known/oauth-authorization-server")).status).toBe(200);
    expect([...remaining.keys()]).toEqual(["local"]);
  });
});
