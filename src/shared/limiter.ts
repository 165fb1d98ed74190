/** Rate limits. The platform's limiter counts per data center. Two limiters in memory replace missing bindings. */
import { Pace } from "../../container/sandboxd/pace.ts";
import { TOO_MANY_REQUESTS } from "./errors.ts";
import { countFor, waitForPace } from "./open-requests.ts";
import { pacesOf, type PerPrincipal } from "./per-principal.ts";
import { json, type Refusal } from "./responses.ts";

const MINUTE_MS = 60_000;

/**
 * The most keys that are counted. With one more, all counts begin again. Somebody with so many addresses has ten thousand times the
 * limit anyway. A shared count for further addresses would let them use it up, so that nobody else could sign in.
 */
const MAX_KEYS = 10_000;

/**
 * How long a use waits for the rate of all keys, in milliseconds; then it is refused. Measured with uses that were allowed after 2 s:
 * 1,000 connections that registered clients did so at the same time, and other calls waited up to 6 s. 600 uses of one key in a moment
 * are not refused.
 */
const MAX_WAIT_MS = 10_000;

export class ProcessLimiter implements RateLimit {
  readonly #limit: number;
  readonly #together: Pace | undefined;
  readonly #counts = new Map<string, number>();
  #minute = 0;

  /** @param limit how many uses of one key are allowed per minute @param together the rate of all keys */
  constructor(limit: number, together?: Pace) {
    this.#limit = limit;
    this.#together = together;
  }

  async limit({ key }: { key: string }): Promise<{ success: boolean }> {
    const minute = Math.floor(Date.now() / MINUTE_MS);
    const isFull = this.#counts.size >= MAX_KEYS && !this.#counts.has(key);
    if (minute !== this.#minute || isFull) this.#counts.clear();
    this.#minute = minute;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    if (count > this.#limit) return { success: false };
    return { success: !this.#together || (await waitForPace(this.#together, 1, MAX_WAIT_MS)) };
  }
}

/**
 * Used if `ADDRESS_LIMITER` is not bound, for example locally, where all users have one address. So the limit is high. The rate of all
 * addresses is needed because there OAuth's store shares the thread: a request that writes takes it up to 8 ms. Measured without the rate:
 * while 60 connections with other addresses repeated requests for tokens, a neighbour's call took 0.3 to 0.5 s (median).
 */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(
  600,
  new Pace({ burst: 12, perSecond: 62 }),
);

/**
 * Used for token lookups if `RATE_LIMITER` is not bound. The calls of a principal have no limit then. A look-up takes the thread 1.4 ms.
 * Measured without the rate of all addresses, as above: 0.26 s.
 */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(
  1200,
  new Pace({ burst: 50, perSecond: 250 }),
);

/**
 * Used for refreshes and revocations of each known grant if `ADDRESS_LIMITER` is not bound. An expired token is enough to send these, and
 * must not use up the rate of all grants of its principal.
 */
export const PROCESS_GRANT_LIMITER: RateLimit = new ProcessLimiter(60);

/**
 * The rate of each principal's lookups of valid tokens if `RATE_LIMITER` is not bound. The server looks a token up before it knows whose
 * turn to wait for.
 */
const knownLookUps = pacesOf({ burst: 200, perSecond: 250 });

/**
 * The rate of each principal's refreshes and revocations. They write to the store, and have a rate of their own so that they delay no
 * calls: with that of look-ups, a client that repeated refreshes made calls of its principal's other clients take 5 s.
 */
const knownRefreshes = pacesOf({ burst: 10, perSecond: 10 });

/** @returns false if the principal has too many requests under way */
export const paceKnownLookUp = (principalID: string, client: AbortSignal) =>
  paceKnown(knownLookUps, principalID, client);

/** @returns false if the principal has too many requests under way */
export const paceKnownRefresh = (principalID: string, client: AbortSignal) =>
  paceKnown(knownRefreshes, principalID, client);

function paceKnown(paces: PerPrincipal<Pace>, principalID: string, client: AbortSignal): Promise<boolean> {
  countFor(client, principalID);
  return waitForPace(paces.of(principalID), 1, MAX_WAIT_MS, principalID);
}

/** Counts uses of `key`, and returns whether the limit is reached. Without a limiter, the limit is never reached. */
export async function isRateLimited(limiter: RateLimit | undefined, key: string, times = 1) {
  for (let use = 0; limiter && use < times; use += 1) {
    const { success } = await limiter.limit({ key });
    if (!success) return true;
  }
  return false;
}

export function rateLimited(): Refusal {
  // The limiter does not report when its period ends. The period is at most a minute.
  return { reason: "rate_limited", response: json(TOO_MANY_REQUESTS, 429, { "retry-after": "60" }) };
}
