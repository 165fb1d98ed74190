/** How often something may be done: by the platform's limiter of this data centre or, where none is bound, by one of this process. */
import { json, type Refusal } from "./responses.ts";

const MINUTE_MS = 60_000;

/** Keys that are told apart within a minute; more than these share one count. */
const MOST_KEYS = 10_000;

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
    const counted = this.#counts.has(key) || this.#counts.size < MOST_KEYS ? key : "";
    const count = (this.#counts.get(counted) ?? 0) + 1;
    this.#counts.set(counted, count);
    return { success: count <= this.#limit };
  }
}

/**
 * In place of `ADDRESS_LIMITER`. Where nothing is bound, nothing tells addresses apart either as a rule: everybody on the
 * machine, or behind its tunnel, is one address, so it may do more than one address of the internet.
 */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(600);

/** In place of `RATE_LIMITER`, for tokens that are looked up; what a principal calls is not limited without it. */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(1200);

/**
 * Counts `times` uses by `key`, and whether it has used up what the limiter grants; without a limiter nobody ever has.
 * It asks no further once it is told so.
 */
export async function tooOften(limiter: RateLimit | undefined, key: string, times = 1): Promise<boolean> {
  for (let use = 0; limiter && use < times; use += 1) {
    const { success } = await limiter.limit({ key });
    if (!success) return true;
  }
  return false;
}

export function rateLimited(): Refusal {
  // The limiter does not say when its period ends; a minute is the longest there is.
  const body = { error: "Too many requests", message: "You call too often: wait and try again." };
  return { reason: "rate_limited", response: json(body, 429, { "retry-after": "60" }) };
}
