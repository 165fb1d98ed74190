/** A sandbox's share of its principal's quota. Runs reserve slots and seconds of the lease, and give unused ones back. */
import type { Limits } from "../shared/config.ts";
import type { Grant, Holding, LeaseRequest, Settlement } from "./quota.ts";
import type { RunQuota, Reservation } from "../runs/runs.ts";
import { SerialQueue } from "../shared/queue.ts";
import { splitByDay, dayOf } from "../shared/days.ts";
import { quotaError, secondsCutText } from "./texts.ts";

/** The quota that a request asks for in addition to the need of its run, so that the next runs need no request. */
const SPARE: Holding = { slots: 4, seconds: 600 };

/** How long before its end a lease is renewed. */
const RENEW_MS = 60_000;

/** The pause before a failed renewal is retried. */
const RETRY_MS = 10_000;

interface LeaseHost {
  request(request: LeaseRequest): Promise<Grant>;
  background(work: Promise<unknown>): void;
  limits: Limits;
  /** Called for each settlement. A settlement contains all spent seconds, so the next actor must not report them again. */
  onSettled(): void;
}

const NO_HOLDING: Holding = { slots: 0, seconds: 0 };

export class Lease implements RunQuota {
  readonly #host: LeaseHost;
  #grant: Grant | undefined;
  #inUse = { ...NO_HOLDING };
  #spent = new Map<number, number>();
  /** The number of the last settlement. It starts from the clock, so that it is above the numbers of earlier actors. */
  #turn = Date.now();
  #isRequesting = false;
  readonly #queue = new SerialQueue();
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(host: LeaseHost) {
    this.#host = host;
  }

  /** Adds seconds of today that an earlier actor spent and did not report. */
  inherit(spent: number): void {
    if (spent <= 0) return;
    this.#spend([[dayOf(Date.now()), spent]]);
    this.#renewIn(0);
  }

  async take(seconds: number): Promise<Reservation> {
    const reservation = this.#reserve(seconds, seconds) ?? (await this.#borrow(seconds));
    if (reservation.seconds === seconds) return reservation;
    const { runSecondsPerDay } = this.#host.limits;
    return { ...reservation, cut: secondsCutText(reservation.seconds, runSecondsPerDay) };
  }

  #borrow(seconds: number): Promise<Reservation> {
    return this.#queue.run(async () => {
      // The previous request may have lent enough quota.
      const lent = this.#reserve(seconds, seconds);
      if (lent) return lent;
      const { refused } = await this.#request({ slots: 1, seconds: 1 }, { slots: 1, seconds });
      const reservation = refused ? undefined : this.#reserve(seconds, 1);
      if (reservation) return reservation;
      throw quotaError(refused ?? { limit: "concurrentRuns", allowed: 0, used: 0 });
    });
  }

  takeUnchecked(seconds: number): Reservation {
    this.#inUse.slots += 1;
    this.#inUse.seconds += seconds;
    // Without a timer, this actor has no lease yet. The account counts only runs that a lease covers, so one is requested now.
    if (this.#timer === null) this.#renewIn(0);
    return { seconds };
  }

  giveBack(reservation: Reservation, spent: number): void {
    this.#inUse.slots -= 1;
    this.#inUse.seconds -= reservation.seconds;
    this.#spend(splitByDay(Math.min(Math.ceil(spent), reservation.seconds), Date.now()));
  }

  #spend(spent: Iterable<[day: number, seconds: number]>): void {
    for (const [day, seconds] of spent) this.#spent.set(day, (this.#spent.get(day) ?? 0) + seconds);
  }

  /** Gives back unused quota when the account asks. A request under way has settled the spent seconds already. */
  settle(): Settlement {
    if (this.#isRequesting) return { turn: this.#turn, spent: new Map(), inUse: { ...this.#inUse } };
    return this.#settlement();
  }

  release(): Promise<Settlement> {
    return this.#queue.run(async () => this.#settlement());
  }

  #settlement(): Settlement {
    this.#host.onSettled();
    const settled = { turn: ++this.#turn, spent: this.#spent, inUse: { ...this.#inUse } };
    this.#spent = new Map();
    this.#grant = undefined;
    return settled;
  }

  #reserve(wanted: number, least: number): Reservation | undefined {
    const grant = this.#grant;
    if (!grant || grant.until <= Date.now()) return undefined;
    // A grant is valid for one calendar day, so only seconds of today count.
    const spent = this.#spent.get(dayOf(Date.now())) ?? 0;
    const seconds = Math.min(wanted, grant.seconds - this.#inUse.seconds - spent);
    if (grant.slots - this.#inUse.slots < 1 || seconds < least) return undefined;
    return this.takeUnchecked(seconds);
  }

  async #request(needed: Holding, wanted: Holding): Promise<Grant> {
    const settled = this.#settlement();
    this.#isRequesting = true;
    try {
      this.#grant = await this.#host.request({ ...settled, needed, wanted, spare: SPARE });
    } catch (error) {
      this.#spend(settled.spent);
      throw error;
    } finally {
      this.#isRequesting = false;
    }
    // Every lease ends at midnight (UTC) at the latest. If a new lease is shorter than RENEW_MS, it ends at midnight. The next
    // renewal follows after midnight, because a lease that is renewed before midnight would end at midnight too.
    const left = this.#grant.until - Date.now();
    this.#renewIn(left > RENEW_MS ? left - RENEW_MS : Math.max(left, 0) + 1000);
    return this.#grant;
  }

  #renewIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#renew(), ms);
  }

  /** Renews before the lease ends, so that the account keeps counting running and ended runs. */
  #renew(): void {
    // The next run plans the next renewal, because the lease may end during that run.
    if (this.#inUse.slots === 0 && this.#spent.size === 0) return void (this.#timer = null);
    const renewal = this.#queue
      .run(() => this.#request(NO_HOLDING, NO_HOLDING))
      .catch(() => this.#renewIn(RETRY_MS));
    this.#host.background(renewal);
  }
}
