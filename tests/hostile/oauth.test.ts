/** The OAuth surface with what nobody should send: parameters, forms, clients, tokens and redirects of any make. */
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Server, startServer } from "../setup/server.ts";
import { harmless, nastyString, nastyValue, tries } from "./support.ts";

let server: Server;
let origin: string;
beforeAll(async () => {
  server = await startServer({ flags: ["--network", "none"] });
  ({ origin } = new URL(server.url));
});
afterAll(() => server.stop());

async function send(
  path: string,
  init: RequestInit = {},
): Promise<{ status: number; text: string; location: string }> {
  const response = await fetch(origin + path, {
    redirect: "manual",
    signal: AbortSignal.timeout(30_000),
    ...init,
  });
  const text = await response.text();
  harmless(response.status, text, `${init.method ?? "GET"} ${path}\n${String(init.body ?? "")}`);
  return { status: response.status, text, location: response.headers.get("location") ?? "" };
}

const PATHS = [
  "/authorize",
  "/token",
  "/register",
  "/revoke",
  "/authorize/github",
  "/.well-known/oauth-protected-resource",
  "/.well-known/oauth-protected-resource/mcp",
  "/.well-known/oauth-authorization-server",
  "/.well-known/openid-configuration",
];

const NAMES = [
  "client_id",
  "client_secret",
  "redirect_uri",
  "response_type",
  "scope",
  "state",
  "code",
  "code_challenge",
  "code_challenge_method",
  "code_verifier",
  "grant_type",
  "refresh_token",
  "token",
  "resource",
  "nonce",
  "prompt",
  "error",
  "assertion",
  "client_assertion",
];

const value = fc.oneof(
  nastyString,
  fc.constantFrom(
    "code",
    "token",
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "S256",
    "plain",
    "x:y:z",
    "owner:owner:owner",
    "http://127.0.0.1:1/cb",
    "https://evil.example/cb",
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example",
    "http://localhost@evil.example/",
    "sandbox:exec",
  ),
);

/** Names may come twice, which RFC 6749 section 3.1 forbids. */
const parameters = fc
  .array(fc.tuple(fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...NAMES) }, nastyString), value), {
    maxLength: 8,
  })
  .map((pairs) =>
    new URLSearchParams(
      pairs.map(([name, text]) => [name.toWellFormed(), text.toWellFormed().slice(0, 2000)]),
    ).toString(),
  );

describe("every endpoint of OAuth", () => {
  it("with any parameters in its URL: it never sends a browser to where no client registered", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), parameters, async (path, query) => {
        const { location } = await send(`${path}?${query}`);
        expect(location).not.toMatch(/evil|javascript:|data:/);
      }),
      tries(150),
    );
  });

  it("with any form", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), parameters, async (path, body) => {
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        const { text, location } = await send(path, { method: "POST", headers, body });
        expect(text).not.toContain('"access_token"');
        expect(location).not.toMatch(/evil|javascript:|data:/);
      }),
      tries(150),
    );
  });

  it("with any JSON, broken or not, and any header", async () => {
    const body = fc.oneof(
      fc.json(),
      nastyString.map((text) => text.toWellFormed()),
      fc
        .record(
          {
            redirect_uris: fc.oneof(fc.array(value, { maxLength: 3 }), nastyValue),
            client_name: nastyValue,
            grant_types: nastyValue,
            logo_uri: value,
            token_endpoint_auth_method: nastyValue,
            scope: nastyValue,
            jwks: nastyValue,
          },
          { requiredKeys: [] },
        )
        .map((client) => JSON.stringify(client)),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), body, value, async (path, sent, token) => {
        const authorization = `Bearer ${token.replaceAll(/[^\x21-\x7e]/g, "?").slice(0, 500)}`;
        await send(path, {
          method: "POST",
          headers: { "content-type": "application/json", authorization },
          body: sent,
        });
      }),
      tries(150),
    );
  });

  it("with a token of any make at the MCP endpoint: 401 and a challenge", async () => {
    await fc.assert(
      fc.asyncProperty(value, async (text) => {
        const authorization = `Bearer ${text.replaceAll(/[^\x21-\x7e]/g, "?").slice(0, 4000)}`;
        const { status } = await send("/mcp", {
          method: "POST",
          headers: { authorization, "content-type": "application/json" },
          body: "{}",
        });
        expect(status).toBe(401);
      }),
      tries(60),
    );
  });

  it("with bodies that are too large: refused, some before they were sent whole", async () => {
    const init = {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "x".repeat(9 * 1024 * 1024),
    };
    for (const path of PATHS)
      await send(path, init).catch((error) => expect(String(error)).toContain("fetch failed"));
    const { status } = await send("/health");
    expect(status).toBe(200);
  });
});
