/** The key-value store of OAuth's clients, grants and tokens fails or is slow. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import worker from "../../../src/index.ts";
import type { Env } from "../../../src/shared/config.ts";
import { beforeCalls } from "../../setup/before-calls.ts";
import { CALLBACK } from "../../setup/oauth-client.ts";
import { Caller, ORIGIN } from "../../worker/support.ts";

/** The operations during the fault. */
const operations: string[] = [];

/** Called before each operation. It may throw, or never return. */
let fault: () => Promise<void>;

const store = beforeCalls((env as { OAUTH_KV: KVNamespace }).OAUTH_KV, async (operation) => {
  operations.push(operation);
  await fault();
});

const broken = {
  ...(env as Env),
  LOG_LEVEL: "error",
  PUBLIC_ORIGIN: ORIGIN,
  // Without a limiter of guesses OAuth would be off. No request of these tests reaches the limiter.
  Attempts: {},
  OAUTH_KV: store,
} as Env;

beforeEach(() => void (operations.length = 0));
afterEach(() => void (fault = async () => undefined));

const refuse = async () => {
  throw new Error("KV GET failed: 503");
};

const hang = () => new Promise<void>(() => undefined);

const AUTHORIZE = `/authorize?${new URLSearchParams({
  response_type: "code",
  client_id: "some-client",
  redirect_uri: CALLBACK,
  code_challenge: "c".repeat(43),
  code_challenge_method: "S256",
})}`;

const FORM = { "content-type": "application/x-www-form-urlencoded" };
const JSON_TYPE = { "content-type": "application/json" };
const TOKEN = `owner:${"g".repeat(16)}:${"s".repeat(32)}`;

/** The server looks up the handle of a page only if the browser sends the page's cookie. */
const HANDLE = "h".repeat(32);
const DIGEST = new Uint8Array(
  await crypto.subtle.digest("SHA-256", new TextEncoder().encode(HANDLE)),
).toHex();

const REQUESTS: [string, string, RequestInit][] = [
  [
    "a client's registration",
    "/oauth/register",
    { method: "POST", headers: JSON_TYPE, body: JSON.stringify({ redirect_uris: [CALLBACK] }) },
  ],
  [
    "an exchange of a code for a token",
    "/oauth/token",
    { method: "POST", headers: FORM, body: "grant_type=authorization_code&code=a:b:c&client_id=x" },
  ],
  [
    "a revocation of a token",
    "/oauth/token",
    { method: "POST", headers: FORM, body: `token=${TOKEN}&client_id=x` },
  ],
  ["a consent page", AUTHORIZE, { method: "GET" }],
  [
    "an approval",
    "/authorize",
    {
      method: "POST",
      headers: { ...FORM, cookie: `__Host-sandbox-mcp-consent-${DIGEST.slice(0, 16)}=${DIGEST}` },
      body: `handle=${HANDLE}&decision=owner`,
    },
  ],
  [
    "a call with an OAuth token",
    "/mcp",
    { method: "POST", headers: { ...JSON_TYPE, authorization: `Bearer ${TOKEN}` }, body: "{}" },
  ],
];

/** Sends a request, and checks that the response contains no internal details. */
async function responseTo(path: string, init: RequestInit) {
  const request = new Request(new URL(path, ORIGIN), init);
  const response = await worker.fetch(request, broken, createExecutionContext());
  const text = await response.text();
  expect(text).not.toMatch(/KV GET|\bat .*\(|\.ts:/);
  return { status: response.status, wait: response.headers.get("retry-after"), text };
}

const UNAVAILABLE = {
  status: 503,
  wait: "5",
  text: expect.stringMatching(/[Tt]ry again in a few seconds\./),
};

describe("when KV refuses operations", () => {
  it("calls with a server token work as before", async () => {
    fault = refuse;
    const caller = new Caller("owner", "test-owner-token", broken);
    const { structured } = await caller.call("run_command", { sandbox: "kv", command: "echo works" });
    expect(structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
    expect(operations).toEqual([]);
  });

  it.each(REQUESTS)(
    "a request that needs KV gets 503 with Retry-After, without internal details: %s",
    async (_what, path, init) => {
      fault = refuse;
      expect(await responseTo(path, init)).toEqual(UNAVAILABLE);
      expect(operations).toHaveLength(1);
    },
  );
});

describe("when KV never responds", () => {
  it("registrations, tokens, pages and calls with an OAuth token get the same 503 within 15 seconds", async () => {
    fault = hang;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const responses = Promise.all(REQUESTS.map(([, path, init]) => responseTo(path, init)));
    while (operations.length < REQUESTS.length) await vi.advanceTimersByTimeAsync(0);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(await responses).toEqual(REQUESTS.map(() => UNAVAILABLE));
    expect(operations).toHaveLength(REQUESTS.length);
  });
});
