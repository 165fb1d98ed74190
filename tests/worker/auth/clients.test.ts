import { Client, StreamableHTTPClientTransport, UnauthorizedError } from "@modelcontextprotocol/client";
import {
  Client as Client1,
  StreamableHTTPClientTransport as Transport1,
  UnauthorizedError as UnauthorizedError1,
} from "../../clients/sdk1.ts";
import { describe, expect, it } from "vitest";
import { ORIGIN, TOKEN, recordEachLog } from "../server/support.ts";
import { type App, Browser, oauthApp, type Tokens } from "./support.ts";

recordEachLog();

const info = { name: "test-client", version: "1.0.0" };
const CALLBACK = "http://localhost:3118/callback";

/** The values that an application stores for its SDK. Both generations of the SDK need the same values. */
function memory(app: App) {
  const stored: {
    tokens?: Tokens & { token_type: string };
    client?: { client_id: string };
    verifier?: string;
  } = {};
  let authorizationURL: URL | undefined;
  const fetch = async (url: string | URL | Request, init?: RequestInit) => app(String(url), init);
  return {
    kept: stored,
    fetch,
    provider: {
      redirectUrl: CALLBACK,
      clientMetadata: { client_name: "SDK", redirect_uris: [CALLBACK], token_endpoint_auth_method: "none" },
      state: () => "state-of-the-sdk",
      clientInformation: () => stored.client,
      saveClientInformation: (client: { client_id: string }) => void (stored.client = client),
      tokens: () => stored.tokens,
      // RFC 6749 and the SDK's type make these members optional. This server sends all of them.
      saveTokens: (tokens: object) => void (stored.tokens = tokens as typeof stored.tokens),
      redirectToAuthorization: (url: URL) => void (authorizationURL = url),
      saveCodeVerifier: (verifier: string) => void (stored.verifier = verifier),
      codeVerifier: () => stored.verifier ?? "",
    },
    /** The person approves in their browser. Returns the parameters that the callback receives. */
    async approve(ticked?: string[]): Promise<URLSearchParams> {
      const browser = new Browser(app);
      const page = await browser.open(authorizationURL?.href ?? "");
      const scope = ticked ?? page.scopes;
      const done = await browser.submit(page, { decision: "owner", token: TOKEN, scope });
      return done.location?.searchParams ?? new URLSearchParams();
    },
  };
}

/** Calls a tool, and lists the tools after the token has expired, so that the client gets a new one. */
async function expectCallsAndRefresh(
  client: Pick<Client | Client1, "callTool" | "listTools" | "close">,
  stored: ReturnType<typeof memory>["kept"],
): Promise<void> {
  expect((await client.callTool({ name: "add", arguments: { a: 2, b: 3 } })).content).toEqual([
    { type: "text", text: "5" },
  ]);
  const before = stored.tokens?.access_token;
  if (stored.tokens) stored.tokens.access_token = "expired";
  expect((await client.listTools()).tools).toHaveLength(2);
  expect(stored.tokens?.access_token).not.toBe(before);
  await client.close();
}

/** The paths of the MCP endpoint, also with the parameters that a connection may have. */
const CONNECTIONS = [
  ["/mcp", "auto"],
  ["/mcp?sandbox=work&results=structured", "auto"],
  ["/", "legacy"],
] as const;

describe("the 2.x client", () => {
  it.each(CONNECTIONS)("signs in, calls and refreshes at %s in mode %s", async (path, mode) => {
    const { kept: stored, fetch, provider, approve } = memory(oauthApp());
    const url = new URL(path, ORIGIN);
    const transport = () => new StreamableHTTPClientTransport(url, { authProvider: provider, fetch });
    const connect = async () => {
      const client = new Client(info, { versionNegotiation: { mode } });
      await client.connect(transport());
      return client;
    };
    await expect(connect()).rejects.toThrow(UnauthorizedError);
    await transport().finishAuth(await approve());
    const client = await connect();
    await expectCallsAndRefresh(client, stored);
  });
});

describe("the 1.x client", () => {
  it("signs in, calls and refreshes", async () => {
    const { kept: stored, fetch, provider, approve } = memory(oauthApp());
    const url = new URL("/mcp", ORIGIN);
    const transport = () => new Transport1(url, { authProvider: provider, fetch });
    await expect(new Client1(info).connect(transport())).rejects.toThrow(UnauthorizedError1);
    await transport().finishAuth((await approve()).get("code") ?? "");
    const client = new Client1(info);
    await client.connect(transport());
    await expectCallsAndRefresh(client, stored);
  });
});

describe("a call that lacks a scope", () => {
  it("makes the client send its user back to the consent page", async () => {
    const { kept: stored, fetch, provider, approve } = memory(oauthApp());
    const transport = () =>
      new StreamableHTTPClientTransport(new URL("/mcp", ORIGIN), { authProvider: provider, fetch });
    const connect = async () => {
      const client = new Client(info, { versionNegotiation: { mode: "auto" } });
      await client.connect(transport());
      return client;
    };
    const add = { name: "add", arguments: { a: 2, b: 3 } };
    await expect(connect()).rejects.toThrow(UnauthorizedError);
    await transport().finishAuth(await approve(["sandbox:read"]));
    expect(stored.tokens?.scope).toBe("sandbox:read");
    await expect((await connect()).callTool(add)).rejects.toThrow(UnauthorizedError);
    await transport().finishAuth(await approve());
    expect(stored.tokens?.scope).toBe("sandbox:read sandbox:exec");
    expect((await (await connect()).callTool(add)).content).toEqual([{ type: "text", text: "5" }]);
  });
});
