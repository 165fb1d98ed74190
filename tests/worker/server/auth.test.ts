import { beforeAll, describe, expect, it, vi } from "vitest";
import type { MCPParts } from "../../../src/server/mcp-endpoint.ts";
import {
  appWith,
  call,
  LIST,
  messages,
  post,
  sha256Hex,
  TOKEN,
  type Variables,
  recordEachLog,
} from "./support.ts";

const READER = "reader-token";
let authTokens = "";

beforeAll(async () => {
  authTokens = JSON.stringify([
    { name: "reader", sha256: await sha256Hex(READER), scopes: ["sandbox:read"] },
    { name: "maker", sha256: await sha256Hex("maker-token"), scopes: ["sandbox:write", "sandbox:read"] },
  ]);
});

const logs = recordEachLog();

function withHeader(authorization: string | string[]): RequestInit {
  const init = post(LIST);
  const headers = new Headers(init.headers);
  headers.delete("authorization");
  for (const value of [authorization].flat()) headers.append("authorization", value);
  return { ...init, headers };
}

async function textOf(response: Response): Promise<string> {
  return JSON.stringify(await messages(response));
}

describe("tokens that the server accepts", () => {
  it.each([
    ["in the usual form", `Bearer ${TOKEN}`],
    ["with the scheme in lower case", `bearer ${TOKEN}`],
    ["with the scheme in capitals", `BEARER ${TOKEN}`],
    ["after several spaces", `Bearer    ${TOKEN}`],
    ["between spaces", `  Bearer ${TOKEN}  `],
  ])("may be written %s", async (_, header) => {
    expect((await appWith()("/mcp", withHeader(header))).status).toBe(200);
  });

  it("belong to the owner, or to the principal of a named token", async () => {
    const app = appWith({ AUTH_TOKENS: authTokens });
    expect(await textOf(await app("/mcp", post(call("note", { text: "x" }))))).toContain("owner noted");
    const named = post(call("note", { text: "x" }), { authorization: "Bearer maker-token" });
    expect(await textOf(await app("/mcp", named))).toContain("token:maker noted");
  });

  it("can all be named tokens, without an owner's token", async () => {
    const app = appWith({ AUTH_TOKENS: authTokens, SERVER_AUTH_TOKEN: "" });
    expect((await app("/mcp", withHeader(`Bearer ${READER}`))).status).toBe(200);
    expect((await app("/mcp", withHeader(`Bearer ${TOKEN}`))).status).toBe(401);
  });
});

describe("a rotation", () => {
  const PREVIOUS = "previous-token-0123456789";
  const hourAgo = new Date(Date.now() - 3_600_000).toISOString();
  const inAnHour = new Date(Date.now() + 3_600_000).toISOString();

  /** The token's principal and the name of the token's kind in the log; undefined if the token is refused. */
  async function holder(token: string, variables: Variables) {
    const app = appWith(variables);
    const authorization = `Bearer ${token}`;
    if ((await app("/mcp", withHeader(authorization))).status === 401) return undefined;
    const { via } = logs.tokens().at(-1) ?? {};
    const entry = await textOf(await app("/mcp", post(call("note", { text: "x" }), { authorization })));
    return [/([\w:]+) noted/.exec(entry)?.[1], via];
  }

  it.each([
    ["without an end", {}, ["owner", "previous_token"]],
    ["before its end", { SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: inAnHour }, ["owner", "previous_token"]],
    ["after its end", { SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: hourAgo }, undefined],
    ["without a newer token", { SERVER_AUTH_TOKEN: "" }, undefined],
  ])("accepts or refuses the owner's previous token %s", async (_, more, expected) => {
    const variables = { SERVER_AUTH_TOKEN_PREVIOUS: PREVIOUS, AUTH_TOKENS: authTokens, ...more };
    expect(await holder(PREVIOUS, variables)).toEqual(expected);
  });

  it("accepts the owner's new token beside the previous one", async () => {
    const variables = { SERVER_AUTH_TOKEN_PREVIOUS: PREVIOUS };
    expect(await holder(TOKEN, variables)).toEqual(["owner", "token"]);
  });

  it("of a named token keeps its principal", async () => {
    const entry = { name: "ci", sha256: await sha256Hex("new"), scopes: ["sandbox:write", "sandbox:read"] };
    const rotated = { ...entry, previous_sha256: (await sha256Hex("old")).toUpperCase() };
    const during = { AUTH_TOKENS: JSON.stringify([{ ...rotated, previous_until: inAnHour }]) };
    expect(await holder("new", during)).toEqual(["token:ci", "token"]);
    expect(await holder("old", during)).toEqual(["token:ci", "previous_token"]);
    const after = { AUTH_TOKENS: JSON.stringify([{ ...rotated, previous_until: hourAgo }]) };
    expect(await holder("new", after)).toEqual(["token:ci", "token"]);
    expect(await holder("old", after)).toBeUndefined();
  });
});

describe("the limit of calls", () => {
  it("tells a principal that exceeds it when to try again, and does not limit other principals", async () => {
    const remaining = new Map([["owner", 2]]);
    const limit = async ({ key }: { key: string }) => {
      const calls = remaining.get(key) ?? 1000;
      remaining.set(key, calls - 1);
      return { success: calls > 0 };
    };
    const app = appWith({ AUTH_TOKENS: authTokens, RATE_LIMITER: { limit } });
    const statuses = [];
    for (let request = 0; request < 4; request++) statuses.push((await app("/mcp", post(LIST))).status);
    expect(statuses).toEqual([200, 200, 429, 429]);
    const refused = await app("/mcp", post(LIST));
    expect(refused.headers.get("retry-after")).toBe("60");
    expect(await refused.json()).toMatchObject({ error: "Too many requests" });
    expect((await app("/mcp", withHeader(`Bearer ${READER}`))).status).toBe(200);
    expect(logs.entries()).toContainEqual(
      expect.objectContaining({ event: "refusal", status: 429, reason: "rate_limited", principal: "owner" }),
    );
  });

  it("counts every message of a batch, and runs no message of a batch over the limit", async () => {
    let remaining = 10;
    const limit = vi.fn<RateLimit["limit"]>(async () => ({ success: (remaining -= 1) >= 0 }));
    const createMCPServer = vi.fn<MCPParts["createMCPServer"]>(() => {
      throw new Error("must not be reached");
    });
    const batch = (count: number) =>
      post(
        Array.from({ length: count }, (_, index) => call("add", { a: 1, b: index }, index + 1)),
        { "mcp-protocol-version": "2025-03-26" },
      );
    const app = appWith({ RATE_LIMITER: { limit } });
    const accepted = await app("/mcp", batch(9));
    expect(accepted.status).toBe(200);
    expect(await messages(accepted)).toHaveLength(9);
    expect(limit).toHaveBeenCalledTimes(9);
    const refused = await appWith({ RATE_LIMITER: { limit } }, { createMCPServer })("/mcp", batch(100));
    expect(refused.status).toBe(429);
    expect(createMCPServer).not.toHaveBeenCalled();
    // The server does not count the rest of the batch after the refusal.
    expect(limit).toHaveBeenCalledTimes(11);
  });
});

describe("requests without a token", () => {
  it.each([
    ["no header", []],
    ["another scheme", `Basic ${btoa(`owner:${TOKEN}`)}`],
    ["the bare token", TOKEN],
    ["the scheme alone", "Bearer"],
    ["the scheme glued to the token", `Bearer${TOKEN}`],
    ["another scheme first", ["Basic eDp5", `Bearer ${TOKEN}`]],
  ])("are refused with 401 and no error code: %s", async (_, header) => {
    const response = await appWith()("/mcp", withHeader(header));
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toBe('Bearer realm="sandbox-mcp"');
    expect(await response.json()).toMatchObject({ error: "Unauthorized" });
    expect(logs.entries()).toMatchObject([
      { event: "refusal", status: 401, reason: "no_token", route: "/mcp" },
    ]);
  });

  it("include requests with a token in the URL, which is not logged", async () => {
    for (const name of ["access_token", "token"]) {
      expect((await appWith()(`/mcp?${name}=${TOKEN}`, withHeader([]))).status).toBe(401);
    }
    expect(logs.entries()).toHaveLength(2);
    expect(logs.text()).not.toContain(TOKEN);
  });
});

describe("tokens that are refused", () => {
  it.each([
    ["a wrong one", "Bearer wrong"],
    ["the beginning of the right one", `Bearer ${TOKEN.slice(0, -1)}`],
    ["the right one and more", `Bearer ${TOKEN}x`],
    ["the right one in capitals", `Bearer ${TOKEN.toUpperCase()}`],
    ["the right one in quotes", `Bearer "${TOKEN}"`],
    ["two in one header", `Bearer ${TOKEN} ${TOKEN}`],
    ["two headers", [`Bearer ${TOKEN}`, `Bearer ${TOKEN}`]],
    ["two headers, the second of another scheme", [`Bearer ${TOKEN}`, "Basic eDp5"]],
    ["a tab after the scheme's space", `Bearer \t${TOKEN}`],
    ["bytes beyond ASCII", "Bearer tok\u00e9n"],
    ["16,000 characters", `Bearer ${"a".repeat(16_000)}`],
    ["16,000 spaces", `Bearer ${" ".repeat(16_000)}a b`],
  ])("have the error 401 invalid_token: %s", async (_, header) => {
    const response = await appWith({ AUTH_TOKENS: authTokens })("/mcp", withHeader(header));
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toMatch(
      /^Bearer realm="sandbox-mcp", error="invalid_token", /,
    );
    expect(response.headers.get("www-authenticate")).not.toContain("resource_metadata");
    expect(await response.json()).toMatchObject({ error: "Unauthorized" });
    expect(logs.entries()).toMatchObject([{ event: "refusal", status: 401, reason: "invalid_token" }]);
    expect(logs.text()).not.toContain(TOKEN);
  });

  it("include the hash of a named token", async () => {
    const response = await appWith({ AUTH_TOKENS: authTokens })(
      "/mcp",
      withHeader(`Bearer ${await sha256Hex(READER)}`),
    );
    expect(response.status).toBe(401);
  });
});

describe("a server without a token", () => {
  it.each([[undefined], [""], [" "]])("refuses every request (SERVER_AUTH_TOKEN=%j)", async (value) => {
    const app = appWith({ SERVER_AUTH_TOKEN: value, AUTH_TOKENS: value });
    for (const header of [[], "Bearer ", "Bearer undefined", "Bearer x"]) {
      const response = await app("/mcp", withHeader(header));
      expect(response.status).toBe(401);
      expect(response.headers.get("www-authenticate")).toBe('Bearer realm="sandbox-mcp"');
      expect(await response.json()).toMatchObject({
        message: expect.stringContaining("No token is configured"),
      });
    }
    expect(logs.entries()[0]).toMatchObject({ reason: "no_token_configured" });
  });

  it("refuses every request if the configured list of tokens is empty", async () => {
    const app = appWith({ SERVER_AUTH_TOKEN: "", AUTH_TOKENS: "[]" });
    expect((await app("/mcp", withHeader("Bearer x"))).status).toBe(401);
  });
});

describe("every candidate is compared", () => {
  it("in constant time, whichever of them matches", async () => {
    const compare = vi.spyOn(crypto.subtle, "timingSafeEqual");
    const app = appWith({ AUTH_TOKENS: authTokens });
    for (const token of [TOKEN, READER, "maker-token", "wrong"]) {
      compare.mockClear();
      await app("/mcp", withHeader(`Bearer ${token}`));
      expect(compare).toHaveBeenCalledTimes(3);
    }
    // From here on `compare` returns wrong results. The server follows them, which shows that it compares in no other way.
    for (let candidate = 0; candidate < 3; candidate += 1) compare.mockReturnValueOnce(false);
    expect((await app("/mcp", withHeader(`Bearer ${TOKEN}`))).status).toBe(401);
    compare.mockReturnValueOnce(true);
    expect((await app("/mcp", withHeader("Bearer wrong"))).status).toBe(200);
  });
});

describe("scopes", () => {
  const reader = { authorization: `Bearer ${READER}` };

  it("refuse a call beyond them with 403 and the names of all scopes that it needs", async () => {
    const response = await appWith({ AUTH_TOKENS: authTokens })(
      "/mcp",
      post(call("note", { text: "secret text" }), reader),
    );
    expect(response.status).toBe(403);
    expect(response.headers.get("www-authenticate")).toMatch(
      /^Bearer realm="sandbox-mcp", error="insufficient_scope", scope="sandbox:read sandbox:write", /,
    );
    expect(await response.json()).toMatchObject({
      error: "insufficient_scope",
      scope: "sandbox:read sandbox:write",
    });
    expect(logs.entries()).toMatchObject([
      {
        status: 403,
        reason: "insufficient_scope",
        principal: "token:reader",
        scope: "sandbox:read sandbox:write",
      },
    ]);
    expect(logs.text()).not.toContain("secret text");
  });

  it("refuse a request for a file beyond them, which leaves a line in the log", async () => {
    const init = { method: "PUT", headers: reader, body: "x" };
    const response = await appWith({ AUTH_TOKENS: authTokens })("/sandboxes/s/files/secret.txt", init);
    expect(response.status).toBe(403);
    expect(logs.entries()).toMatchObject([
      {
        event: "refusal",
        status: 403,
        reason: "insufficient_scope",
        principal: "token:reader",
        scope: "sandbox:write",
        route: "/sandboxes/:name/files/*",
      },
    ]);
    expect(logs.text()).not.toContain("secret.txt");
  });

  it("refuse a whole batch once, with the scopes of every call in it", async () => {
    const createMCPServer = vi.fn<MCPParts["createMCPServer"]>();
    const app = appWith({ AUTH_TOKENS: authTokens }, { createMCPServer });
    const batch = [
      LIST,
      call("add", { a: 1, b: 2 }, 2),
      call("nothing", {}, 3),
      call("note", { text: "x" }, 4),
    ];
    const response = await app("/mcp", post(batch, reader));
    expect(response.status).toBe(403);
    expect(response.headers.get("www-authenticate")).toContain(
      'scope="sandbox:read sandbox:write sandbox:exec"',
    );
    expect(createMCPServer).not.toHaveBeenCalled();
  });

  it("also apply at the root path and to a call without an id", async () => {
    const app = appWith({ AUTH_TOKENS: authTokens });
    expect((await app("/", post(call("add", { a: 1, b: 2 }), reader))).status).toBe(403);
    const { id: _, ...notification } = call("add", { a: 1, b: 2 });
    expect((await app("/mcp", post(notification, reader))).status).toBe(403);
  });

  it("are those of the last key if a body repeats a key, because the server uses the last one", async () => {
    const app = appWith({ AUTH_TOKENS: authTokens });
    const twice =
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"x","name":"add"}}';
    expect((await app("/mcp", post(twice, reader))).status).toBe(403);
  });

  it("are not needed to list the tools or to call a tool that does not exist", async () => {
    const app = appWith({ AUTH_TOKENS: authTokens });
    expect(await textOf(await app("/mcp", post(LIST, reader)))).toContain('"note"');
    expect((await app("/mcp", post(call("nothing", {}), reader))).status).toBe(200);
    expect((await app("/mcp", post(call("constructor", {}), reader))).status).toBe(200);
  });
});
