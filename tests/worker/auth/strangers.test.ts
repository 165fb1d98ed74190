/** What those who are let in by nobody can have the server write, read and keep. */
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MAX_UNAPPROVED } from "../../../src/actors/attempts.ts";
import { recordLogs } from "../server/support.ts";
import { approve, Client, oauthApp, register, signedIn, statusOf } from "./support.ts";

beforeEach(() => void recordLogs());
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

async function clients(): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await env.OAUTH_KV.list({ prefix: "client:", cursor });
    found.push(...page.keys.map(({ name }) => name.slice("client:".length)));
    if (page.list_complete) return found;
    cursor = page.cursor;
  }
}

describe("registrations", () => {
  it("keep a limited number of unapproved clients, and every approved one", async () => {
    const app = oauthApp();
    const kept = await Client.register(app);
    await approve(kept);
    const first = await Client.register(app);
    for (let count = 0; count < MAX_UNAPPROVED; count++) expect((await register(app, {})).status).toBe(201);
    const full = (await clients()).length;
    await register(app, {});
    const left = await clients();
    expect(left).toHaveLength(full);
    expect(left).toContain(kept.id);
    expect(left).not.toContain(first.id);
  });

  it("are as long as a client's metadata may be, and no longer", async () => {
    expect((await register(oauthApp(), { client_name: "x".repeat(16 * 1024) })).status).toBe(413);
  });

  it("are limited also without a limiter binding", async () => {
    // The limiter counts by the minute: in one that does not end, and that no other file's requests are in.
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
    const app = oauthApp({ ADDRESS_LIMITER: undefined });
    const statuses = new Set<number>();
    for (let count = 0; count < 601; count++)
      statuses.add((await register(app, { redirect_uris: "none" })).status);
    expect([...statuses]).toEqual([400, 429]);
  });
});

describe("tokens that this server could have issued", () => {
  const made = (index: number) => `owner:${String(index).padStart(16, "g")}:${"s".repeat(32)}`;

  it("cost an address a limited number of look-ups, which do not affect valid tokens", async () => {
    let left = 20;
    const limit = async ({ key }: { key: string }) => ({
      success: !key.startsWith("address:") || (left -= 1) >= 0,
    });
    const reads = vi.fn<(key: unknown) => void>();
    const OAUTH_KV = new Proxy(env.OAUTH_KV, {
      get(store, name) {
        const member: unknown = Reflect.get(store, name);
        if (typeof member !== "function") return member;
        return (...given: unknown[]) => {
          reads(given[0]);
          return Reflect.apply(member, store, given);
        };
      },
    });
    const app = oauthApp({ RATE_LIMITER: { limit }, OAUTH_KV });
    const { tokens } = await signedIn(app);
    expect(await statusOf(app, tokens.access_token)).toBe(200);
    for (let index = 0; left > 0; index++) expect(await statusOf(app, made(index))).toBe(401);
    reads.mockClear();
    for (let index = 0; index < 50; index++) expect(await statusOf(app, made(1000 + index))).toBe(429);
    expect(reads).not.toHaveBeenCalled();
    expect(await statusOf(app, tokens.access_token)).toBe(200);
  });
});
