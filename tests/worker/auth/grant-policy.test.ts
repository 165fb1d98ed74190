import { describe, expect, it } from "vitest";
import { METHODS, isRuleInForce } from "../../../src/auth/methods/index.ts";
import { owner } from "../../../src/auth/methods/owner.ts";
import { type Env, parseConfig } from "../../../src/shared/config.ts";
import type { Variables } from "../server/support.ts";

const FIRST = "the-first-token-of-the-server";

const ALL = {
  SERVER_AUTH_TOKEN: FIRST,
  GITHUB_CLIENT_ID: "id",
  GITHUB_CLIENT_SECRET: "secret",
  GITHUB_ALLOWED_USERS: "octocat, id:77",
  GITHUB_ALLOWED_ORG: "acme",
  ACCESS_TEAM_DOMAIN: "team.example",
  ACCESS_AUDIENCE: "aud",
};

const config = (variables: Variables) => parseConfig(variables as Env);

const rules = {
  owner: async () => (await owner.rules(config({ SERVER_AUTH_TOKEN: FIRST })))[0] ?? "",
  user: () => "github:user:octocat",
  number: () => "github:user:id:77",
  org: () => "github:org:acme",
  access: () => "access:https://team.example aud",
};

describe("the rule by which a grant was approved,", () => {
  it.each(Object.entries(rules))("for %s, applies while its configuration is unchanged", async (_, rule) => {
    expect(await isRuleInForce(config(ALL), await rule())).toBe(true);
  });

  it("for the owner, applies while the server accepts the token of the sign-in, also as the previous token", async () => {
    const rotated = {
      SERVER_AUTH_TOKEN: "the-second-token-of-the-server",
      SERVER_AUTH_TOKEN_PREVIOUS: FIRST,
    };
    const until = (time: number) => ({ SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: new Date(time).toISOString() });
    const rule = await rules.owner();
    expect(await isRuleInForce(config({ ...ALL, ...rotated }), rule)).toBe(true);
    const ended = { ...ALL, ...rotated, ...until(Date.now() - 1) };
    expect(await isRuleInForce(config(ended), rule)).toBe(false);
  });

  it.each([
    ["owner", { SERVER_AUTH_TOKEN: "the-second-token-of-the-server" }],
    ["owner", { SERVER_AUTH_TOKEN: undefined }],
    ["user", { GITHUB_ALLOWED_USERS: "id:77" }],
    ["number", { GITHUB_ALLOWED_USERS: "octocat, 77" }],
    ["org", { GITHUB_ALLOWED_ORG: "acme2" }],
    ["access", { ACCESS_AUDIENCE: "other" }],
    ["access", { ACCESS_TEAM_DOMAIN: "other.example" }],
  ] as const)("for %s, does not apply after the change %j", async (name, change) => {
    expect(await isRuleInForce(config({ ...ALL, ...change }), await rules[name]())).toBe(false);
  });

  it("if the server did not create it, never applies", async () => {
    for (const rule of ["", "owner", "owner:", "github:user:", "github:org:undefined"]) {
      expect(await isRuleInForce(config(ALL), rule)).toBe(false);
      expect(await isRuleInForce(config({}), rule)).toBe(false);
    }
  });

  it("for the owner, does not reveal the token", async () => {
    const rule = await rules.owner();
    expect(rule).toMatch(/^owner:[0-9a-f]{32}$/);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(FIRST)));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    expect(hex.startsWith(rule.slice("owner:".length))).toBe(false);
  });
});

it("no two sign-in methods show the same name", () => {
  const names = METHODS.flatMap((method) => ("title" in method ? method.title : (method.gateway ?? [])));
  expect(names).toEqual([...new Set(names)]);
});

const isRefused = (variables: Variables) => {
  try {
    config(variables);
    return false;
  } catch {
    return true;
  }
};

it.each(METHODS.filter(({ name }) => name !== "owner"))(
  "if any variable is missing, sign-in by $name stays on or the server refuses the configuration",
  (method) => {
    expect(ALL).toHaveProperty(method.variable);
    const silent = Object.keys(ALL).filter((missing) => {
      const variables = { ...ALL, [missing]: undefined };
      return !isRefused(variables) && !method.isOn({ config: config(variables), env: {} as Env });
    });
    expect(silent).toEqual([]);
  },
);
