/** Rate limits, by the platform's limiter, which counts per data center, or in memory if none is bound. */
import { json, type Refusal } from "./responses.ts";

const MINUTE_MS = 60_000;

/** The most keys counted separately in one minute. All others share one count. */
const MAX_KEYS = 10_000;

export class ProcessLimiter implements RateLimit {
  readonly #limit: number;
  readonly #counts = new Map<string, number>();
  #minute = 0;

  /** @param limit uses of one key per minute */
  constructor(limit: number) {
    this.#limit = limit;
  }

  async limit({ key }: { key: string }): Promise<{ success: boolean }> {
    const minute = Math.floor(Date.now() / MINUTE_MS);
    if (minute !== this.#minute) this.#counts.clear();
    this.#minute = minute;
    const counted = this.#counts.has(key) || this.#counts.size < MAX_KEYS ? key : "";
    const count = (this.#counts.get(counted) ?? 0) + 1;
    this.#counts.set(counted, count);
    return { success: count <= this.#limit };
  }
}

/** Used without `ADDRESS_LIMITER`. All users may share one address then, so the limit is high. */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(600);

/** Used without `RATE_LIMITER`, for token lookups. Calls of a principal are not limited then. */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(1200);

/** Counts uses of `key` until the limit is reached, and returns whether it is; never without a limiter. */
export async function isRateLimited(limiter: RateLimit | undefined, key: string, times = 1) {
  for (let use = 0; limiter && use < times; use += 1) {
    const { success } = await limiter.limit({ key });
    if (!success) return true;
  }
  return false;
}

export function rateLimited(): Refusal {
  // The limiter does not say when its period ends; it is at most a minute.
  const body = { error: "Too many requests", message: "You call too often: wait and try again." };
  return { reason: "rate_limited", response: json(body, 429, { "retry-after": "60" }) };
}
