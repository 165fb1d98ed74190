import { describe, expect, it, vi } from "vitest";
import type { MCPParts } from "../../../src/server/mcp-endpoint.ts";
import { appWith, call, LIST, ORIGIN, post, TOKEN, type Variables, recordEachLog } from "./support.ts";

const logs = recordEachLog();

const PUBLIC: Variables = { PUBLIC_ORIGIN: "https://public.example:8443" };

describe("the host guard", () => {
  const rows: [string, Variables, "allowed" | "refused"][] = [
    // Loopback, in any spelling.
    ["http://localhost:8787", {}, "allowed"],
    ["http://LOCALHOST:8787", {}, "allowed"],
    ["http://localhost.:8787", {}, "allowed"],
    ["http://app.localhost:8787", {}, "allowed"],
    ["http://127.0.0.1:8787", {}, "allowed"],
    ["http://127.1:8787", {}, "allowed"],
    ["http://127.255.0.9", {}, "allowed"],
    ["http://[::1]:8787", {}, "allowed"],
    ["http://localhost:8787", PUBLIC, "allowed"],
    // Plain HTTP with another host name may be DNS rebinding.
    ["http://rebound.example:8787", {}, "refused"],
    ["http://rebound.example:8787", PUBLIC, "refused"],
    ["http://localhost.rebound.example:8787", {}, "refused"],
    ["http://127.0.0.1.rebound.example:8787", {}, "refused"],
    ["http://notlocalhost:8787", {}, "refused"],
    ["http://0.0.0.0:8787", {}, "refused"],
    ["http://192.168.1.5:8787", {}, "refused"],
    ["http://[::ffff:127.0.0.1]:8787", {}, "refused"],
    ["http://128.0.0.1", {}, "refused"],
    // The landing page shows the host in shell commands.
    ["http://$(id).localhost:8787", {}, "refused"],
    ["http://a;id;b.localhost:8787", {}, "refused"],
    ["https://`id`.example", {}, "refused"],
    // Over HTTPS any host is allowed, unless PUBLIC_ORIGIN names one.
    ["https://anything.example", {}, "allowed"],
    ["https://public.example:8443", PUBLIC, "allowed"],
    ["https://PUBLIC.example.:8443", PUBLIC, "allowed"],
    ["https://public.example", PUBLIC, "refused"],
    ["https://other.example:8443", PUBLIC, "refused"],
    ["http://192.168.1.5:8787", { PUBLIC_ORIGIN: "http://192.168.1.5:8787" }, "allowed"],
  ];

  it.each(rows)("decides about the host of %s with %j: %s", async (origin, variables, verdict) => {
    const response = await appWith(variables)(`${origin}/health`);
    expect(response.status).toBe(verdict === "allowed" ? 200 : 403);
    if (verdict === "allowed") return;
    expect(await response.json()).toMatchObject({ error: "Forbidden" });
    expect(logs.entries()).toMatchObject([{ event: "refusal", status: 403, reason: "bad_host" }]);
  });

  it("uses the Host header and not the URL", async () => {
    const app = appWith();
    expect(
      (await app("http://localhost:8787/health", { headers: { host: "rebound.example:8787" } })).status,
    ).toBe(403);
    expect((await app("http://localhost:8787/health", { headers: { host: "localhost:8787" } })).status).toBe(
      200,
    );
    for (const host of ["", "a b", "localhost:8787, rebound.example", "localhost/x", "u@localhost"]) {
      expect((await app("http://localhost:8787/health", { headers: { host } })).status).toBe(403);
    }
  });
});

it("a request with an address and headers of more than 65,536 characters is refused", async () => {
  const respond = (count: number) =>
    appWith()(`/health?${"a".repeat(1000)}`, {
      headers: Array.from({ length: count }, (_, at) => [`x-${at}`, "x".repeat(16_000)] as const),
    });
  expect((await respond(4)).status).toBe(200);
  const response = await respond(5);
  expect(response.status).toBe(431);
  expect(await response.json()).toMatchObject({ message: expect.stringContaining("65536 characters") });
});

it("while many requests are open, others are refused, first those without a token, until their clients leave", async () => {
  const app = appWith({ LOCAL_OPEN_FILES: "32" });
  const clients = Array.from({ length: 4 }, () => new AbortController());
  /** Begins a request whose body does not end. */
  const begin = ({ signal }: AbortController) =>
    void app("/mcp", { ...post(""), body: new ReadableStream({ type: "bytes" }), signal }).catch(
      () => undefined,
    );
  const statuses = async () => [(await app("/health")).status, (await app("/mcp", post(LIST))).status];
  expect(await statuses()).toEqual([200, 200]);
  clients.slice(0, 2).forEach(begin);
  expect(await statuses()).toEqual([503, 200]);
  clients.slice(2, 3).forEach(begin);
  expect(await statuses()).toEqual([503, 200]);
  clients.slice(3).forEach(begin);
  expect(await statuses()).toEqual([503, 503]);
  for (const client of clients) client.abort();
  expect(await statuses()).toEqual([200, 200]);
});

describe("the origin guard", () => {
  const listed: Variables = {
    ALLOWED_ORIGINS: "https://app.example, http://dev.example:3000, vscode-webview://abc",
  };
  const rows: [string, string, Variables, "allowed" | "refused"][] = [
    [ORIGIN, "https://app.example", listed, "allowed"],
    [ORIGIN, "HTTPS://APP.example", listed, "allowed"],
    [ORIGIN, "https://app.example:443", listed, "allowed"],
    [ORIGIN, "https://app.example.", listed, "allowed"],
    [ORIGIN, "http://dev.example:3000", listed, "allowed"],
    [ORIGIN, "vscode-webview://abc", listed, "allowed"],
    [ORIGIN, "vscode-webview://abcd", listed, "refused"],
    [ORIGIN, "http://app.example", listed, "refused"],
    [ORIGIN, "https://app.example:444", listed, "refused"],
    [ORIGIN, "https://app.example.evil.example", listed, "refused"],
    [ORIGIN, "https://evil.example", listed, "refused"],
    [ORIGIN, "null", listed, "refused"],
    [ORIGIN, "", listed, "refused"],
    [ORIGIN, "*", listed, "refused"],
    [ORIGIN, "https://app.example, https://evil.example", listed, "refused"],
    [ORIGIN, "https://app.example/path", listed, "refused"],
    [ORIGIN, "https://evil@app.example", listed, "refused"],
    // A page on the user's own machine must not reach another server unless that server allows it.
    [ORIGIN, "http://localhost:6274", listed, "refused"],
    [ORIGIN, "http://localhost:6274", { ALLOWED_ORIGINS: "http://localhost:6274" }, "allowed"],
    ["http://127.0.0.1:8787", "http://localhost:6274", {}, "allowed"],
    ["http://localhost:8787", "http://127.0.0.1:6274", {}, "allowed"],
    ["http://localhost:8787", "http://[::1]:6274", {}, "allowed"],
    ["http://localhost:8787", "http://localhost.:6274", {}, "allowed"],
    ["http://localhost:8787", "http://localhost.evil.example", {}, "refused"],
    ["http://localhost:8787", "https://evil.example", {}, "refused"],
    ["http://localhost:8787", "null", {}, "refused"],
    ["https://public.example:8443", "https://public.example:8443", PUBLIC, "allowed"],
    ["https://public.example:8443", "https://public.example", PUBLIC, "refused"],
    // The server's own name is not sufficient, because a page after DNS rebinding has that name too.
    [ORIGIN, ORIGIN, {}, "refused"],
  ];

  it.each(rows)(
    "decides about a call to %s by a page of %j with %j: %s",
    async (server, origin, variables, verdict) => {
      const response = await appWith(variables)(`${server}/mcp`, { headers: { origin }, method: "DELETE" });
      expect(response.status).toBe(verdict === "allowed" ? 405 : 403);
      expect(response.headers.get("access-control-allow-origin")).toBe(verdict === "allowed" ? origin : null);
      expect(response.headers.get("vary")).toBe("Origin");
      expect(logs.entries()).toMatchObject(
        verdict === "refused" ? [{ status: 403, reason: "bad_origin" }] : [],
      );
    },
  );

  it("refuses a request before anything else handles it", async () => {
    const createMCPServer = vi.fn<MCPParts["createMCPServer"]>();
    const response = await appWith({}, { createMCPServer })(
      "/mcp",
      post(LIST, { origin: "https://evil.example" }),
    );
    expect(response.status).toBe(403);
    expect(createMCPServer).not.toHaveBeenCalled();
  });
});

describe("CORS", () => {
  const listed: Variables = { ALLOWED_ORIGINS: "https://app.example" };
  const page = { origin: "https://app.example" };

  it("allows a preflight without a token", async () => {
    const headers = {
      ...page,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization",
    };
    const response = await appWith(listed)("/mcp", { method: "OPTIONS", headers });
    expect(response.status).toBe(204);
    expect(await response.text()).toBe("");
    expect(response.headers.get("access-control-allow-origin")).toBe("https://app.example");
    expect(response.headers.get("access-control-allow-methods")).toContain("POST");
    expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    const allowed = response.headers.get("access-control-allow-headers")?.split(", ");
    for (const name of "authorization content-type accept mcp-protocol-version mcp-session-id".split(" ")) {
      expect(allowed).toContain(name);
    }
    for (const name of ["mcp-method", "mcp-name", "last-event-id"]) expect(allowed).toContain(name);
  });

  it("refuses a preflight from another origin", async () => {
    const headers = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const response = await appWith(listed)("/mcp", { method: "OPTIONS", headers });
    expect(response.status).toBe(403);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control-"))).toEqual([]);
  });

  it("lets the page read responses, refusals and their advice", async () => {
    const app = appWith(listed);
    const attempts = [
      [200, post(LIST, page)],
      [401, post(LIST, { ...page, authorization: "Bearer wrong" })],
    ] as const;
    for (const [status, init] of attempts) {
      const response = await app("/mcp", init);
      expect(response.status).toBe(status);
      expect(response.headers.get("access-control-allow-origin")).toBe("https://app.example");
      expect(response.headers.get("access-control-expose-headers")).toContain("www-authenticate");
    }
  });

  it("adds no headers for requests that no page sent", async () => {
    const response = await appWith(listed)("/mcp", post(LIST));
    expect(response.headers.has("access-control-allow-origin")).toBe(false);
  });
});

describe("routes", () => {
  it("GET /health needs no token and names the sign-in methods", async () => {
    const response = await appWith()("/health");
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      status: "healthy",
      platform: "cloudflare_sandboxes",
      auth_method: "bearer (no oauth: the KV namespace OAUTH_KV is not bound)",
    });
    expect((await appWith()("/health", { method: "HEAD" })).status).toBe(200);
  });

  it.each(["/mcp", "/", "/mcp?x=1"])("%s speaks MCP", async (path) => {
    expect((await appWith()(path, post(call("add", { a: 1, b: 2 })))).status).toBe(200);
  });

  it.each(["/mcp/", "/mcp/x", "/MCP", "//mcp", "/health/", "/sse", "/%6dcp"])("%s is 404", async (path) => {
    const response = await appWith()(new URL(`https://sandbox.example${path}`).href, post(LIST));
    expect(response.status).toBe(404);
    expect(await response.json()).toEqual({ error: "Not found" });
  });

  it("an address that does not exist has a page for browsers", async () => {
    const response = await appWith()("/no/such/page", { headers: { accept: "text/html,*/*;q=0.8" } });
    expect([response.status, response.headers.get("content-type")]).toEqual([
      404,
      "text/html; charset=utf-8",
    ]);
    const html = await response.text();
    expect(html).toContain("<h1>Page not found</h1>");
    expect(html).toContain('href="/"');
  });

  it.each([
    ["GET", "/mcp", "POST, OPTIONS"],
    ["DELETE", "/mcp", "POST, OPTIONS"],
    ["PUT", "/", "POST, OPTIONS"],
    ["POST", "/health", "GET, HEAD, OPTIONS"],
  ])("%s %s is 405 with Allow", async (method, path, allow) => {
    const response = await appWith()(path, { method, headers: { authorization: `Bearer ${TOKEN}` } });
    expect(response.status).toBe(405);
    expect(response.headers.get("allow")).toBe(allow);
    expect(await response.json()).toEqual({ error: "Method not allowed" });
  });

  it("every response has the headers that protect it from browsers and caches", async () => {
    const app = appWith();
    const responses = await Promise.all([
      app("/health"),
      app("/nothing"),
      app("/mcp"),
      app("/mcp", post(LIST, { authorization: "" })),
      app("/mcp", post(LIST)),
    ]);
    for (const { headers } of responses) {
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toMatch(/no-store|no-cache/);
      expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    }
  });
});
