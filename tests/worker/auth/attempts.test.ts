/** Guessing the owner's token: what it costs the attacker, and what it costs the owner. */
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { addressOf, type Attempts } from "../../../src/actors/attempts.ts";
import { ORIGIN, post, TOKEN, recordEachLog } from "../server/support.ts";
import { Browser, Client, oauthApp, type Page } from "./support.ts";

const logs = recordEachLog();

const HOUR = 3_600_000;
const NOW = 1_800_000_000_000;

let counters = 0;

function attempts(): DurableObjectStub<Attempts> {
  const namespace = env.Attempts as DurableObjectNamespace<Attempts>;
  return namespace.getByName(`test-${(counters += 1)}`);
}

/** Makes 100 guesses, each from another address. Returns the wait of each. */
function flood(counter: DurableObjectStub<Attempts>, now: number): Promise<number[]> {
  return Promise.all(Array.from({ length: 100 }, (_, index) => counter.take(`flood-${index}`, now)));
}

it("revocations of grants are remembered for an hour, and forgotten later", async () => {
  const grants = attempts();
  await grants.noteRevoked("grant:a:1", NOW);
  await grants.noteRevoked("grant:a:2", NOW + HOUR - 1);
  expect(await grants.isRevoked("grant:a:1")).toBe(true);
  expect(await grants.isRevoked("grant:a:3")).toBe(false);
  await grants.noteRevoked("grant:a:3", NOW + HOUR);
  const remembered = ["grant:a:1", "grant:a:2", "grant:a:3"].map((grant) => grants.isRevoked(grant));
  expect(await Promise.all(remembered)).toEqual([false, true, true]);
});

describe("the counter of one address", () => {
  it("allows five wrong tokens, then doubles the wait after each, up to 15 minutes", async () => {
    const counter = attempts();
    let now = NOW;
    for (let guess = 0; guess < 5; guess += 1) expect(await counter.take("a", now)).toBe(0);
    const waits: number[] = [];
    for (let guess = 0; guess < 8; guess += 1) {
      const wait = await counter.take("a", now);
      waits.push(wait);
      now += wait * 1000;
      expect(await counter.take("a", now)).toBe(0);
    }
    expect(waits).toEqual([30, 60, 120, 240, 480, 900, 900, 900]);
  });

  it("does not extend the wait for guesses during the wait", async () => {
    const counter = attempts();
    for (let guess = 0; guess < 5; guess += 1) await counter.take("a", NOW);
    for (let second = 0; second < 30; second += 1) {
      expect(await counter.take("a", NOW + second * 1000)).toBe(30 - second);
    }
    expect(await counter.take("a", NOW + 30_000)).toBe(0);
  });

  it("starts again after the correct token, and after an hour without a guess", async () => {
    const counter = attempts();
    for (let guess = 0; guess < 5; guess += 1) await counter.take("a", NOW);
    await counter.succeeded("a", NOW);
    for (let guess = 0; guess < 5; guess += 1) expect(await counter.take("a", NOW)).toBe(0);
    expect(await counter.take("a", NOW)).toBe(30);
    for (let guess = 0; guess < 5; guess += 1) expect(await counter.take("a", NOW + HOUR)).toBe(0);
  });

  it("delays nobody for longer after the clock was set back", async () => {
    const counter = attempts();
    expect(await counter.take("a", NOW + 24 * HOUR)).toBe(0);
    await counter.succeeded("a", NOW + 24 * HOUR);
    expect(await counter.take("a", NOW)).toBe(0);
    await flood(counter, NOW + 24 * HOUR);
    expect(await counter.take("b", NOW)).toBe(36);
    expect(await counter.take("b", NOW + 36_000)).toBe(0);
  });

  it("lets strangers guess at once after one guess and a clock that was set back", async () => {
    const counter = attempts();
    expect(await counter.take("a", NOW + 365 * 24 * HOUR)).toBe(0);
    const waits = await flood(counter, NOW);
    expect(waits.filter((wait) => wait === 0)).toHaveLength(99);
  });

  it("does not delay another address", async () => {
    const counter = attempts();
    for (let guess = 0; guess < 6; guess += 1) await counter.take("a", NOW);
    expect(await counter.take("a", NOW)).toBeGreaterThan(0);
    expect(await counter.take("b", NOW)).toBe(0);
  });

  it("allows no additional guesses if they arrive in parallel", async () => {
    const counter = attempts();
    const waits = await Promise.all(Array.from({ length: 50 }, () => counter.take("a", NOW)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(5);
  });
});

describe("the guesses of many addresses", () => {
  it("are limited to 100 together, and one more every 36 seconds", async () => {
    const counter = attempts();
    const waits = await flood(counter, NOW);
    expect(waits.every((wait) => wait === 0)).toBe(true);
    let allowed = 0;
    for (let second = 9; second <= 900; second += 9) {
      if ((await counter.take(`more-${second}`, NOW + second * 1000)) === 0) allowed += 1;
    }
    expect(allowed).toBe(25);
    expect((await flood(counter, NOW + 2 * HOUR)).every((wait) => wait === 0)).toBe(true);
  });

  it("delay a new address by at most 36 seconds after they stop", async () => {
    const counter = attempts();
    await flood(counter, NOW);
    await flood(counter, NOW);
    expect(await counter.take("new", NOW)).toBe(36);
    expect(await counter.take("new", NOW + 35_000)).toBe(1);
    expect(await counter.take("new", NOW + 36_000)).toBe(0);
  });

  it("do not delay the owner at an address that signed in before", async () => {
    const counter = attempts();
    await counter.take("home", NOW);
    await counter.succeeded("home", NOW);
    for (let hour = 1; hour <= 2; hour += 1) {
      await flood(counter, NOW + hour * HOUR);
      expect(await counter.take("new", NOW + hour * HOUR)).toBeGreaterThan(0);
      expect(await counter.take("home", NOW + hour * HOUR)).toBe(0);
      await counter.succeeded("home", NOW + hour * HOUR);
    }
  });

  it("delay an address again if its last sign-in was 31 days ago", async () => {
    const counter = attempts();
    await counter.take("home", NOW);
    await counter.succeeded("home", NOW);
    await flood(counter, NOW + 31 * 24 * HOUR);
    expect(await counter.take("home", NOW + 31 * 24 * HOUR)).toBeGreaterThan(0);
  });
});

describe("the address of a request", () => {
  it.each([
    ["203.0.113.9", "203.0.113.9"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0DB8:0001:0002::1", "2001:db8:1:2::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["2001:db8::b:c:d:e:f", "2001:db8:0:b::/64"],
    ["::ffff:203.0.113.9", "203.0.113.9"],
    [undefined, "local"],
    // The limiters keep addresses in memory, so long ones count as one.
    ["1".repeat(46), "invalid"],
    [`${"1".repeat(46)}::1`, "invalid"],
  ])("with the header %s is counted as %s", (header, address) => {
    const headers = new Headers(header === undefined ? [] : [["cf-connecting-ip", header]]);
    expect(addressOf(new Request(ORIGIN, { headers }))).toBe(address);
  });
});

describe("the sign-in page", () => {
  it("counts guesses, then refuses every token, also the correct one, with the time to wait", async () => {
    const app = oauthApp();
    const browser = new Browser(app);
    let page: Page = await browser.open(await (await Client.register(app)).authorizationURL());
    for (let guess = 0; guess < 5; guess += 1) {
      page = await browser.submit(page, { decision: "owner", token: `guess-${guess}` });
      expect(page.status).toBe(403);
      expect(page.text).toContain("This is not the server&#39;s token");
    }
    page = await browser.submit(page, { decision: "owner", token: TOKEN });
    expect(page.status).toBe(429);
    expect(page.response.headers.get("retry-after")).toBe("30");
    expect(page.text).toContain("Too many wrong tokens. Wait 30 seconds");
    const wrongTokens = Array.from({ length: 5 }, () => "wrong_token");
    expect(logs.entries().map(({ reason }) => reason)).toEqual([...wrongTokens, "too_many_attempts"]);
    expect(logs.entries().every(({ level }) => level === "warn")).toBe(true);
    expect(logs.text()).not.toMatch(/guess-|server-token/);
    // The owner can still use the token in a header.
    expect((await app("/mcp", post({ jsonrpc: "2.0", id: 1, method: "tools/list" }))).status).toBe(200);
  });

  it("compares the token in constant time", async () => {
    const compare = vi.spyOn(crypto.subtle, "timingSafeEqual");
    const app = oauthApp();
    const browser = new Browser(app);
    let page = await browser.open(await (await Client.register(app)).authorizationURL());
    for (const token of ["", "wrong", TOKEN]) {
      compare.mockClear();
      page = await browser.submit(page, { decision: "owner", token });
      expect(compare).toHaveBeenCalledTimes(1);
    }
    expect(page.status).toBe(303);
    // From here on `compare` returns wrong results. The server follows them, which shows that it compares in no other way.
    page = await browser.open(await (await Client.register(app)).authorizationURL());
    compare.mockReturnValueOnce(false);
    page = await browser.submit(page, { decision: "owner", token: TOKEN });
    expect(page.status).toBe(403);
    compare.mockReturnValueOnce(true);
    expect((await browser.submit(page, { decision: "owner", token: "wrong" })).status).toBe(303);
  });
});
