/** Calls that wait for a person or a set-up, which may take long. Clients repeat such calls. */
import { runInDurableObject } from "cloudflare:test";
import { afterEach, expect, it, vi } from "vitest";
import { SetUp } from "../../src/actors/set-up.ts";
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

it("a call that has waited for a set-up leaves nothing in memory", async () => {
  const background = vi.fn<(work: Promise<unknown>) => void>();
  const state = { script: "sleep 60", isDone: false, lost: 0, run: "waits.1c", hasBegun: true };
  const host = {
    kv: { get: () => state },
    sandbox: () => "waits",
    workspace: { isHeld: false },
    runs: { result: () => new Promise(() => undefined) },
    background,
  };
  const setUp = new SetUp(host as unknown as ConstructorParameters<typeof SetUp>[0]);
  setUp.resume();
  const before = background.mock.calls.length;
  for (let count = 0; count < CALLS; count++)
    await expect(setUp.waitUntilDone({ ms: 5 })).rejects.toThrow("set-up of sandbox waits still runs");
  // Whatever continues in the background stays in memory until the set-up ends.
  expect(background.mock.calls.length).toBe(before);
});
