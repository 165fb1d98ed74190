/** Clients that disconnect while the server registers them. */
import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import { type Attempts, registrationsOf } from "../../../src/actors/attempts.ts";
import { sleep, until } from "../support.ts";

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
    await (exports as { default: Fetcher }).default.fetch(request).catch(() => interrupted++);
  }
  expect(interrupted).toBeGreaterThan(0);
  await sleep(500);
  await until(async () => {
    const stored = await storedClients();
    const counted = new Set(await countedClients());
    return stored.length > 0 && stored.every((client) => counted.has(client));
  }, 20_000);
});
