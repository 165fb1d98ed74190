/** The endpoint's page for browsers in a real Chromium. */
import { describe, expect, it } from "vitest";
import { violations } from "../clients/axe.ts";
import { launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { type OAuthServer, OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";

const server = await startOAuthServer();
const chromium = endLater(await launchChromium());

const CLIENTS = ["Claude Code", "Claude Desktop", "Cursor", "VS Code", "MCP Inspector"];

it.each(["/", "/mcp"])(
  "the page at %s explains the server and how to connect each client, without a token",
  async (path) => {
    const page = await chromium.newPage();
    const pageErrors: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error") pageErrors.push(message.text());
    });
    const response = await page.goto(`${server.origin}${path}`);
    expect(response?.status()).toBe(200);
    const text = await page.locator("main").innerText();
    for (const client of CLIENTS) expect(text).toContain(client);
    const blocks = await page.locator("pre").allInnerTexts();
    expect(blocks.length).toBeGreaterThan(0);
    for (const block of blocks) expect(block).toContain(`${server.origin}/mcp`);
    for (const phrase of [
      "npm run token",
      "?sandbox=name",
      "1 to 128 characters (A-Z, a-z, 0-9, -, _, ., :, @)",
      "sign in",
    ])
      expect(text).toContain(phrase);
    expect(await page.content()).not.toContain(OWNER_TOKEN);
    expect(response?.headers()["content-security-policy"]).toMatch(
      /^default-src 'none'; style-src 'sha256-[^']+';/,
    );
    expect(response?.headers().vary).toContain("Accept");
    expect(pageErrors).toEqual([]);
    await page.close();
  },
);

const text = async ({ origin }: OAuthServer) =>
  (await fetch(origin, { headers: { accept: "text/html" } })).text();

const pageAt = async (path: string) =>
  (await fetch(server.origin + path, { headers: { accept: "text/html" } })).text();

it("the page has an icon", async () => {
  const response = await fetch(`${server.origin}/favicon.ico`);
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "image/png"]);
  expect(new TextDecoder("latin1").decode(await response.arrayBuffer())).toMatch(/^.PNG/);
});

it("only a local server's page says that it is local, and names the command that prints its token", async () => {
  const health = async ({ origin }: OAuthServer) => (await fetch(`${origin}/health`)).json();
  expect(await health(server)).toMatchObject({ platform: "local" });
  const packaged = await startOAuthServer({ LOCAL_TOKEN_COMMAND: "sandbox-mcp token show" });
  expect(await text(packaged)).toContain("<code>sandbox-mcp token show</code>");
  const deployed = await startOAuthServer({ LOCAL_TOKEN_COMMAND: "" });
  expect(await text(deployed)).toMatch(/secret SERVER_AUTH_TOKEN/);
  expect(await text(deployed)).not.toMatch(/npm run token|token show/);
  expect(await health(deployed)).toMatchObject({ platform: "cloudflare_sandboxes" });
});

it("the page mentions tasks only if the server runs them", async () => {
  expect(await pageAt("/")).not.toMatch(/tasks/);
  const other = await startOAuthServer({ ANTHROPIC_API_KEY: "any" });
  const response = await fetch(other.origin, { headers: { accept: "text/html" } });
  expect(await response.text()).toContain("whole tasks");
});

it("the page shows how to connect to the address that was opened, and reports errors in that address", async () => {
  const address = `${server.origin}/mcp?sandbox=foo`;
  const page = await pageAt("/mcp?sandbox=foo&x=$(id)");
  // The first form is for a shell, the second for a JSON file.
  expect(page).toContain(`--transport http sandbox &#34;${address}&#34; --header`);
  expect(page).toContain(`&#34;url&#34;: &#34;${address}&#34;`);
  expect(page).not.toContain("$(id)");
  expect(page.split(`${server.origin}/mcp`)).toHaveLength(page.split(address).length);
  const errorPage = await pageAt("/mcp?sandbox=-NAME");
  expect(errorPage).toContain("sandbox must be 1 to 128 characters (A-Z, a-z, 0-9, -, _, ., :, @)");
  expect(errorPage).toMatch(/leave that part out[^]*Connect a client:<\/p>\n<pre>/);
  expect(errorPage).not.toContain("/mcp?");
});

describe.each(["light", "dark"] as const)("in %s mode", (colorScheme) => {
  it.each([
    ["desktop", { width: 1366, height: 768 }],
    ["phone", { width: 375, height: 812 }],
  ] as const)("the page fits a %s, and is accessible", async (_name, viewport) => {
    const page = await chromium.newPage({ viewport, colorScheme });
    await page.goto(`${server.origin}/`);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(viewport.width);
    expect(await violations(page)).toEqual([]);
    await page.close();
  });
});

it.each(["text/event-stream", "application/json, text/event-stream", "application/json", "*/*"])(
  "a client that accepts %s sees no page at the endpoint, and at the root only if it accepts anything",
  async (accept) => {
    for (const path of ["/", "/mcp"]) {
      const response = await fetch(`${server.origin}${path}`, { headers: { accept } });
      const head = await fetch(`${server.origin}${path}`, { method: "HEAD", headers: { accept } });
      const seesPage = path === "/" && accept === "*/*";
      expect([response.status, head.status]).toEqual(seesPage ? [200, 200] : [405, 405]);
      expect(await response.text()).toContain(
        seesPage ? "Connect a client" : JSON.stringify({ error: "Method not allowed" }),
      );
    }
  },
);

it("an MCP message gets an MCP response, even if its Accept header includes text/html", async () => {
  const response = await fetch(`${server.origin}/mcp`, {
    method: "POST",
    headers: {
      accept: "application/json, text/event-stream, text/html",
      "content-type": "application/json",
      authorization: `Bearer ${OWNER_TOKEN}`,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
  });
  expect(await response.text()).toContain('"tools"');
});
