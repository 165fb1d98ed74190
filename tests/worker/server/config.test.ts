import { describe, expect, it } from "vitest";
import { ConfigError, type Env, parseConfig } from "../../../src/shared/config.ts";
import { appWith, LIST, post, type Variables, recordEachLog } from "./support.ts";

const SECRET = "hunter2-do-not-show";
const HASH = "ab".repeat(32);

const logs = recordEachLog();

const env = (variables: Record<string, unknown>) => variables as unknown as Env;

function problemsOf(variables: Record<string, unknown>): readonly string[] {
  try {
    parseConfig(env(variables));
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

function tokens(...list: unknown[]): Record<string, unknown> {
  return { AUTH_TOKENS: JSON.stringify(list) };
}

const token = { name: "ci", sha256: HASH, scopes: ["sandbox:read"] };

const secret = {
  name: "api",
  hosts: ["api.example.com"],
  header: "Authorization: Bearer {value}",
  value: SECRET,
};
const secrets = (...entries: object[]) => ({ SECRETS: JSON.stringify(entries) });

describe("a valid configuration", () => {
  it("needs no variable at all", () => {
    const config = parseConfig(env({}));
    expect(config).toMatchObject({
      serverAuthToken: undefined,
      authTokens: [],
      allowedOrigins: new Set(),
      publicOrigin: undefined,
      logLevel: "info",
    });
  });

  it("treats an empty variable like an unset one", () => {
    const empty = {
      SERVER_AUTH_TOKEN: " ",
      AUTH_TOKENS: "",
      ALLOWED_ORIGINS: "",
      PUBLIC_ORIGIN: "\n",
      LOG_LEVEL: "",
    };
    expect(parseConfig(env(empty))).toEqual(parseConfig(env({})));
  });

  it("normalises values that may be written in several ways", () => {
    const config = parseConfig(
      env({
        SERVER_AUTH_TOKEN: " abcdefghijklmnop\n",
        ...tokens({ ...token, sha256: HASH.toUpperCase() }),
        ALLOWED_ORIGINS: "https://A.example/, http://b.example:80,vscode-webview://Abc,",
        PUBLIC_ORIGIN: "HTTPS://S.Example:443/",
        LOG_LEVEL: "Warn",
        TASK_ARCHIVE_MAX_MB: "0",
      }),
    );
    expect(config).toMatchObject({
      serverAuthToken: "abcdefghijklmnop",
      authTokens: [token],
      allowedOrigins: new Set(["https://a.example", "http://b.example", "vscode-webview://abc"]),
      publicOrigin: "https://s.example",
      logLevel: "warn",
      tasks: { archiveMaxMiB: 0 },
    });
  });
});

describe("an invalid configuration", () => {
  const cases: [Record<string, unknown>, string][] = [
    [
      { SERVER_AUTH_TOKEN: `${SECRET} x` },
      "SERVER_AUTH_TOKEN must be visible ASCII characters without spaces.",
    ],
    [{ SERVER_AUTH_TOKEN: { [SECRET]: 1 } }, "SERVER_AUTH_TOKEN must be a text variable."],
    [{ AUTH_TOKENS: SECRET }, "AUTH_TOKENS is not valid JSON."],
    [{ AUTH_TOKENS: `{"${SECRET}":1}` }, "AUTH_TOKENS must be a JSON list."],
    [
      tokens(token, { ...token, name: "b", sha256: SECRET }),
      "AUTH_TOKENS[1].sha256 must be the SHA-256 of the token, 64 hexadecimal digits.",
    ],
    [tokens({ ...token, sha256: undefined }), "AUTH_TOKENS[0].sha256 is missing."],
    [tokens({ ...token, name: "" }), "AUTH_TOKENS[0].name must be 1 to 32 characters of a-z, 0-9 and -."],
    [tokens({ ...token, name: "ci\n" }), "AUTH_TOKENS[0].name must be 1 to 32 characters of a-z, 0-9 and -."],
    [tokens({ ...token, scopes: [] }), "AUTH_TOKENS[0].scopes must name at least one scope."],
    [
      tokens({ ...token, scopes: [SECRET] }),
      "AUTH_TOKENS[0].scopes[0] must be one of sandbox:read, sandbox:write, sandbox:exec, tasks:run.",
    ],
    [
      tokens({ ...token, [SECRET]: 1 }),
      "AUTH_TOKENS[0] must be an object with name, sha256 and scopes, and optionally previous_sha256, previous_until, region, internet and allow_hosts; no other keys.",
    ],
    [tokens({ ...token, internet: "some" }), "AUTH_TOKENS[0].internet must be one of none, allowlist, full."],
    [
      tokens({ ...token, allow_hosts: ["https://x.example"] }),
      "AUTH_TOKENS[0].allow_hosts[0] is not a host: write a name (api.example.com), *.name for all names below it, or packages; no scheme, port or path.",
    ],
    [{ MAX_INTERNET: SECRET }, "MAX_INTERNET must be one of none, allowlist, full."],
    [
      { TOOLS: `code, ${SECRET}` },
      expect.stringMatching(/^TOOLS must name tools or sets .*: code, files, tasks, admin, run_code, /),
    ],
    [{ ALLOW_HOSTS: "x.example, 0x7f.1" }, "ALLOW_HOSTS[1] is an address that is not in its usual form."],
    [tokens(token, { ...token, sha256: "cd".repeat(32) }), "AUTH_TOKENS must not use one name twice."],
    [tokens(token, { ...token, name: "b" }), "AUTH_TOKENS must not give one token two names."],
    [
      tokens(token, { ...token, name: "b", sha256: "cd".repeat(32), previous_sha256: HASH }),
      "AUTH_TOKENS must not give one token two names.",
    ],
    [
      { SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: "tomorrow" },
      "SERVER_AUTH_TOKEN_PREVIOUS_UNTIL must be a time with its zone, such as 2026-12-31T12:00:00Z.",
    ],
    [
      { ALLOWED_ORIGINS: "*" },
      "ALLOWED_ORIGINS[0] must be an origin such as https://example.com, without a path.",
    ],
    [
      { ALLOWED_ORIGINS: `https://a.example,https://${SECRET}/x` },
      "ALLOWED_ORIGINS[1] must be an origin such as https://example.com, without a path.",
    ],
    [
      { PUBLIC_ORIGIN: `https://u:${SECRET}@a.example` },
      "PUBLIC_ORIGIN must be an origin such as https://example.com, without a path.",
    ],
    [{ LOG_LEVEL: SECRET }, "LOG_LEVEL must be one of debug, info, warn, error."],
    [{ SECRETS: SECRET }, "SECRETS is not valid JSON."],
    [
      secrets({ ...secret, [SECRET]: 1 }),
      "SECRETS[0] must be an object with name, hosts and value, with exactly one of header, query or basic, and optionally principals and variable; no other keys.",
    ],
    [secrets(secret, { ...secret, header: "a: {value}" }), "SECRETS must not use one name twice."],
    [secrets({ ...secret, value: undefined }), "SECRETS[0].value is missing."],
    [
      secrets({ ...secret, value: "0123456789abcde" }),
      "SECRETS[0].value must have at least 16 characters, and be random: code in a sandbox can guess a shorter one.",
    ],
    [
      secrets({ ...secret, hosts: [`https://${SECRET}/`] }),
      "SECRETS[0].hosts[0] must be the name of a host (api.example.com) or *.name for all names below it; no scheme, port, path or address.",
    ],
    [
      secrets({ ...secret, hosts: ["192.0.2.1"] }),
      "SECRETS[0].hosts[0] must be the name of a host (api.example.com) or *.name for all names below it; no scheme, port, path or address.",
    ],
    [
      secrets({ ...secret, hosts: ["anthropic.internal"] }),
      "SECRETS[0].hosts[0] must not cover anthropic.internal, by which tasks reach their model.",
    ],
    [secrets({ ...secret, query: "key={value}" }), "SECRETS[0] must have one of header, query and basic."],
    [
      secrets({ ...secret, header: `Authorization: Bearer ${SECRET}` }),
      "SECRETS[0].header must contain {value} exactly once.",
    ],
    [
      secrets({ ...secret, header: "{value}: x" }),
      'SECRETS[0] must have a header of the form "Authorization: Bearer {value}".',
    ],
    [
      secrets({ ...secret, header: "Host: {value}" }),
      "SECRETS[0] must not have a header that the connection itself needs.",
    ],
    [
      secrets({ ...secret, principals: [SECRET] }),
      "SECRETS[0].principals[0] must be owner, token:<name>, github:<number> or access:<subject>.",
    ],
  ];

  it.each(cases)("is reported without its values: %j", (variables, problem) => {
    const problems = problemsOf(variables);
    expect(problems).toEqual([problem]);
    expect(problems.join()).not.toContain(SECRET);
  });

  it("is reported if a token is short enough to guess, together with a command that makes a random token", () => {
    const short = SECRET.slice(0, 15);
    const problems = problemsOf({ SERVER_AUTH_TOKEN: ` ${short} ` });
    expect(problems).toEqual([
      "SERVER_AUTH_TOKEN must be at least 16 characters, and random: openssl rand -hex 32 makes one.",
    ]);
    expect(problems.join()).not.toContain(short);
    expect(problemsOf({ SERVER_AUTH_TOKEN: `${short}x` })).toEqual([]);
  });

  it.each([
    "a".repeat(64),
    "ab".repeat(20),
    "0000000000000001",
    "correcthorse".repeat(2),
    "1234567812345678123",
  ])("is reported if a token repeats a few characters: %s", (weak) => {
    expect(problemsOf({ SERVER_AUTH_TOKEN: weak })).toEqual([
      "SERVER_AUTH_TOKEN must be random, but repeats a few characters: openssl rand -hex 32 makes one.",
    ]);
  });

  it("is never reported because of a random token, in hex or base64", () => {
    for (let turn = 0; turn < 200; turn++) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      expect(problemsOf({ SERVER_AUTH_TOKEN: hex })).toEqual([]);
      expect(problemsOf({ SERVER_AUTH_TOKEN: btoa(String.fromCharCode(...bytes)) })).toEqual([]);
    }
  });

  it("is reported with all of its errors at once", () => {
    expect(problemsOf({ LOG_LEVEL: "loud", PUBLIC_ORIGIN: "x", AUTH_TOKENS: "[" })).toHaveLength(3);
  });
});

describe("a misconfigured server", () => {
  const broken: Variables = { AUTH_TOKENS: `[{"name":"${SECRET}"}]` };

  it("refuses every request, and names the wrong variable in its response and its log", async () => {
    const response = await appWith(broken)("/mcp", post(LIST));
    expect(response.status).toBe(500);
    const body = await response.text();
    expect(JSON.parse(body)).toMatchObject({ error: "The server is misconfigured" });
    expect(body).toContain("AUTH_TOKENS[0].sha256 is missing.");
    expect(logs.entries()).toMatchObject([{ level: "error", event: "config" }]);
    expect(body + logs.text()).not.toContain(SECRET);
  });

  it("is not healthy", async () => {
    const response = await appWith(broken)("/health");
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({
      status: "misconfigured",
      platform: "cloudflare_sandboxes",
    });
  });
});

describe("the sign-in methods", () => {
  const github = {
    GITHUB_CLIENT_ID: "id",
    GITHUB_CLIENT_SECRET: "secret",
    GITHUB_ALLOWED_USERS: "Octocat, id:583231",
  };
  const access = { ACCESS_TEAM_DOMAIN: "Team.cloudflareaccess.com", ACCESS_AUDIENCE: "aud" };

  it("are configured by their variables", () => {
    const config = parseConfig(
      env({ ...github, ...access, GITHUB_ALLOWED_ORG: "Acme", GITHUB_URL: "https://ghe.example/" }),
    );
    expect(config.values).toMatchObject({
      GITHUB_ALLOWED_USERS: ["octocat", "id:583231"],
      GITHUB_ALLOWED_ORG: "acme",
      GITHUB_URL: "https://ghe.example",
      GITHUB_API_URL: "https://api.github.com",
      ACCESS_TEAM_DOMAIN: "https://team.cloudflareaccess.com",
    });
  });

  it.each([
    [{ ...github, GITHUB_CLIENT_SECRET: "" }, "GITHUB_CLIENT_ID needs GITHUB_CLIENT_SECRET to be set too."],
    [{ ...github, GITHUB_CLIENT_ID: "" }, "GITHUB_CLIENT_SECRET needs GITHUB_CLIENT_ID to be set too."],
    [
      { ...github, GITHUB_ALLOWED_USERS: " , " },
      "GITHUB_CLIENT_ID needs GITHUB_ALLOWED_USERS or GITHUB_ALLOWED_ORG",
    ],
    [{ ...github, GITHUB_ALLOWED_USERS: "*" }, "GITHUB_ALLOWED_USERS[0] must be a login or id:<number>."],
    [{ ...github, GITHUB_ALLOWED_ORG: "a/b" }, "GITHUB_ALLOWED_ORG must be the login of an organization."],
    [{ ...github, GITHUB_API_URL: "api.example" }, "GITHUB_API_URL must be a URL"],
    [{ ...access, ACCESS_AUDIENCE: "" }, "ACCESS_TEAM_DOMAIN needs ACCESS_AUDIENCE to be set too."],
    [{ ...access, ACCESS_TEAM_DOMAIN: "" }, "ACCESS_AUDIENCE needs ACCESS_TEAM_DOMAIN to be set too."],
    [{ ...access, ACCESS_TEAM_DOMAIN: "a b" }, "ACCESS_TEAM_DOMAIN must be an origin"],
    [{ OAUTH_CLIENT_METADATA: "yes" }, "OAUTH_CLIENT_METADATA must be on or off."],
  ])("are refused if they are incomplete or open to everybody: %j", (variables, problem) => {
    expect(problemsOf(variables).join(" ")).toContain(problem);
    expect(problemsOf(variables).join(" ")).not.toContain("secret");
  });
});
