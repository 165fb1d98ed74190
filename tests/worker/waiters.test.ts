/** Calls that wait for a person. A person may take days, and clients repeat such calls. */
import { runInDurableObject } from "cloudflare:test";
import { afterEach, expect, it, vi } from "vitest";
import { accountOf, actorOf, owner } from "./support.ts";

const CALLS = 20;

afterEach(() => vi.restoreAllMocks());

/** How often the calls waited for the same promise. Each such wait stays in memory until the promise settles. */
async function repeatedWaits(call: () => Promise<unknown>): Promise<number> {
  const race = vi.spyOn(Promise, "race");
  for (let count = 0; count < CALLS; count++) await call();
  const waits = new Map<unknown, number>();
  for (const [promises] of race.mock.calls)
    for (const promise of promises) waits.set(promise, (waits.get(promise) ?? 0) + 1);
  expect(waits.size).toBeGreaterThanOrEqual(CALLS);
  return Math.max(...waits.values());
}

it("a call that has waited for a decision about the network leaves nothing in memory", async () => {
  const sandbox = "waits-for-decision";
  await owner.call("configure_sandbox", { sandbox, internet: "none" });
  const actor = await actorOf(sandbox);
  const ask = () =>
    actor.askForNetwork(
      { principalID: owner.principalID, sandbox, region: undefined },
      { internet: "full" },
      5,
    );
  expect(await repeatedWaits(ask)).toBeLessThan(CALLS / 2);
});

it("a call that has waited for a sign-in to a git host leaves nothing in memory", async () => {
  const wait = () =>
    runInDurableObject(accountOf(owner), (account) => account.gitSignedIn("git.example", Date.now(), 5));
  expect(await repeatedWaits(wait)).toBeLessThan(CALLS / 2);
});
