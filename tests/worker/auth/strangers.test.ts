/** How much callers without a valid token can make the server write, read and store. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { type Attempts as LocalAttempts, withExpiry } from "../../../local/platform/expiry.ts";
import { MAX_UNAPPROVED } from "../../../src/actors/attempts.ts";
import { beforeCalls } from "../../setup/before-calls.ts";
import { recordEachLog } from "../server/support.ts";
import { approve, Client, oauthApp, ORIGIN, register, signIn, statusOf, type Tokens } from "./support.ts";

recordEachLog();

/** A token in the form of this server's tokens. */
const invalidToken = (index: number) => `owner:${String(index).padStart(16, "g")}:${"s".repeat(32)}`;

async function keysOf(prefix: string): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await env.OAUTH_KV.list({ prefix, cursor });
    found.push(...page.keys.map(({ name }) => name.slice(prefix.length)));
    if (page.list_complete) return found;
    cursor = page.cursor;
  }
}

describe("registered clients", () => {
  it("are limited in number while unapproved; a new one replaces the oldest of the address that registered most", async () => {
    const app = oauthApp();
    const registerFrom = async (address: string) => {
      const response = await register(app, {}, ORIGIN, { "cf-connecting-ip": address });
      return (await response.json<{ client_id: string }>()).client_id;
    };
    const approved = await Client.register(app);
    await approve(approved);
    const person = await registerFrom("192.0.2.1");
    const first = await registerFrom("192.0.2.2");
    await Promise.all(Array.from({ length: MAX_UNAPPROVED }, () => registerFrom("192.0.2.2")));
    const full = (await keysOf("client:")).length;
    await registerFrom("192.0.2.2");
    const remaining = await keysOf("client:");
    expect(remaining).toHaveLength(full);
    expect(remaining).toEqual(expect.arrayContaining([approved.id, person]));
    expect(remaining).not.toContain(first);
  });

  it("are limited to 600 registrations a minute if the binding ADDRESS_LIMITER is missing", async () => {
    // The clock stands still, so all requests are in one minute. No other file sends requests in that minute.
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
    const app = oauthApp({ ADDRESS_LIMITER: undefined });
    const registering = Array.from({ length: 601 }, () => register(app, { redirect_uris: "none" }));
    const statuses = (await Promise.all(registering)).map(({ status }) => status);
    vi.useRealTimers();
    expect(statuses.toSorted()).toEqual([...Array<number>(600).fill(400), 429]);
  });
});

it("invalid tokens in the form of this server's cause a limited number of look-ups, and do not affect valid tokens", async () => {
  let remaining = 20;
  const limit = async ({ key }: { key: string }) => ({
    success: !key.startsWith("address:") || (remaining -= 1) >= 0,
  });
  const reads = vi.fn<() => void>();
  const app = oauthApp({ RATE_LIMITER: { limit }, OAUTH_KV: beforeCalls(env.OAUTH_KV, reads) });
  const { tokens } = await signIn(app);
  expect(await statusOf(app, tokens.access_token)).toBe(200);
  for (let index = 0; remaining > 0; index++) expect(await statusOf(app, invalidToken(index))).toBe(401);
  reads.mockClear();
  expect(await statusOf(app, invalidToken(1000))).toBe(429);
  expect(reads).not.toHaveBeenCalled();
  expect(await statusOf(app, tokens.access_token)).toBe(200);
});

it("requests to the token endpoint are limited by address, but not those of a known sign-in", async () => {
  const uses: string[] = [];
  const limit = async ({ key }: { key: string }) => ({
    success: key.startsWith("grant:") || uses.push(key) <= 3,
  });
  const app = oauthApp({ ADDRESS_LIMITER: { limit } });
  const signedIn = await signIn(oauthApp());
  expect(await statusOf(app, signedIn.tokens.access_token)).toBe(200);
  const known = new Client(app, signedIn.client.id);
  const statuses = [];
  for (let index = 0; index < 4; index++) statuses.push((await known.refresh(invalidToken(index))).status);
  expect(statuses).toEqual([400, 400, 400, 429]);
  const refreshed = await known.refresh(signedIn.tokens.refresh_token);
  expect(refreshed.status).toBe(200);
  const { access_token, refresh_token } = await refreshed.json<Tokens>();
  expect((await known.token({ token: refresh_token })).status).toBe(200);
  expect(await statusOf(app, access_token)).toBe(401);
});

it("a body that does not arrive is refused after some seconds", async () => {
  const app = oauthApp();
  vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"] });
  const statuses: number[] = [];
  for (const path of ["/oauth/token", "/oauth/register", "/authorize"]) {
    const body = new ReadableStream({ type: "bytes" });
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    void app(path, { method: "POST", headers, body }).then(({ status }) => statuses.push(status));
  }
  await vi.advanceTimersByTimeAsync(12_000);
  vi.useRealTimers();
  await expect.poll(() => statuses.toSorted()).toEqual([400, 408, 408]);
});

describe("the local server", () => {
  const { OAUTH_KV } = withExpiry({ OAUTH_KV: env.OAUTH_KV, Attempts: env.Attempts });

  it("forgets the expiry of a value that is deleted, or stored again", async () => {
    const stub = env.Attempts.getByName("expiry") as unknown as DurableObjectStub<LocalAttempts>;
    const keys = () =>
      runInDurableObject(stub, (_attempts, { storage }) =>
        [...storage.kv.list()].map(([key]) => key).filter((key) => key.includes(" registered")),
      );
    const at = 2_000_000_000;
    await OAUTH_KV?.put("registered 1", "", { expiration: at });
    await OAUTH_KV?.put("registered 1", "", { expiration: at + 1 });
    await OAUTH_KV?.put("registered 2", "", { expiration: at });
    await OAUTH_KV?.delete("registered 2");
    expect((await keys()).filter((key) => key.startsWith("expires:"))).toEqual([
      `expires:${at + 1} registered 1`,
    ]);
    await OAUTH_KV?.delete("registered 1");
    expect(await keys()).toEqual([]);
  });

  it("deletes all tokens of a revoked grant, also if a list of keys does not have them all", async () => {
    const { client: caller, tokens: first } = await signIn(oauthApp({ OAUTH_KV }));
    let tokens = first;
    for (let n = 0; n < 11; n++) tokens = await (await caller.refresh(tokens.refresh_token)).json<Tokens>();
    const prefix = `token:${tokens.access_token.split(":").slice(0, 2).join(":")}:`;
    expect(await keysOf(prefix)).toHaveLength(12);
    await caller.token({ token: tokens.refresh_token });
    expect(await keysOf(prefix)).toEqual([]);
  });
});
