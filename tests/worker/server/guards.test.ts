import { describe, expect, it, vi } from "vitest";
import type { ProtectedApp } from "../../../src/server/app.ts";
import { appWith, call, LIST, ORIGIN, post, TOKEN, type Variables, recordEachLog } from "./support.ts";

const logs = recordEachLog();

const PUBLIC: Variables = { PUBLIC_ORIGIN: "https://public.example:8443" };

describe("the host guard", () => {
  const rows: [string, Variables, "in" | "out"][] = [
    // Loopback, however it is spelt.
    ["http://localhost:8787", {}, "in"],
    ["http://LOCALHOST:8787", {}, "in"],
    ["http://localhost.:8787", {}, "in"],
    ["http://app.localhost:8787", {}, "in"],
    ["http://127.0.0.1:8787", {}, "in"],
    ["http://127.1:8787", {}, "in"],
    ["http://127.255.0.9", {}, "in"],
    ["http://[::1]:8787", {}, "in"],
    ["http://localhost:8787", PUBLIC, "in"],
    // Plain HTTP under a foreign name is what rebinding looks like.
    ["http://rebound.example:8787", {}, "out"],
    ["http://rebound.example:8787", PUBLIC, "out"],
    ["http://localhost.rebound.example:8787", {}, "out"],
    ["http://127.0.0.1.rebound.example:8787", {}, "out"],
    ["http://notlocalhost:8787", {}, "out"],
    ["http://0.0.0.0:8787", {}, "out"],
    ["http://192.168.1.5:8787", {}, "out"],
    ["http://[::ffff:127.0.0.1]:8787", {}, "out"],
    ["http://128.0.0.1", {}, "out"],
    // Over HTTPS any host, unless PUBLIC_ORIGIN says which.
    ["https://anything.example", {}, "in"],
    ["https://public.example:8443", PUBLIC, "in"],
    ["https://PUBLIC.example.:8443", PUBLIC, "in"],
    ["https://public.example", PUBLIC, "out"],
    ["https://other.example:8443", PUBLIC, "out"],
    ["http://192.168.1.5:8787", { PUBLIC_ORIGIN: "http://192.168.1.5:8787" }, "in"],
  ];

  it.each(rows)("%s with %j: %s", async (origin, variables, verdict) => {
    const response = await appWith(variables)(`${origin}/health`);
    expect(response.status).toBe(verdict === "in" ? 200 : 403);
    if (verdict === "in") return;
    expect(await response.json()).toMatchObject({ error: "Forbidden" });
    expect(logs.entries()).toMatchObject([{ event: "refusal", status: 403, reason: "bad_host" }]);
  });

  it("believes the Host header rather than the URL", async () => {
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

describe("the origin guard", () => {
  const listed: Variables = {
    ALLOWED_ORIGINS: "https://app.example, http://dev.example:3000, vscode-webview://abc",
  };
  const rows: [string, string, Variables, "in" | "out"][] = [
    [ORIGIN, "https://app.example", listed, "in"],
    [ORIGIN, "HTTPS://APP.example", listed, "in"],
    [ORIGIN, "https://app.example:443", listed, "in"],
    [ORIGIN, "https://app.example.", listed, "in"],
    [ORIGIN, "http://dev.example:3000", listed, "in"],
    [ORIGIN, "vscode-webview://abc", listed, "in"],
    [ORIGIN, "vscode-webview://abcd", listed, "out"],
    [ORIGIN, "http://app.example", listed, "out"],
    [ORIGIN, "https://app.example:444", listed, "out"],
    [ORIGIN, "https://app.example.evil.example", listed, "out"],
    [ORIGIN, "https://evil.example", listed, "out"],
    [ORIGIN, "null", listed, "out"],
    [ORIGIN, "", listed, "out"],
    [ORIGIN, "*", listed, "out"],
    [ORIGIN, "https://app.example, https://evil.example", listed, "out"],
    [ORIGIN, "https://app.example/path", listed, "out"],
    [ORIGIN, "https://evil@app.example", listed, "out"],
    // A page on the user's own machine must not reach a server elsewhere unless that server says so.
    [ORIGIN, "http://localhost:6274", listed, "out"],
    [ORIGIN, "http://localhost:6274", { ALLOWED_ORIGINS: "http://localhost:6274" }, "in"],
    ["http://127.0.0.1:8787", "http://localhost:6274", {}, "in"],
    ["http://localhost:8787", "http://127.0.0.1:6274", {}, "in"],
    ["http://localhost:8787", "http://[::1]:6274", {}, "in"],
    ["http://localhost:8787", "http://localhost.:6274", {}, "in"],
    ["http://localhost:8787", "http://localhost.evil.example", {}, "out"],
    ["http://localhost:8787", "https://evil.example", {}, "out"],
    ["http://localhost:8787", "null", {}, "out"],
    ["https://public.example:8443", "https://public.example:8443", PUBLIC, "in"],
    ["https://public.example:8443", "https://public.example", PUBLIC, "out"],
    // Its own name does not vouch for a request: a rebound page has that name too.
    [ORIGIN, ORIGIN, {}, "out"],
  ];

  it.each(rows)("%s called by a page of %j with %j: %s", async (server, origin, variables, verdict) => {
    const response = await appWith(variables)(`${server}/mcp`, { headers: { origin }, method: "DELETE" });
    expect(response.status).toBe(verdict === "in" ? 405 : 403);
    expect(response.headers.get("access-control-allow-origin")).toBe(verdict === "in" ? origin : null);
    expect(response.headers.get("vary")).toBe("Origin");
    expect(logs.entries()).toMatchObject(verdict === "out" ? [{ status: 403, reason: "bad_origin" }] : []);
  });

  it("refuses before anything runs", async () => {
    const createMCPServer = vi.fn<ProtectedApp["createMCPServer"]>();
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

  it("answers a preflight without a token", async () => {
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
    for (const name of [
      "authorization",
      "content-type",
      "accept",
      "mcp-protocol-version",
      "mcp-session-id",
    ]) {
      expect(allowed).toContain(name);
    }
    for (const name of ["mcp-method", "mcp-name", "last-event-id"]) expect(allowed).toContain(name);
  });

  it("refuses a preflight from elsewhere", async () => {
    const headers = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const response = await appWith(listed)("/mcp", { method: "OPTIONS", headers });
    expect(response.status).toBe(403);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control-"))).toEqual([]);
  });

  it("lets the page read answers and refusals, and what to do about them", async () => {
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

  it("is not for requests that come from no page", async () => {
    const response = await appWith(listed)("/mcp", post(LIST));
    expect(response.headers.has("access-control-allow-origin")).toBe(false);
  });
});

describe("routes", () => {
  it("GET /health needs no token and says how to get in", async () => {
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

  it("shows browsers a page for an address that does not exist", async () => {
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

  it("gives every answer the headers that keep browsers and caches from misusing it", async () => {
    const app = appWith();
    const answers = await Promise.all([
      app("/health"),
      app("/nothing"),
      app("/mcp"),
      app("/mcp", post(LIST, { authorization: "" })),
      app("/mcp", post(LIST)),
    ]);
    for (const { headers } of answers) {
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toMatch(/no-store|no-cache/);
      expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    }
  });
});
