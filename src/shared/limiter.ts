/** Rate limits. The platform's limiter counts per data center. Two limiters in memory replace missing bindings. */
import { TOO_MANY_REQUESTS } from "./errors.ts";
import { json, type Refusal } from "./responses.ts";

const MINUTE_MS = 60_000;

/**
 * The most keys that are counted. With one more, all counts begin again. Somebody with so many addresses has ten thousand times the
 * limit anyway. A shared count for further addresses would let them use it up, so that nobody else could sign in.
 */
const MAX_KEYS = 10_000;

export class ProcessLimiter implements RateLimit {
  readonly #limit: number;
  readonly #counts = new Map<string, number>();
  #minute = 0;

  /** @param limit how many uses of one key are allowed per minute */
  constructor(limit: number) {
    this.#limit = limit;
  }

  async limit({ key }: { key: string }): Promise<{ success: boolean }> {
    const minute = Math.floor(Date.now() / MINUTE_MS);
    const isFull = this.#counts.size >= MAX_KEYS && !this.#counts.has(key);
    if (minute !== this.#minute || isFull) this.#counts.clear();
    this.#minute = minute;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    return { success: count <= this.#limit };
  }
}

/** Used if `ADDRESS_LIMITER` is not bound, for example locally, where all users have one address. So the limit is high. */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(600);

/** Used for token lookups if `RATE_LIMITER` is not bound. The calls of a principal have no limit then. */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(1200);

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
