/** Rate limits: with the platform's limiter, which counts by data centre, or with one in memory where none is bound. */
import { json, type Refusal } from "./responses.ts";

const MINUTE_MS = 60_000;

/** The most keys that are counted separately within a minute. All others share one count. */
const MAX_KEYS = 10_000;

/** Counts in memory, by the minute. */
export class ProcessLimiter implements RateLimit {
  readonly #limit: number;
  readonly #counts = new Map<string, number>();
  #minute = 0;

  /** @param limit uses of one key in a minute */
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

/**
 * In place of `ADDRESS_LIMITER`. A server without that binding usually sees one address for everybody on its machine or
 * behind its tunnel, so the limit is higher than that of one address on the internet.
 */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(600);

/** In place of `RATE_LIMITER`, for look-ups of tokens. Calls of a principal are not limited without that binding. */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(1200);

/**
 * Counts `times` uses of `key` and returns whether the limit is reached; never without a limiter. It stops counting once
 * the limit is reached.
 */
export async function isRateLimited(
  limiter: RateLimit | undefined,
  key: string,
  times = 1,
): Promise<boolean> {
  for (let use = 0; limiter && use < times; use += 1) {
    const { success } = await limiter.limit({ key });
    if (!success) return true;
  }
  return false;
}

export function rateLimited(): Refusal {
  // The limiter does not tell when its period ends, which is at most a minute long.
  const body = { error: "Too many requests", message: "You call too often: wait and try again." };
  return { reason: "rate_limited", response: json(body, 429, { "retry-after": "60" }) };
}
