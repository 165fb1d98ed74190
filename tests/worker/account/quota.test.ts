import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import * as fc from "../../setup/chance.ts";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { Lease } from "../../../src/actors/lease.ts";
import { type LeaseRequest, Quota } from "../../../src/actors/quota.ts";
import type { Reservation } from "../../../src/runs/runs.ts";
import type { Limits } from "../../../src/shared/config.ts";
import { withTestTimers } from "../test-timers.ts";

const LIMITS: Limits = {
  sandboxes: 10,
  runningSandboxes: 10,
  concurrentRuns: 10,
  runSecondsPerDay: 1000,
  modelTokensPerDay: 1000,
  storageBytes: 1_000_000,
  workspaceBytes: 1_000_000,
  checkpoints: 10,
};

let count = 0;

/** Runs the test in a new actor, which has an empty SQLite database. */
function withQuota<T>(limits: Limits, work: (quota: Quota) => Promise<T>): Promise<T> {
  const stub = env.Account.getByName(`quota-${count++}-${crypto.randomUUID()}`);
  return runInDurableObject(stub, (_instance, { storage }) =>
    withTestTimers(() => work(new Quota(storage.sql, limits))),
  );
}

/** The lease of a sandbox whose account has this quota, and the number of its requests to the account. */
function oneSandbox(quota: Quota, spent = 0) {
  let requests = 0;
  const lease = new Lease({
    limits: LIMITS,
    background: () => undefined,
    onSettled: () => undefined,
    request: async (request) => {
      requests++;
      return quota.lease("one", request, Date.now());
    },
  });
  lease.inherit(spent);
  return { lease, requests: () => requests };
}

describe("a lease of the quota", () => {
  /** The refusal of a run of one second in another sandbox of the principal, if any. */
  function refusedOther(quota: Quota) {
    const none = { slots: 0, seconds: 0 };
    const one = { slots: 1, seconds: 1 };
    const request = { turn: 1, spent: new Map(), inUse: none, spare: none, needed: one, wanted: one };
    return quota.lease("other", request, Date.now()).refused;
  }

  beforeEach(() => {
    vi.useFakeTimers({ now: Date.UTC(2026, 0, 15, 12) });
  });

  test("runs of an earlier actor stay counted while they run", async () => {
    await withQuota({ ...LIMITS, concurrentRuns: 1 }, async (quota) => {
      const { lease } = oneSandbox(quota);
      const reservation = lease.takeUnchecked(3600);
      for (let minutes = 0; minutes < 30; minutes++) {
        await vi.advanceTimersByTimeAsync(60_000);
        expect(refusedOther(quota)?.limit).toBe("concurrentRuns");
      }
      lease.giveBack(reservation, 1800);
    });
  });

  test("a lease from before the clock was set back does not count until its end", async () => {
    await withQuota({ ...LIMITS, concurrentRuns: 1 }, async (quota) => {
      const { lease } = oneSandbox(quota);
      await lease.take(1);
      expect(refusedOther(quota)?.limit).toBe("concurrentRuns");
      vi.setSystemTime(Date.now() - 24 * 3_600_000);
      expect(refusedOther(quota)).toBeUndefined();
    });
  });

  test("used seconds are reported before the lease ends, although nothing runs any more", async () => {
    await withQuota(LIMITS, async (quota) => {
      const { lease } = oneSandbox(quota);
      lease.giveBack(await lease.take(100), 60);
      expect(quota.secondsUsed(Date.now())).toBe(0);
      await vi.advanceTimersByTimeAsync(5 * 60_000);
      expect(quota.secondsUsed(Date.now())).toBe(60);
    });
  });

  test("seconds of a run that began just before an unused lease ended are reported", async () => {
    await withQuota({ ...LIMITS, concurrentRuns: 20, runSecondsPerDay: 10_000 }, async (quota) => {
      const { lease } = oneSandbox(quota);
      lease.giveBack(await lease.take(100), 1);
      // The lease of five minutes has been renewed once, to report that second.
      await vi.advanceTimersByTimeAsync(510_000);
      const reservation = await lease.take(500);
      await vi.advanceTimersByTimeAsync(180_000);
      lease.giveBack(reservation, 180);
      await vi.advanceTimersByTimeAsync(3_600_000);
      expect(quota.secondsUsed(Date.now())).toBe(181);
    });
  });

  test("the next actor reports the seconds that an earlier actor did not report", async () => {
    await withQuota(LIMITS, async (quota) => {
      oneSandbox(quota, 60);
      await vi.advanceTimersByTimeAsync(1000);
      expect(quota.secondsUsed(Date.now())).toBe(60);
    });
  });

  test("a run over midnight stays counted, and causes no endless requests", async () => {
    vi.setSystemTime(Date.UTC(2026, 0, 15, 23, 59, 5));
    await withQuota({ ...LIMITS, concurrentRuns: 1 }, async (quota) => {
      const { lease, requests } = oneSandbox(quota);
      await lease.take(300);
      for (let quarter = 0; quarter < 480; quarter++) {
        await vi.advanceTimersByTimeAsync(250);
        expect(refusedOther(quota)?.limit).toBe("concurrentRuns");
      }
      expect(requests()).toBeLessThan(5);
    });
  });

  test("seconds count on the day they ran, even if they are reported later", async () => {
    vi.setSystemTime(Date.UTC(2026, 0, 15, 20));
    await withQuota({ ...LIMITS, runSecondsPerDay: 86_400 }, async (quota) => {
      const { lease } = oneSandbox(quota);
      const reservation = await lease.take(20_000);
      await vi.advanceTimersByTimeAsync(3.5 * 3_600_000);
      lease.giveBack(await lease.take(100), 60);
      await vi.advanceTimersByTimeAsync(40 * 60_000);
      lease.giveBack(reservation, 15_000);
      await vi.advanceTimersByTimeAsync(6 * 60_000);
      expect(quota.secondsUsed(Date.now())).toBe(600);
      expect(quota.secondsUsed(Date.UTC(2026, 0, 15))).toBe(14_460);
    });
  });

  test("a failed renewal is retried", async () => {
    await withQuota(LIMITS, async (quota) => {
      let fails = 0;
      const lease = new Lease({
        limits: LIMITS,
        background: () => undefined,
        onSettled: () => undefined,
        request: async (request) => {
          if (fails-- > 0) throw new Error("the account cannot be reached");
          return quota.lease("one", request, Date.now());
        },
      });
      lease.giveBack(await lease.take(100), 60);
      fails = 2;
      await vi.advanceTimersByTimeAsync(5 * 60_000);
      expect(quota.secondsUsed(Date.now())).toBe(60);
    });
  });

  test("the counted seconds are those of all runs, and no limit is exceeded, after any operations and restarts of actors", async () => {
    const NAMES = ["a", "b", "c"] as const;
    const name = fc.constantFrom(...NAMES);
    const stepOf = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          do: fc.constant("take" as const),
          name,
          seconds: fc.integer({ min: 1, max: 400 }),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({ do: fc.constant("end" as const), pick: fc.nat(), spent: fc.nat(500) }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.nat(400_000) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const), name }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("release" as const), name }) },
    );
    const limits = { ...LIMITS, concurrentRuns: 4 };
    const simulate = async (
      sql: SqlStorage,
      steps: (typeof stepOf extends fc.Arbitrary<infer Step> ? Step : never)[],
    ) => {
      sql.exec("DELETE FROM leases; DELETE FROM usage;");
      const quota = new Quota(sql, limits);
      vi.useFakeTimers({ now: Date.UTC(2026, 0, 15, 12) });
      /** The seconds that each actor's runs have spent since its last settlement, which the next actor inherits. */
      const unsettled = new Map<string, number>();
      const leases = new Map<string, Lease>();
      const lend = async (sandbox: string, request: LeaseRequest) => {
        const grant = quota.lease(sandbox, request, Date.now());
        if (!grant.refused) return grant;
        for (const holder of quota.leaseHolders(sandbox)) {
          const settlement = leases.get(holder)?.settle();
          if (settlement) quota.settle(holder, settlement);
        }
        return quota.lease(sandbox, { ...request, spent: new Map() }, Date.now());
      };
      const make = (sandbox: string) => {
        const lease: Lease = new Lease({
          limits,
          background: () => undefined,
          onSettled: () => leases.get(sandbox) === lease && unsettled.set(sandbox, 0),
          // The timers of an earlier actor have no effect.
          request: (request) =>
            leases.get(sandbox) === lease ? lend(sandbox, request) : new Promise(() => undefined),
        });
        leases.set(sandbox, lease);
        return lease;
      };
      for (const sandbox of NAMES) make(sandbox);
      let runs: { sandbox: string; reservation: Reservation }[] = [];
      let spentSeconds = 0;
      for (const step of steps) {
        if (step.do === "take") {
          const reservation = await leases
            .get(step.name)
            ?.take(step.seconds)
            .catch(() => undefined);
          if (reservation) runs.push({ sandbox: step.name, reservation });
        } else if (step.do === "end") {
          const run = runs[step.pick % (runs.length || 1)];
          if (!run) continue;
          runs = runs.filter((each) => each !== run);
          leases.get(run.sandbox)?.giveBack(run.reservation, step.spent);
          const spent = Math.min(step.spent, run.reservation.seconds);
          unsettled.set(run.sandbox, (unsettled.get(run.sandbox) ?? 0) + spent);
          spentSeconds += spent;
        } else if (step.do === "wait") await vi.advanceTimersByTimeAsync(step.ms);
        else if (step.do === "restart") {
          const lease = make(step.name);
          lease.inherit(unsettled.get(step.name) ?? 0);
          for (const { sandbox, reservation } of runs)
            if (sandbox === step.name) lease.takeUnchecked(reservation.seconds);
          // Its first request to the account is sent at once.
          await vi.advanceTimersByTimeAsync(1);
        } else {
          const settlement = await leases.get(step.name)?.release();
          if (settlement) quota.settle(step.name, settlement);
        }
        const reserved = runs.reduce((sum, { reservation }) => sum + reservation.seconds, 0);
        if (runs.length > limits.concurrentRuns || spentSeconds + reserved > limits.runSecondsPerDay)
          return false;
      }
      for (const [sandbox, lease] of leases) quota.settle(sandbox, await lease.release());
      const isRight = quota.secondsUsed(Date.now()) === spentSeconds;
      vi.useRealTimers();
      return isRight;
    };
    // fast-check needs the real timers between two runs.
    vi.useRealTimers();
    const stub = env.Account.getByName(crypto.randomUUID());
    const counterexample = await runInDurableObject(stub, async (_instance, { storage: { sql } }) => {
      const property = fc.asyncProperty(fc.array(stepOf, { minLength: 5, maxLength: 50 }), (steps) =>
        withTestTimers(() => simulate(sql, steps)),
      );
      return (await fc.check(property, { numRuns: 60 })).counterexample;
    });
    expect(counterexample).toBeNull();
  });
});
