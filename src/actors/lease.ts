/** A sandbox's side of its principal's quota: runs reserve from what the account has lent, and give it back. */
import type { Limits } from "../shared/config.ts";
import { type Grant, type Holding, type LeaseRequest, type Settlement } from "./quota.ts";
import type { RunQuota, Reservation } from "../runs/runs.ts";
import { SerialQueue } from "../shared/queue.ts";
import { type UsedByDay, byDay, dayOf } from "../shared/days.ts";
import { quotaError, secondsCutText } from "./texts.ts";

/** Asked for beyond the need, so that the next runs find enough without a request. */
const SPARE: Holding = { slots: 4, seconds: 600 };

/** A lease that ends sooner than this is renewed in the background, milliseconds. */
const RENEW_MS = 60_000;

/** When a renewal that failed is tried again, milliseconds. */
const RETRY_MS = 10_000;

export interface LeaseHost {
  request(request: LeaseRequest): Promise<Grant>;
  background(work: Promise<unknown>): void;
  /** Of the principal. */
  limits: Limits;
  /** What was spent until now is in a settlement, so that the next actor need not report it. */
  settled(): void;
}

const NO_HOLDING: Holding = { slots: 0, seconds: 0 };

const NOTHING_SPENT: UsedByDay = new Map();

export class Lease implements RunQuota {
  readonly #host: LeaseHost;
  #grant: Grant | undefined;
  #inUse = { ...NO_HOLDING };
  #spent = new Map<number, number>();
  /** Counts settlements. The clock starts it above the numbers of earlier actors of this sandbox. */
  #turn = Date.now();
  #asking = false;
  readonly #queue = new SerialQueue();
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(host: LeaseHost) {
    this.#host = host;
  }

  /** Reports seconds of today that an earlier actor did not: it was gone soon after the runs ended. */
  inherit(spent: number): void {
    if (spent <= 0) return;
    this.#spend([[dayOf(Date.now()), spent]]);
    this.#renewIn(0);
  }

  /**
   * Reserves a slot and up to so many seconds for a run.
   * @throws {ToolError} `quota_exceeded`
   */
  async take(seconds: number): Promise<Reservation> {
    const reservation = this.#reserve(seconds, seconds) ?? (await this.#borrow(seconds));
    return reservation.seconds < seconds
      ? { ...reservation, cut: this.#cut(reservation.seconds) }
      : reservation;
  }

  #borrow(seconds: number): Promise<Reservation> {
    return this.#inTurn(async () => {
      // The request before this one may have brought enough.
      const found = this.#reserve(seconds, seconds);
      if (found) return found;
      const { refused } = await this.#request({ slots: 1, seconds: 1 }, { slots: 1, seconds });
      const reservation = refused ? undefined : this.#reserve(seconds, 1);
      if (reservation) return reservation;
      throw quotaError(refused ?? { limit: "concurrentRuns", allowed: 0, used: 0 });
    });
  }

  /** A reservation for a run that an earlier actor started: it runs, whatever the account says. */
  hold(seconds: number): Reservation {
    this.#inUse.slots += 1;
    this.#inUse.seconds += seconds;
    // The account counts the run only while a lease covers it, and that of the earlier actor ends.
    if (this.#timer === null) this.#renewIn(0);
    return { seconds };
  }

  /** Gives a reservation back after its run, which took so many seconds. */
  give(reservation: Reservation, spent: number): void {
    this.#inUse.slots -= 1;
    this.#inUse.seconds -= reservation.seconds;
    this.#spend(byDay(Math.min(Math.ceil(spent), reservation.seconds), Date.now()));
  }

  #spend(spent: Iterable<[day: number, seconds: number]>): void {
    for (const [day, seconds] of spent) this.#spent.set(day, (this.#spent.get(day) ?? 0) + seconds);
  }

  /** Why a run was given only so many seconds. */
  #cut(seconds: number): string {
    const { runSecondsPerDay } = this.#host.limits;
    return secondsCutText(seconds, runSecondsPerDay);
  }

  /** Gives back what is not in use, when the account calls for it. A request that is under way has settled already. */
  settle(): Settlement {
    if (this.#asking) return { turn: this.#turn, spent: NOTHING_SPENT, inUse: { ...this.#inUse } };
    return this.#settlement();
  }

  /** Ends the lease together with its sandbox. */
  release(): Promise<Settlement> {
    return this.#inTurn(async () => this.#settlement());
  }

  #settlement(): Settlement {
    this.#host.settled();
    const settled = { turn: ++this.#turn, spent: this.#spent, inUse: { ...this.#inUse } };
    this.#spent = new Map();
    this.#grant = undefined;
    return settled;
  }

  #reserve(wanted: number, least: number): Reservation | undefined {
    const grant = this.#grant;
    if (!grant || grant.until <= Date.now()) return undefined;
    // A grant ends with its day.
    const spent = this.#spent.get(dayOf(Date.now())) ?? 0;
    const seconds = Math.min(wanted, grant.seconds - this.#inUse.seconds - spent);
    if (grant.slots - this.#inUse.slots < 1 || seconds < least) return undefined;
    return this.hold(seconds);
  }

  /** One request to the account at a time. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.run(work);
  }

  async #request(needed: Holding, wanted: Holding): Promise<Grant> {
    const settled = this.#settlement();
    this.#asking = true;
    try {
      this.#grant = await this.#host.request({ ...settled, needed, wanted, spare: SPARE });
    } catch (error) {
      this.#spend(settled.spent);
      throw error;
    } finally {
      this.#asking = false;
    }
    // A lease ends with its day. Shortly before midnight the next one would too, so it is asked for after midnight.
    const left = this.#grant.until - Date.now();
    this.#renewIn(left > RENEW_MS ? left - RENEW_MS : Math.max(left, 0) + 1000);
    return this.#grant;
  }

  #renewIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#renew(), ms);
  }

  /** Renews before the lease ends, so that the account goes on counting what runs, and counts what has run. */
  #renew(): void {
    if (this.#inUse.slots === 0 && this.#spent.size === 0) return;
    const renewal = this.#inTurn(() => this.#request(NO_HOLDING, NO_HOLDING)).catch(() =>
      this.#renewIn(RETRY_MS),
    );
    this.#host.background(renewal);
  }
}
