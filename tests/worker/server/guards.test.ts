import { describe, expect, it, vi } from "vitest";
import type { MCPParts } from "../../../src/server/mcp-endpoint.ts";
import { appWith, call, LIST, ORIGIN, post, TOKEN, type Variables, recordEachLog } from "./support.ts";

const logs = recordEachLog();

const PUBLIC: Variables = { PUBLIC_ORIGIN: "https://public.example:8443" };

describe("the host guard", () => {
  const rows: [string, Variables, "allowed" | "refused"][] = [
    // Loopback, in any spelling.
    ["http://localhost:8787", {}, "allowed"],
    ["http://app.localhost:8787", {}, "allowed"],
    ["http://127.0.0.1:8787", {}, "allowed"],
    ["http://127.1:8787", {}, "allowed"],
    ["http://[::1]:8787", {}, "allowed"],
    ["http://localhost:8787", PUBLIC, "allowed"],
    // Plain HTTP with another host name may be DNS rebinding.
    ["http://rebound.example:8787", {}, "refused"],
    ["http://127.0.0.1.rebound.example:8787", {}, "refused"],
    ["http://0.0.0.0:8787", {}, "refused"],
    ["http://[::ffff:127.0.0.1]:8787", {}, "refused"],
    // The landing page shows the host in shell commands.
    ["http://$(id).localhost:8787", {}, "refused"],
    ["https://`id`.example", {}, "refused"],
    // Over HTTPS any host is allowed, unless PUBLIC_ORIGIN names one.
    ["https://anything.example", {}, "allowed"],
    ["https://public.example:8443", PUBLIC, "allowed"],
    ["https://PUBLIC.example.:8443", PUBLIC, "allowed"],
    ["https://public.example", PUBLIC, "refused"],
    ["http://192.168.1.5:8787", { PUBLIC_ORIGIN: "http://192.168.1.5:8787" }, "allowed"],
  ];

  it.each(rows)("decides about the host of %s with %j: %s", async (origin, variables, verdict) => {
    const response = await appWith(variables)(`${origin}/health`);
    expect(response.status).toBe(verdict === "allowed" ? 200 : 403);
    if (verdict === "allowed") return;
    expect(await response.json()).toMatchObject({ error: "Forbidden" });
    expect(logs.entries()).toMatchObject([{ event: "refusal", status: 403, reason: "bad_host" }]);
  });

  it.each([
    ["localhost:8787", 200],
    ["rebound.example:8787", 403],
    ["", 403],
    ["localhost:8787, rebound.example", 403],
  ])("uses the Host header and not the URL: %j gets %i", async (host, status) => {
    const response = await appWith()("http://localhost:8787/health", { headers: { host } });
    expect(response.status).toBe(status);
  });
});

it.each(["/health", "https://8080-name-token.previews.example/"])(
  "a request with an address and headers of more than 65,536 characters is refused: %s",
  async (address) => {
    const app = appWith({ PUBLIC_ORIGIN: ORIGIN, PREVIEW_HOST: "previews.example" });
    const respond = (count: number) => {
      const headers = Array.from({ length: count }, (_, at) => [`x-${at}`, "x".repeat(16_000)] as const);
      return app(`${address}?${"a".repeat(1000)}`, { headers });
    };
    expect((await respond(4)).status).not.toBe(431);
    const response = await respond(5);
    expect(response.status).toBe(431);
    expect(await response.json()).toMatchObject({ message: expect.stringContaining("65536 characters") });
    expect(logs.entries().at(-1)).toMatchObject({ event: "refusal", status: 431, reason: "large_head" });
  },
);

it("while many requests are open, others are refused, first those without a token, until their clients leave", async () => {
  const app = appWith({ LOCAL_OPEN_FILES: "32" });
  const client = new AbortController();
  /** Begins requests whose bodies do not end. */
  const begin = (count: number) => {
    for (let number = 0; number < count; number++) {
      const body = new ReadableStream({ type: "bytes" });
      void app("/mcp", { ...post(""), body, signal: client.signal }).catch(() => undefined);
    }
  };
  const statuses = async () => [(await app("/health")).status, (await app("/mcp", post(LIST))).status];
  expect(await statuses()).toEqual([200, 200]);
  begin(2);
  expect(await statuses()).toEqual([503, 200]);
  begin(2);
  expect(await statuses()).toEqual([503, 503]);
  client.abort();
  expect(await statuses()).toEqual([200, 200]);
});

describe("the origin guard", () => {
  const listed: Variables = {
    ALLOWED_ORIGINS: "https://app.example, vscode-webview://abc",
  };
  const rows: [string, string, Variables, "allowed" | "refused"][] = [
    [ORIGIN, "https://app.example", listed, "allowed"],
    [ORIGIN, "https://app.example:443", listed, "allowed"],
    [ORIGIN, "https://app.example.", listed, "allowed"],
    [ORIGIN, "vscode-webview://abc", listed, "allowed"],
    [ORIGIN, "vscode-webview://abcd", listed, "refused"],
    [ORIGIN, "http://app.example", listed, "refused"],
    [ORIGIN, "https://app.example.evil.example", listed, "refused"],
    [ORIGIN, "null", listed, "refused"],
    [ORIGIN, "https://app.example, https://evil.example", listed, "refused"],
    [ORIGIN, "https://app.example/path", listed, "refused"],
    [ORIGIN, "https://evil@app.example", listed, "refused"],
    // A page on the user's own machine must not reach another server unless that server allows it.
    [ORIGIN, "http://localhost:6274", listed, "refused"],
    [ORIGIN, "http://localhost:6274", { ALLOWED_ORIGINS: "http://localhost:6274" }, "allowed"],
    ["http://127.0.0.1:8787", "http://localhost:6274", {}, "allowed"],
    ["http://localhost:8787", "http://[::1]:6274", {}, "allowed"],
    ["http://localhost:8787", "http://localhost.evil.example", {}, "refused"],
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
    const app = appWith({}, { createMCPServer });
    expect((await app("/mcp", post(LIST, { origin: "https://evil.example" }))).status).toBe(403);
    expect(createMCPServer).not.toHaveBeenCalled();
  });
});

describe("CORS", () => {
  const app = appWith({ ALLOWED_ORIGINS: "https://app.example" });
  const page = { origin: "https://app.example" };
  const corsOf = ({ headers }: Response) =>
    [...headers.keys()].filter((name) => name.startsWith("access-control-"));

  it("allows a preflight without a token", async () => {
    const headers = { ...page, "access-control-request-method": "POST" };
    const response = await app("/mcp", { method: "OPTIONS", headers });
    expect([response.status, await response.text()]).toEqual([204, ""]);
    expect(response.headers.get("access-control-allow-origin")).toBe(page.origin);
    expect(response.headers.get("access-control-allow-methods")).toContain("POST");
    expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    const allowed = response.headers.get("access-control-allow-headers")?.split(", ");
    const needed =
      "authorization content-type accept mcp-protocol-version mcp-session-id mcp-method mcp-name";
    expect(allowed).toEqual(expect.arrayContaining([...needed.split(" "), "last-event-id"]));
  });

  it("refuses a preflight from another origin, and adds no headers for requests that no page sent", async () => {
    const headers = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const refused = await app("/mcp", { method: "OPTIONS", headers });
    expect([refused.status, corsOf(refused)]).toEqual([403, []]);
    expect(corsOf(await app("/mcp", post(LIST)))).toEqual([]);
  });

  it.each([
    [200, {}],
    [401, { authorization: "Bearer wrong" }],
  ])("lets the page read responses, refusals and their advice: %i", async (status, more) => {
    const response = await app("/mcp", post(LIST, { ...page, ...more }));
    expect(response.status).toBe(status);
    expect(response.headers.get("access-control-allow-origin")).toBe(page.origin);
    expect(response.headers.get("access-control-expose-headers")).toContain("www-authenticate");
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

  it.each(["/mcp/", "/MCP", "//mcp", "/sse", "/%6dcp"])("%s is 404", async (path) => {
    const response = await appWith()(new URL(`https://sandbox.example${path}`).href, post(LIST));
    expect(response.status).toBe(404);
    expect(await response.json()).toEqual({ error: "Not found" });
  });

  it("an address that does not exist has a page for browsers", async () => {
    const response = await appWith()("/no/such/page", { headers: { accept: "text/html,*/*;q=0.8" } });
    expect(response.status).toBe(404);
    expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(await response.text()).toMatch(/<h1>Page not found<\/h1>.*href="\/"/s);
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
