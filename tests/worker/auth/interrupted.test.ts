/** Clients and browsers that disconnect while the server registers them or signs them out. */
import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import { type Attempts, registrationsOf } from "../../../src/actors/attempts.ts";
import { sleep, until } from "../support.ts";
import { Browser } from "./support.ts";

/** The Worker, called from outside, so that the runtime ends a request when its client disconnects. */
const { default: worker } = exports as { default: Fetcher };

/** Only clients of this test have it. */
const REDIRECT = "https://interrupted.example/callback";
const REGISTRATION = JSON.stringify({ redirect_uris: [REDIRECT] });

async function storedClients(): Promise<string[]> {
  const { keys } = await env.OAUTH_KV.list({ prefix: "client:" });
  const isOwn = async ({ name }: { name: string }) => (await env.OAUTH_KV.get(name))?.includes(REDIRECT);
  const own = await Promise.all(keys.map(async (key) => ((await isOwn(key)) ? [key] : [])));
  return own.flat().map(({ name }) => name.slice("client:".length));
}

async function countedClients(): Promise<string[]> {
  const stub = registrationsOf(env) as DurableObjectStub<Attempts>;
  return runInDurableObject(stub, (_attempts, { storage }) =>
    storage.sql
      .exec<{ client: string }>("SELECT client FROM unapproved")
      .toArray()
      .map(({ client }) => client),
  );
}

it("registrations count even if their clients disconnect", async () => {
  let interrupted = 0;
  for (let ms = 1; ms <= 40; ms++) {
    const request = new Request("http://localhost/oauth/register", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: REGISTRATION,
      signal: AbortSignal.timeout(ms),
    });
    await worker.fetch(request).catch(() => interrupted++);
  }
  expect(interrupted).toBeGreaterThan(0);
  await sleep(500);
  await until(async () => {
    const stored = await storedClients();
    const counted = new Set(await countedClients());
    return stored.length > 0 && stored.every((client) => counted.has(client));
  });
});

/** How many keys of a panel session are stored: two for its grant and its token. */
async function storedKeys(session: string): Promise<number> {
  const [user = "", grant = ""] = session.split(":");
  const { keys } = await env.OAUTH_KV.list({ prefix: `token:${user}:${grant}:` });
  return keys.length + ((await env.OAUTH_KV.get(`grant:${user}:${grant}`)) === null ? 0 : 1);
}

it("a sign-out of the panel completes even if the browser disconnects", async () => {
  const origin = "http://localhost";
  const app = (url: string, init?: RequestInit) => worker.fetch(new Request(url, init));
  let interrupted = 0;
  // A busy machine may receive a request only after its time.
  for (let ms = 1; ms <= 12 || (interrupted === 0 && ms <= 100); ms++) {
    const browser = new Browser(app);
    const { location: consentURL } = await browser.open(`${origin}/panel/sign-in`);
    const consent = await browser.open(consentURL?.href ?? "");
    const fields = { decision: "owner", token: env.SERVER_AUTH_TOKEN };
    const { location } = await browser.submit(consent, fields);
    await browser.open(location?.href ?? "");
    const [[name, session] = ["", ""]] = browser.cookies;
    expect(await storedKeys(session)).toBe(2);
    const request = new Request(`${origin}/panel/sign-out`, {
      method: "POST",
      headers: { origin, cookie: `${name}=${session}` },
      signal: AbortSignal.timeout(ms),
    });
    const response = await worker.fetch(request).catch(() => undefined);
    expect([undefined, 204]).toContain(response?.status);
    await sleep(response ? 0 : 200);
    // A request that was interrupted before it arrived has signed nothing out.
    const stored = await until(async () => {
      const count = await storedKeys(session);
      return count === 1 ? undefined : { count };
    });
    if (!response && stored.count === 0) interrupted++;
  }
  expect(interrupted).toBeGreaterThan(0);
});
