/** Which host names lead to previews, and which requests pages of previews may send to the server. */
import { env } from "cloudflare:workers";
import * as fc from "../../setup/chance.ts";
import { beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { type Env, parseConfig } from "../../../src/shared/config.ts";
import { linkKeys } from "../../../src/actors/link-keys.ts";
import { ProcessLimiter } from "../../../src/shared/limits.ts";
import { makeToken, readLabel, writeLabel } from "../../../src/shared/preview-address.ts";
import { redirectProblem } from "../../../src/auth/redirects.ts";
import { actorName } from "../../../src/shared/names.ts";
import { mcpHeaders } from "../../setup/mcp-client.ts";
import { owner } from "../support.ts";
import { PREVIEW_HOST, visit } from "./support.ts";

const config = parseConfig({ ...(env as Env), PREVIEW_HOST });
const keysOf = (bindings: Env) => linkKeys({ config: parseConfig(bindings), env: bindings });
let keys: CryptoKey[];
let label: string;
let address: { port: number; actor: string; token: string };

beforeAll(async () => {
  keys = await linkKeys({ config, env: env as Env });
  const actor = await actorName("addressed", "owner");
  address = { port: 8000, actor, token: (await makeToken(8000, actor, keys)) ?? "" };
  label = writeLabel(address);
});

describe("the label of a preview", () => {
  it("is parsed back into its values", async () => {
    expect(await readLabel(label, keys)).toEqual(address);
  });

  it("with any character changed is refused", async () => {
    const characters = "abcdefghijklmnopqrstuvwxyz0123456789-";
    await fc.assert(
      fc.asyncProperty(fc.nat(label.length - 1), fc.constantFrom(...characters), async (at, character) => {
        fc.pre(label[at] !== character);
        const changed = label.slice(0, at) + character + label.slice(at + 1);
        expect(await readLabel(changed, keys)).toBeUndefined();
      }),
    );
  });

  it("with a field of another label is refused", async () => {
    const actor = await actorName("other", "owner");
    const other = { port: 8001, actor, token: (await makeToken(8001, actor, keys)) ?? "" };
    for (const field of ["port", "actor", "token"] as const)
      expect(await readLabel(writeLabel({ ...address, [field]: other[field] }), keys)).toBeUndefined();
  });

  it("of another server, or of an earlier key, is refused", async () => {
    for (const LINK_KEY of ["another key of the server's".replaceAll(" ", "-"), "0123456789abcdef-key"])
      expect(await readLabel(label, await keysOf({ ...(env as Env), LINK_KEY }))).toBeUndefined();
  });

  it("made with the owner's previous token is valid while the server accepts that token, and a new label needs only the new token", async () => {
    const variables = { ...(env as Env), LINK_KEY: undefined };
    const token = (await makeToken(8000, address.actor, await keysOf(variables))) ?? "";
    const before = writeLabel({ ...address, token });
    const rotated = { ...variables, SERVER_AUTH_TOKEN: "the-next-token-of-the-owner" };
    const during = await keysOf({ ...rotated, SERVER_AUTH_TOKEN_PREVIOUS: variables.SERVER_AUTH_TOKEN });
    expect(await readLabel(before, during)).toEqual({ ...address, token });
    expect(await readLabel(before, await keysOf(rotated))).toBeUndefined();
    const next = (await makeToken(8000, address.actor, during)) ?? "";
    expect(await readLabel(writeLabel({ ...address, token: next }), await keysOf(rotated))).toBeDefined();
  });

  it("has at most 63 characters and a token of at least 98 bits, for every name and port", async () => {
    const names = fc.stringMatching(/^[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,126}[A-Za-z0-9])?$/);
    await fc.assert(
      fc.asyncProperty(names, fc.integer({ min: 1024, max: 65_535 }), async (name, port) => {
        const actor = await actorName(name, "owner");
        const token = (await makeToken(port, actor, keys)) ?? "";
        const written = writeLabel({ port, actor, token });
        expect(written.length).toBeLessThanOrEqual(63);
        expect(token.length).toBeGreaterThanOrEqual(/^[a-z0-9-]{1,14}$/.test(name) ? 25 : 19);
        expect(await readLabel(written, keys)).toEqual({ port, actor, token });
      }),
    );
  });

  it.each([
    ["default", "default-jqics2l64nmhcxj2"],
    ["a.b_c", "lohzgsszinixxwue--jqics2l64nmhcxj2"],
    ["x".repeat(63), "ourawrzbqj4omvxs--jqics2l64nmhcxj2"],
  ])("names the sandbox %s as earlier versions did", async (name, actor) => {
    expect(await actorName(name, "owner")).toBe(actor);
  });

  it("has a different token each time", async () => {
    const tokens = await Promise.all(Array.from({ length: 100 }, () => makeToken(8000, address.actor, keys)));
    expect(new Set(tokens).size).toBe(100);
  });
});

describe("a host name", () => {
  const zeros = "0".repeat(25);
  const names: [string, (label: string) => string][] = [
    ["another token", (given) => `${given.slice(0, -25)}${zeros}`],
    ["no token", (given) => given.slice(0, -26)],
    ["a subdomain", (given) => `a.${given}`],
    ["another digit before the port", (given) => `1${given}`],
    ["capitals", (given) => given.toUpperCase()],
    ["another dash", (given) => `${given}-`],
    ["another label", () => "www"],
    ["the server's name", () => "mcp"],
    ["an underscore", (given) => given.replace("-", "_")],
    ["nothing changed", (given) => given],
    ["percent signs", (given) => `%41${given}`],
  ];

  it.each(names)("leads to a sandbox only if the label is valid: %s", async (what, make) => {
    const getByName = vi.fn<() => unknown>(() => ({ fetch: async () => new Response("shown") }));
    const variables = { Sandbox: { getByName } as unknown as Env["Sandbox"] };
    const url = `https://${make(label)}.${PREVIEW_HOST}/mcp`;
    const response = await visit(url, { method: "POST", body: "{}" }, variables);
    // Host names are not case-sensitive.
    const isOurs = what === "capitals" || what === "nothing changed";
    expect(response.status).toBe(isOurs ? 200 : 404);
    expect(getByName).toHaveBeenCalledTimes(isOurs ? 1 : 0);
    expect(response.headers.get("www-authenticate")).toBeNull();
  });
});

describe("a page of a preview", () => {
  const origins = () => [
    `https://${label}.${PREVIEW_HOST}`,
    `https://www.${PREVIEW_HOST}`,
    `http://${label}.localhost:8787`,
    `http://a.${label}.localhost:8787`,
    // A final dot makes a name absolute: it is the same host.
    `https://${label}.${PREVIEW_HOST}.`,
    `http://${label}.localhost.:8787`,
  ];
  const LIST = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });

  it("cannot call the server, even with a token or if ALLOWED_ORIGINS names it", async () => {
    for (const server of ["https://sandbox.example", "http://localhost:8787", "http://127.0.0.1:8787"])
      for (const path of ["/mcp", "/", "/execute", "/authorize"])
        for (const origin of origins()) {
          const headers = { origin, ...mcpHeaders(owner.token) };
          const variables = { ALLOWED_ORIGINS: origin };
          const response = await visit(server + path, { method: "POST", headers, body: LIST }, variables);
          expect(response.status).toBe(403);
          expect(response.headers.get("access-control-allow-origin")).toBeNull();
          const preflight = await visit(server + path, { method: "OPTIONS", headers: { origin } }, variables);
          expect(preflight.headers.get("access-control-allow-origin")).toBeNull();
        }
  });

  it("cannot reach the server's routes under the preview's host name", async () => {
    for (const origin of origins())
      for (const path of ["/mcp", "/health", "/authorize", "/.well-known/oauth-authorization-server"]) {
        const response = await visit(origin + path);
        expect(response.status).toBeGreaterThanOrEqual(404);
        expect(await response.text()).toMatch(/preview/);
      }
  });

  it("cannot receive a client's code, because clients cannot redirect to its host", () => {
    for (const origin of origins())
      expect(redirectProblem({ redirect_uris: [`${origin}/callback`] }, config)).toContain("a preview");
    expect(redirectProblem({ redirect_uris: ["http://localhost:1/callback"] }, config)).toBeUndefined();
    expect(redirectProblem({ redirect_uris: ["http://app.localhost:1/"] }, config)).toBeUndefined();
  });
});

describe("a preview on this machine", () => {
  it("has an address below localhost, at the server's port", async () => {
    const body = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "expose_port", arguments: { sandbox: "addressed", port: 8000 } },
    });
    const headers = { host: "127.0.0.1:8787", ...mcpHeaders(owner.token) };
    const response = await visit(
      "http://127.0.0.1:8787/mcp",
      { method: "POST", headers, body },
      { PREVIEW_HOST: undefined },
    );
    const page = await response.text();
    const [url = ""] = /http:[^\s"\\]+/.exec(page) ?? [];
    expect(url).toMatch(/^http:\/\/8000-addressed-[a-z2-7]{16}-[a-z0-9]{25}\.localhost:8787\/$/);
    expect((await visit(url, {}, { PREVIEW_HOST: undefined })).status).toBe(503);
    await owner.call("destroy_sandbox", { sandbox: "addressed" });
  });
});

describe("PREVIEW_HOST", () => {
  const problem = (PREVIEW: string, PUBLIC_ORIGIN?: string) => {
    try {
      parseConfig({ ...(env as Env), PREVIEW_HOST: PREVIEW, PUBLIC_ORIGIN });
      return "";
    } catch (error) {
      return String(error);
    }
  };

  it.each(["preview.example", "a.b.example:8443", "localhost:8787", "PREVIEW.example"])(
    "may be %s",
    (host) => {
      expect(problem(host)).toBe("");
    },
  );

  it.each([
    "https://preview.example",
    "*.example",
    "a b",
    "a.workers.dev",
    "127.0.0.1",
    "[::1]",
    "a/b",
    "u@a.example",
  ])("may not be %s", (host) => {
    expect(problem(host)).toContain("PREVIEW_HOST must be a host name");
  });

  it("may not be the server's own host or a parent domain of it", () => {
    const words = "PREVIEW_HOST must not be the host of PUBLIC_ORIGIN";
    expect(problem("example.com", "https://mcp.example.com")).toContain(words);
    expect(problem("mcp.example.com", "https://mcp.example.com")).toContain(words);
    expect(problem("preview.example.com", "https://mcp.example.com")).toBe("");
    expect(problem("example.com", "https://example.com.other")).toBe("");
  });
});

it("a request is refused if a sandbox has had too many in this minute", async () => {
  const limit = vi.spyOn(ProcessLimiter.prototype, "limit").mockResolvedValueOnce({ success: false });
  onTestFinished(() => limit.mockRestore());
  const response = await visit(`https://${label}.${PREVIEW_HOST}/`);
  expect([response.status, response.headers.get("retry-after")]).toEqual([429, "60"]);
  expect(limit).toHaveBeenCalledWith({ key: address.actor });
});
