/** How much callers without a valid token can make the server write, read and store. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { type Attempts as LocalAttempts, withExpiry } from "../../../local/platform/expiry.ts";
import { interceptStore } from "../../../src/auth/oauth-store.ts";
import { MAX_UNAPPROVED } from "../../../src/actors/attempts.ts";
import { PROCESS_ADDRESS_LIMITER, ProcessLimiter } from "../../../src/shared/limits.ts";
import { beforeCalls } from "../../setup/before-calls.ts";
import { recordEachLog } from "../server/support.ts";
import { approve, Client, oauthApp, ORIGIN, register, signIn, statusOf, type Tokens } from "./support.ts";

recordEachLog();

async function clients(): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await env.OAUTH_KV.list({ prefix: "client:", cursor });
    found.push(...page.keys.map(({ name }) => name.slice("client:".length)));
    if (page.list_complete) return found;
    cursor = page.cursor;
  }
}

describe("registered clients", () => {
  it("are limited in number while unapproved, and remain once approved", async () => {
    const app = oauthApp();
    const approved = await Client.register(app);
    await approve(approved);
    const first = await Client.register(app);
    const statuses = await Promise.all(Array.from({ length: MAX_UNAPPROVED }, () => register(app, {})));
    expect(statuses.filter(({ status }) => status !== 201)).toEqual([]);
    const full = (await clients()).length;
    await register(app, {});
    const remaining = await clients();
    expect(remaining).toHaveLength(full);
    expect(remaining).toContain(approved.id);
    expect(remaining).not.toContain(first.id);
  });

  it("of an address with many others do not push out the client of another address", async () => {
    const app = oauthApp();
    const registerFrom = (address: string) => register(app, {}, ORIGIN, { "cf-connecting-ip": address });
    const { client_id: person } = await (await registerFrom("192.0.2.1")).json<{ client_id: string }>();
    const { client_id: first } = await (await registerFrom("192.0.2.2")).json<{ client_id: string }>();
    await Promise.all(Array.from({ length: MAX_UNAPPROVED }, () => registerFrom("192.0.2.2")));
    const remaining = await clients();
    expect(remaining).toContain(person);
    expect(remaining).not.toContain(first);
  });

  it("are limited to 600 registrations a minute if the binding ADDRESS_LIMITER is missing", async () => {
    // The clock stands still, so all requests are in one minute. No other file sends requests in that minute.
    vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"], now: Date.now() + 3_600_000 });
    const app = oauthApp({ ADDRESS_LIMITER: undefined });
    const registering = Promise.all(
      Array.from({ length: 601 }, () => register(app, { redirect_uris: "none" })),
    );
    await vi.advanceTimersByTimeAsync(20_000);
    const responses = await registering;
    expect(responses.map(({ status }) => status).toSorted()).toEqual([...Array<number>(600).fill(400), 429]);
  });
});

it("many addresses do not use up the limit of other addresses", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 7_200_000 });
  const limiter = new ProcessLimiter(2);
  const uses = async (key: string, times: number) => {
    const results = await Promise.all(Array.from({ length: times }, () => limiter.limit({ key })));
    return results.filter(({ success }) => success).length;
  };
  for (let address = 0; address < 10_005; address++) expect(await uses(`attacker ${address}`, 1)).toBe(1);
  expect(await uses("somebody", 3)).toBe(2);
  expect(await uses("somebody else", 3)).toBe(2);
});

/** Allows this number of requests for each key. */
function limiterFor(most: number): RateLimit {
  const counts = new Map<string, number>();
  return {
    limit: async ({ key }) => {
      const count = (counts.get(key) ?? 0) + 1;
      counts.set(key, count);
      return { success: count <= most };
    },
  };
}

describe("invalid tokens in the form of this server's tokens", () => {
  const tokenOf = (index: number) => `owner:${String(index).padStart(16, "g")}:${"s".repeat(32)}`;

  it("cause a limited number of look-ups for each address, and do not affect valid tokens", async () => {
    let remaining = 20;
    const limit = async ({ key }: { key: string }) => ({
      success: !key.startsWith("address:") || (remaining -= 1) >= 0,
    });
    const reads = vi.fn<() => void>();
    const OAUTH_KV = beforeCalls(env.OAUTH_KV, reads);
    const app = oauthApp({ RATE_LIMITER: { limit }, OAUTH_KV });
    const { tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    for (let index = 0; remaining > 0; index++) expect(await statusOf(app, tokenOf(index))).toBe(401);
    reads.mockClear();
    for (let index = 0; index < 50; index++) expect(await statusOf(app, tokenOf(1000 + index))).toBe(429);
    expect(reads).not.toHaveBeenCalled();
    expect(await statusOf(app, tokens.access_token)).toBe(200);
  });

  it("affect no sign-in that was not used for hours, or whose token has expired", async () => {
    const limit = async ({ key }: { key: string }) => ({ success: !key.startsWith("address:") });
    const app = oauthApp();
    const flooded = oauthApp({ RATE_LIMITER: { limit } });
    const { client, tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    expect(await statusOf(flooded, tokenOf(1))).toBe(429);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_000_000 });
    expect(await statusOf(flooded, tokens.access_token)).toBe(200);
    vi.setSystemTime(Date.now() + 3_600_000);
    expect(await statusOf(flooded, tokens.access_token)).toBe(401);
    const refreshed = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    expect(await statusOf(flooded, refreshed.access_token)).toBe(200);
    vi.useRealTimers();
  });

  it("affect no sign-in with a recently valid token, however many tokens another client gets", async () => {
    const limit = vi.fn<RateLimit["limit"]>(async () => ({ success: true }));
    const app = oauthApp({ RATE_LIMITER: { limit } });
    const { client, tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    const lookUps = () => limit.mock.calls.filter(([{ key }]) => key.startsWith("address:")).length;
    expect(lookUps()).toBe(0);
    // The server remembers a limited number of sign-ins. If it remembered each token, a client could use up this number.
    const refreshed = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
    expect(await statusOf(app, refreshed.access_token)).toBe(200);
    expect(lookUps()).toBe(0);
    const [user, grant] = tokens.access_token.split(":");
    const invalid = `${user}:${grant}:${"s".repeat(32)}`;
    expect(await statusOf(app, invalid)).toBe(401);
    expect(await statusOf(app, invalid)).toBe(401);
    expect(lookUps()).toBe(1);
  });
});

describe("requests of strangers to the token endpoint", () => {
  const from = (address: string) => ({ "cf-connecting-ip": address });
  const form = (fields: Record<string, string>, address: string) => ({
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", ...from(address) },
    body: new URLSearchParams(fields).toString(),
  });
  const refresh = (client: Client, token: string, address: string) =>
    form({ grant_type: "refresh_token", refresh_token: token, client_id: client.id }, address);

  it("prevent no refresh or revocation of a known sign-in at the same address", async () => {
    const ADDRESS_LIMITER = limiterFor(3);
    const { client, tokens } = await signIn(oauthApp());
    const app = oauthApp({ ADDRESS_LIMITER });
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    const statuses = [];
    for (let index = 0; index < 4; index++) {
      const garbage = `owner:${String(index).padStart(16, "g")}:${"s".repeat(32)}`;
      statuses.push((await app("/oauth/token", refresh(client, garbage, "192.0.2.9"))).status);
    }
    expect(statuses).toEqual([400, 400, 400, 429]);
    const refreshed = await app("/oauth/token", refresh(client, tokens.refresh_token, "192.0.2.9"));
    expect(refreshed.status).toBe(200);
    const { access_token, refresh_token } = await refreshed.json<Tokens>();
    // After its token has expired, a client refreshes it.
    const expired = `${access_token.slice(0, access_token.lastIndexOf(":"))}:${"s".repeat(32)}`;
    expect(await statusOf(app, expired)).toBe(401);
    const again = await app("/oauth/token", refresh(client, refresh_token, "192.0.2.9"));
    expect(again.status).toBe(200);
    const revocation = form(
      { token: (await again.json<Tokens>()).refresh_token, client_id: client.id },
      "192.0.2.9",
    );
    expect((await app("/oauth/token", revocation)).status).toBe(200);
    expect(await statusOf(app, access_token)).toBe(401);
  });

  it("of other addresses prevent no refresh of a known sign-in without the platform's limiter", async () => {
    const app = oauthApp({ ADDRESS_LIMITER: undefined, RATE_LIMITER: undefined });
    const { client, tokens } = await signIn(app);
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    const limited = vi.spyOn(PROCESS_ADDRESS_LIMITER, "limit").mockResolvedValue({ success: false });
    onTestFinished(() => limited.mockRestore());
    expect((await register(app, {}, ORIGIN, from("192.0.2.11"))).status).toBe(429);
    const refreshed = app("/oauth/token", refresh(client, tokens.refresh_token, "192.0.2.10"));
    expect((await refreshed).status).toBe(200);
  });

  it("with a known sign-in's old token prevent no refresh of its principal's other sign-ins", async () => {
    const app = oauthApp({ ADDRESS_LIMITER: undefined, RATE_LIMITER: undefined });
    const [old, other] = [await signIn(app), await signIn(app)];
    const garbage = `${old.tokens.access_token.slice(0, old.tokens.access_token.lastIndexOf(":"))}:${"s".repeat(32)}`;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const flood = Promise.all(
      Array.from({ length: 200 }, () => app("/oauth/token", refresh(old.client, garbage, "192.0.2.12"))),
    );
    const refreshed = app("/oauth/token", refresh(other.client, other.tokens.refresh_token, "192.0.2.10"));
    await vi.advanceTimersByTimeAsync(6000);
    const statuses = new Set((await flood).map(({ status }) => status));
    expect(statuses).toEqual(new Set([400, 429]));
    expect((await refreshed).status).toBe(200);
  });
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

it("the local server deletes expired values of strangers one after another, and serves others between two of them", async () => {
  const stub = env.Attempts.getByName("expired") as unknown as DurableObjectStub<LocalAttempts>;
  await runInDurableObject(stub, async (attempts, { storage }) => {
    const later = 4_000_000_000;
    const values: [key: string, expiresAt: number][] = [
      ["second", 1_000_000_001],
      ["last", later],
      ["first one", 1_000_000_000],
    ];
    for (const [key, expiresAt] of values) await attempts.deleteAt(key, expiresAt);
    await storage.deleteAlarm();
    const steps: string[] = [];
    const get = async (key: string) => {
      steps.push(key);
      setTimeout(() => steps.push("another request"), 0);
    };
    Object.defineProperty(attempts, "env", { value: { OAUTH_KV: { get } } });
    await attempts.alarm();
    expect(steps).toEqual(["first one", "another request", "second", "another request"]);
    expect(await storage.getAlarm()).toBe(later * 1000);
    await storage.deleteAll();
  });
});

it("the local server forgets the expiry of a value that is deleted, or stored again", async () => {
  const stub = env.Attempts.getByName("expiry") as unknown as DurableObjectStub<LocalAttempts>;
  const keys = () =>
    runInDurableObject(stub, (_attempts, { storage }) =>
      [...storage.kv.list()].map(([key]) => key).filter((key) => key.includes(" registered")),
    );
  const { OAUTH_KV } = withExpiry({ OAUTH_KV: env.OAUTH_KV, Attempts: env.Attempts });
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

it("the local server deletes a grant's tokens in parts, and serves others between two parts", async () => {
  let deleting = 0;
  let most = 0;
  const watched = interceptStore(env.OAUTH_KV, async (name, _key, call) => {
    if (name !== "delete") return call();
    deleting++;
    most = Math.max(most, deleting);
    return call().finally(() => deleting--);
  });
  const { OAUTH_KV } = withExpiry({ OAUTH_KV: watched, Attempts: env.Attempts });
  const client = await Client.register(oauthApp({ OAUTH_KV }));
  const response = await client.exchange((await approve(client)).code);
  let tokens = await response.json<Tokens>();
  for (let n = 0; n < 24; n++) tokens = await (await client.refresh(tokens.refresh_token)).json<Tokens>();
  const [user, grant] = tokens.access_token.split(":");
  const prefix = `token:${user}:${grant}:`;
  expect((await env.OAUTH_KV.list({ prefix })).keys).toHaveLength(25);
  await client.token({ token: tokens.refresh_token });
  expect((await env.OAUTH_KV.list({ prefix })).keys).toEqual([]);
  expect(most).toBe(10);
});
