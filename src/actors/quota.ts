/**
 * A principal's quota. The `Account` stores it and lends parts of it to sandboxes.
 *
 * A lease holds run slots and seconds. A sandbox spends its lease without asking, so that most runs cost no request to
 * the account. Lent quota counts as used, so limits hold exactly even if many sandboxes start runs at once.
 */

import { Rows } from "../storage/rows.ts";
import type { Limits } from "../shared/config.ts";
import { DAY_MS, dayOf, type UsedByDay } from "../shared/days.ts";

export type Holding = { slots: number; seconds: number };

/** A sandbox's report: the seconds that its runs have spent, and the quota that its runs use now. */
export interface Settlement {
  /** The number of this settlement of the sandbox. A late settlement must not overwrite a newer one. */
  turn: number;
  spent: UsedByDay;
  inUse: Holding;
}

export interface LeaseRequest extends Settlement {
  /** The least that is needed in addition to `inUse`. If less is free, the account refuses the request. */
  needed: Holding;
  /** The most that the run can use, in addition to `inUse`. */
  wanted: Holding;
  /** More quota for the next runs, so that they need no request. */
  spare: Holding;
}

/** The quota that a sandbox may use in total, including its running runs. */
export interface Grant extends Holding {
  /** Until when the grant may be spent without a new request, in milliseconds since the epoch. */
  until: number;
  refused?: { limit: Exclude<keyof Limits, "storageBytes">; allowed: number; used: number };
}

const LEASE_MS = 5 * 60_000;

/** How long a lease still counts after its end, so that the sandbox can renew it for running runs. */
const GRACE_MS = 60_000;

/** How long the use of a day is kept. */
const KEPT_DAYS = 7;

type Used = "run_seconds" | "model_tokens";

export class Quota {
  readonly #rows: Rows;
  readonly #limits: Limits;

  constructor(sql: SqlStorage, limits: Limits) {
    this.#rows = new Rows(sql);
    this.#limits = limits;
  }

  /** Takes back unused quota. Spent seconds count even if the settlement is outdated. */
  settle(sandbox: string, { turn, spent, inUse }: Settlement): void {
    this.#count("run_seconds", spent);
    this.#rows.write(
      "UPDATE leases SET slots = ?, seconds = ?, turn = ? WHERE sandbox = ? AND turn < ?",
      inUse.slots,
      inUse.seconds,
      turn,
      sandbox,
      turn,
    );
  }

  /** Counts the quota that a sandbox has spent, and lends the quota it needs. `refused` names the limit if too little is free. */
  lease(sandbox: string, { turn, spent, inUse, needed, wanted, spare }: LeaseRequest, now: number): Grant {
    const day = dayOf(now);
    this.#count("run_seconds", spent);
    // No lease ends later than LEASE_MS from now, unless the clock was set back.
    this.#rows.write(
      "DELETE FROM leases WHERE sandbox = ? OR until NOT BETWEEN ? AND ?",
      sandbox,
      now - GRACE_MS,
      now + LEASE_MS + GRACE_MS,
    );
    const leased = this.#rows.one<Holding>(
      "SELECT coalesce(sum(slots), 0) AS slots, coalesce(sum(seconds), 0) AS seconds FROM leases",
    );
    const used = this.secondsUsed(now);
    const { concurrentRuns, runSecondsPerDay } = this.#limits;
    const free = {
      slots: concurrentRuns - leased.slots - inUse.slots,
      seconds: runSecondsPerDay - used - leased.seconds - inUse.seconds,
    };
    const until = Math.min(now + LEASE_MS, (day + 1) * DAY_MS);
    let extra: Holding = { slots: 0, seconds: 0 };
    let refused: Grant["refused"];
    if (free.slots < needed.slots)
      refused = { limit: "concurrentRuns", allowed: concurrentRuns, used: leased.slots + inUse.slots };
    else if (free.seconds < needed.seconds)
      refused = { limit: "runSecondsPerDay", allowed: runSecondsPerDay, used };
    else {
      // Sandboxes get spare quota only while half of each limit stays free, because a grant that is being sent cannot be revoked.
      const withSpare = { slots: wanted.slots + spare.slots, seconds: wanted.seconds + spare.seconds };
      const leavesHalf =
        free.slots - withSpare.slots >= concurrentRuns / 2 &&
        free.seconds - withSpare.seconds >= runSecondsPerDay / 2;
      const requested = leavesHalf ? withSpare : wanted;
      extra = {
        slots: Math.min(requested.slots, free.slots),
        seconds: Math.min(requested.seconds, free.seconds),
      };
    }
    // Running runs keep their quota.
    const grant = {
      slots: inUse.slots + extra.slots,
      seconds: inUse.seconds + extra.seconds,
      until,
      refused,
    };
    this.#rows.write(
      "INSERT INTO leases VALUES (?, ?, ?, ?, ?)",
      sandbox,
      grant.slots,
      grant.seconds,
      until,
      turn,
    );
    return grant;
  }

  leaseHolders(except: string): string[] {
    const query = "SELECT sandbox FROM leases WHERE sandbox <> ? AND slots + seconds > 0";
    return this.#rows.all<{ sandbox: string }>(query, except).map(({ sandbox }) => sandbox);
  }

  secondsUsed(now: number): number {
    return this.#usedOnDay("run_seconds", now);
  }

  spendModelTokens(spent: UsedByDay): void {
    this.#count("model_tokens", spent);
  }

  modelTokensUsed(now: number): number {
    return this.#usedOnDay("model_tokens", now);
  }

  #usedOnDay(column: Used, now: number): number {
    const query = `SELECT ${column} AS used FROM usage WHERE day = ?`;
    return this.#rows.all<{ used: number }>(query, dayOf(now))[0]?.used ?? 0;
  }

  #count(column: Used, spent: UsedByDay): void {
    for (const [day, used] of spent)
      this.#rows.write(
        `INSERT INTO usage (day, ${column}) VALUES (?1, ?2) ON CONFLICT (day) DO UPDATE SET ${column} = ${column} + ?2`,
        day,
        used,
      );
    if (spent.size > 0)
      this.#rows.write("DELETE FROM usage WHERE day < ?", Math.max(...spent.keys()) - KEPT_DAYS);
  }
}
