import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { Lease } from "../../../src/sandbox/lease.ts";
import { type Grant, type Limits, Quota } from "../../../src/sandbox/quota.ts";

const LIMITS: Limits = { sandboxes: 10, concurrentRuns: 10, runSecondsPerDay: 1000 };

/** Sandboxes of one principal, with the account's side in the same process: what crosses is as asynchronous as RPC. */
class Principal {
  readonly sandboxes: Lease[];
  running = 0;
  most = 0;

  constructor(count: number, quota: Quota) {
    this.sandboxes = Array.from({ length: count }, (_, index) => {
      const name = `s${index}`;
      return new Lease({
        background: () => undefined,
        ask: async (request) => {
          await pause();
          const first = quota.lease(name, request, Date.now());
          if (!first.refused) return this.#arrive(first);
          for (const other of quota.holders(name)) {
            const settled = this.sandboxes[Number(other.slice(1))]?.settle();
            await pause();
            if (settled) quota.settle(other, settled, Date.now());
          }
          return this.#arrive(quota.lease(name, { ...request, spent: 0 }, Date.now()));
        },
      });
    });
  }

  async #arrive(grant: Grant): Promise<Grant> {
    await pause();
    return grant;
  }

  /** Answers whether the run was let in; one that was lasts until `until` settles. */
  async run(
    sandbox: number,
    seconds: number,
    until: Promise<void>,
    decided?: () => unknown,
  ): Promise<boolean> {
    const lease = this.sandboxes[sandbox];
    if (!lease) throw new Error("no such sandbox");
    let stake;
    try {
      stake = await lease.take(seconds);
    } catch {
      decided?.();
      return false;
    }
    decided?.();
    this.running++;
    this.most = Math.max(this.most, this.running);
    await until;
    this.running--;
    lease.give(stake, 1);
    return true;
  }
}

function pause(ms = Math.random() * 3): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

let count = 0;

/** Runs in a fresh object, for its SQLite. */
function withQuota<T>(limits: Limits, work: (quota: Quota) => Promise<T>): Promise<T> {
  const stub = env.Account.getByName(`quota-${count++}-${crypto.randomUUID()}`);
  return runInDurableObject(stub, (_instance, state) => work(new Quota(state.storage.sql, limits)));
}

test("no more runs at once than allowed, whatever the number of sandboxes", async () => {
  await withQuota(LIMITS, async (quota) => {
    const principal = new Principal(20, quota);
    const { promise: end, resolve } = Promise.withResolvers<void>();
    let open = 100;
    const decided = () => --open === 0 && resolve();
    const letIn = await Promise.all(
      Array.from({ length: 100 }, (_, index) => principal.run(index % 20, 5, end, decided)),
    );
    expect(principal.most).toBe(LIMITS.concurrentRuns);
    expect(letIn.filter(Boolean)).toHaveLength(LIMITS.concurrentRuns);
  });
});

test("slots that other sandboxes hold without use are called back", async () => {
  await withQuota(LIMITS, async (quota) => {
    const principal = new Principal(10, quota);
    for (let sandbox = 0; sandbox < 10; sandbox++)
      expect(await principal.run(sandbox, 5, pause())).toBe(true);
    const letIn = await Promise.all(Array.from({ length: 10 }, () => principal.run(9, 5, pause(100))));
    expect(letIn).toEqual(Array.from({ length: 10 }, () => true));
  });
});

test("no more seconds a day than allowed, and what a run did not use comes back", async () => {
  await withQuota({ ...LIMITS, runSecondsPerDay: 100 }, async (quota) => {
    const principal = new Principal(4, quota);
    // Each run reserves 40 of the 100 seconds and uses one.
    for (let run = 0; run < 20; run++) expect(await principal.run(run % 4, 40, pause())).toBe(true);
    for (const [index, lease] of principal.sandboxes.entries())
      quota.settle(`s${index}`, lease.settle(), Date.now());
    expect(quota.secondsUsed(Date.now())).toBe(20);
    const reserved = await Promise.all(
      principal.sandboxes.map((lease) =>
        lease.take(30).then(
          ({ seconds }) => seconds,
          () => 0,
        ),
      ),
    );
    expect(reserved.reduce((sum, seconds) => sum + seconds, 0)).toBe(80);
  });
});

test("a run that an earlier actor started counts", async () => {
  await withQuota({ ...LIMITS, concurrentRuns: 1 }, async (quota) => {
    const { sandboxes } = new Principal(2, quota);
    const [first, second] = sandboxes;
    first?.hold(10);
    await expect(first?.take(5)).rejects.toMatchObject({ code: "quota_exceeded" });
    await expect(second?.take(5)).rejects.toMatchObject({ code: "quota_exceeded" });
  });
});

test("the refusal says what is used and how to free it", async () => {
  await withQuota({ ...LIMITS, concurrentRuns: 2 }, async (quota) => {
    const [lease] = new Principal(1, quota).sandboxes;
    await lease?.take(5);
    await lease?.take(5);
    await expect(lease?.take(5)).rejects.toMatchObject({
      message: "You have 2 runs at work, and 2 at a time is your limit.",
      hint: expect.stringContaining("cancel_run"),
    });
  });
});
