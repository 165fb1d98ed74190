/** The OAuth endpoints with hostile parameters, forms, clients, tokens and redirects. */
import { globSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { serialize } from "node:v8";
import * as fc from "../setup/chance.ts";
import { beforeAll, describe, expect, it } from "vitest";
import {
  AUTHORIZE_PATH,
  METADATA_PATH,
  PANEL_SIGN_IN_PATH,
  REGISTRATION_PATH,
  SERVER_METADATA_PATH,
  TOKEN_PATH,
} from "../../src/auth/paths.ts";
import { type App, Browser, CALLBACK, Client, requireStatus, type Tokens } from "../setup/oauth-client.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer, TOKEN } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { until } from "../setup/until.ts";
import { expectHarmless, nastyString, nastyValue, tries } from "./support.ts";
import { words } from "../setup/words.ts";

const state = temporaryDirectory();
const flags = ["--network", "none", "--state-dir", state];
const server = endLater(await startServer({ flags }));
const { origin } = new URL(server.url);

/** A registered client's id, its redirect URI, a code with its verifier, and an access token and its refresh token. */
const good: string[] = [];
beforeAll(async () => {
  const app: App = (url, init) => fetch(new URL(url, origin), init);
  const client = await Client.register(app, {}, origin);
  const approve = async () => {
    const browser = new Browser(app);
    const page = await browser.open(await client.authorizationURL());
    const done = await browser.submit(page, { decision: "owner", token: TOKEN });
    requireStatus(done, 303);
    return done.location?.searchParams.get("code") ?? "";
  };
  const used = await client.exchange(await approve());
  requireStatus(used, 200);
  const tokens = (await used.json()) as Tokens;
  const code = await approve();
  good.push(client.id, CALLBACK, code, client.verifier, tokens.access_token, tokens.refresh_token);
});

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
  expectHarmless(response.status, text, `${init.method ?? "GET"} ${path}\n${String(init.body ?? "")}`);
  return { status: response.status, text, location: response.headers.get("location") ?? "" };
}

const PATHS = [
  AUTHORIZE_PATH,
  TOKEN_PATH,
  REGISTRATION_PATH,
  METADATA_PATH,
  `${METADATA_PATH}/mcp`,
  SERVER_METADATA_PATH,
  "/.well-known/openid-configuration",
];

const NAMES = words(`
  client_id client_secret redirect_uri response_type scope state code code_challenge code_challenge_method
  code_verifier grant_type refresh_token token resource nonce prompt error assertion client_assertion
`);

const GOOD = 6;

/** Replaces `good:<position>` with the valid value at that position. */
function fillIn(text: string): string {
  return text.replaceAll(/good:(\d)/g, (_all, index: string) => good[Number(index)] ?? "");
}

const value = fc.oneof(
  nastyString,
  // A valid value by its position, because the valid values are known only once the server runs.
  fc.nat({ max: GOOD - 1 }).map((index) => `good:${index}`),
  fc.constantFrom("é".repeat(300), `${"é".repeat(300)}:b:c`, "🐍".repeat(170), "c".repeat(600)),
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

/** A form that may repeat names, which RFC 6749 section 3.1 forbids. */
const parameters = fc
  .array(fc.tuple(fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...NAMES) }, nastyString), value), {
    maxLength: 8,
  })
  .map((pairs) => pairs.map(([name, text]) => [name.toWellFormed(), text.toWellFormed().slice(0, 2000)]));

function form(pairs: readonly string[][]): string {
  return new URLSearchParams(pairs.map(([name = "", text = ""]) => [name, fillIn(text)])).toString();
}

/** Requests that succeed if no parameter is changed. */
const REQUESTS: [string, Record<string, string>][] = [
  [
    AUTHORIZE_PATH,
    {
      response_type: "code",
      client_id: "good:0",
      redirect_uri: "good:1",
      code_challenge: "c".repeat(43),
      code_challenge_method: "S256",
    },
  ],
  [
    TOKEN_PATH,
    {
      grant_type: "authorization_code",
      client_id: "good:0",
      redirect_uri: "good:1",
      code: "good:2",
      code_verifier: "good:3",
    },
  ],
  [TOKEN_PATH, { grant_type: "refresh_token", client_id: "good:0", refresh_token: "good:5" }],
  [TOKEN_PATH, { client_id: "good:0", token: "good:4" }],
];

describe("when clients send hostile requests to OAuth's endpoints", () => {
  it("no parameter in a URL causes a redirect to an unregistered address", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), parameters, async (path, pairs) => {
        const { location } = await send(`${path}?${form(pairs)}`);
        expect(location).not.toMatch(/evil|javascript:|data:/);
      }),
      tries(150),
    );
  });

  it("the endpoints respond to any form, and never with 500", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), parameters, async (path, pairs) => {
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        const { text, location } = await send(path, { method: "POST", headers, body: form(pairs) });
        expect(text).not.toContain('"access_token"');
        expect(location).not.toMatch(/evil|javascript:|data:/);
      }),
      tries(150),
    );
  });

  it("the endpoints respond to any JSON, valid or not, with any header, and never with 500", async () => {
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
        const authorization = `Bearer ${fillIn(token)
          .replaceAll(/[^\x21-\x7e]/g, "?")
          .slice(0, 500)}`;
        await send(path, {
          method: "POST",
          headers: { "content-type": "application/json", authorization },
          body: fillIn(sent),
        });
      }),
      tries(150),
    );
  });

  it("the MCP endpoint responds to any invalid token with 401", async () => {
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

  it("one or two wrong parameters never cause a redirect to an unregistered address", async () => {
    const some = fc.array(fc.tuple(fc.constantFrom(...NAMES), value), { minLength: 1, maxLength: 2 });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...REQUESTS), some, async ([path, whole], changes) => {
        const changed = { ...whole, ...Object.fromEntries(changes) };
        const body = form(
          Object.entries(changed).map(([name, text]) => [name, text.toWellFormed().slice(0, 2000)]),
        );
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        const sent = await (path === AUTHORIZE_PATH
          ? send(`${path}?${body}`)
          : send(path, { method: "POST", headers, body }));
        expect(sent.location).not.toMatch(/evil|javascript:|data:/);
      }),
      tries(150),
    );
  });

  it("the server deletes expired pages of the sign-in from the disk, although nobody signs in", async () => {
    const openPage = async (at: string) => {
      const { headers } = await fetch(at + PANEL_SIGN_IN_PATH, { redirect: "manual" });
      await fetch((headers.get("location") ?? "").replace(origin, at));
    };
    const values = () => readdirSync(join(state, "data/kv/OAUTH_KV/blobs"));
    const before = new Set(values());
    await Promise.all(Array.from({ length: 20 }, () => openPage(origin)));
    const pages = values().filter((name) => !before.has(name));
    expect(pages.length).toBeGreaterThanOrEqual(20);
    await server.stop();
    // A page expires in ten minutes. The test changes that in the databases of the pages and of their expiries.
    const change = (folder: string, table: string, update: string) => {
      for (const file of globSync(join(state, "data", folder, "*.sqlite"))) {
        const database = new DatabaseSync(file);
        const tables = database.prepare("SELECT name FROM sqlite_master").all();
        if (tables.some(({ name }) => name === table)) database.exec(`UPDATE ${table} SET ${update}`);
        database.close();
      }
    };
    const isPage = "key LIKE '%transaction:%'";
    change("kv/miniflare-KVNamespaceObject", "_mf_entries", `expiration = 1 WHERE ${isPage}`);
    const expiries = "do/sandbox-mcp-local-Attempts";
    const past = 1_000_000_000;
    const expired = `x'${serialize(past).toString("hex")}'`;
    change(expiries, "_cf_KV", `value = ${expired} WHERE ${isPage} AND key LIKE 'expiry of %'`);
    const key = `'expires:${past} ' || substr(key, 20)`;
    change(expiries, "_cf_KV", `key = ${key} WHERE ${isPage} AND key LIKE 'expires:%'`);
    const next = endLater(await startServer({ flags }));
    // The next page makes the server look for expired ones soon.
    await openPage(new URL(next.url).origin);
    await until(() => !values().some((name) => pages.includes(name)), 30_000);
  });
});
