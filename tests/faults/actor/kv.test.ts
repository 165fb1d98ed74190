/** The store of OAuth's clients, grants and tokens refuses or is slow. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import worker from "../../../src/index.ts";
import type { Env } from "../../../src/server/config.ts";
import { Caller, ORIGIN } from "../../worker/support.ts";

function faulty(fault: () => Promise<void>): Env {
  const store = new Proxy((env as { OAUTH_KV: KVNamespace }).OAUTH_KV, {
    get(target, name) {
      const method = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      return async (...args: unknown[]) => {
        await fault();
        return Reflect.apply(method, target, args);
      };
    },
  });
  return { ...(env as Env), LOG_LEVEL: "error", OAUTH_KV: store } as Env;
}

const refusing = faulty(async () => {
  throw new Error("KV GET failed: 503");
});

const silent = faulty(() => new Promise(() => undefined));

async function request(variables: Env, path: string, init: RequestInit): Promise<Response> {
  return worker.fetch(new Request(new URL(path, ORIGIN), init), variables, createExecutionContext());
}

describe("KV refusing", () => {
  it("calls with a server token do not notice", async () => {
    const caller = new Caller("owner", "test-owner-token", refusing);
    const { structured } = await caller.call("run_command", { sandbox: "kv", command: "echo works" });
    expect(structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
  });

  it.each([
    [
      "a client's registration",
      "/register",
      {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"redirect_uris":["http://127.0.0.1/cb"]}',
      },
    ],
    [
      "a token",
      "/token",
      {
        method: "POST",
        headers: { "content-type": "application/x-www-form-urlencoded" },
        body: "grant_type=authorization_code&code=a:b:c&client_id=x",
      },
    ],
    [
      "a call with an OAuth token",
      "/mcp",
      {
        method: "POST",
        headers: { authorization: "Bearer a:b:c", "content-type": "application/json" },
        body: "{}",
      },
    ],
  ])("%s: refused or failed, without a word of why inside", async (_what, path, init) => {
    const response = await request(refusing, path, init);
    const text = await response.text();
    expect(response.ok).toBe(false);
    expect(text).not.toMatch(/KV GET|\bat .*\(|\.ts:/);
  });
});

describe("KV slow, as slow as it can be", () => {
  it("calls with a server token do not wait for it", async () => {
    const caller = new Caller("owner", "test-owner-token", silent);
    const answer = caller.call("run_command", { sandbox: "kv", command: "echo works" });
    const { structured } = await answer;
    expect(structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
  });
});
