/**
 * Limits of requests: how many arrive in a minute, how many are open, and how much memory the calls of a principal hold. The platform's
 * limiter counts per data center. Everything else counts per process.
 */
import { TOO_MANY_REQUESTS, tooManyUnended } from "./errors.ts";
import { json, type Refusal } from "./responses.ts";
import { pause } from "./timers.ts";

const MINUTE_MS = 60_000;

/** The most keys that a limiter counts. With one more, all counts begin again, because a shared count would let strangers use it up. */
const MAX_KEYS = 10_000;

/** Replaces a limiter of the platform that is not bound, as with `npm start`. */
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

/** Used if `ADDRESS_LIMITER` is not bound. High, because locally all users have one address. */
export const PROCESS_ADDRESS_LIMITER: RateLimit = new ProcessLimiter(600);

/** Used for look-ups of unknown tokens if `RATE_LIMITER` is not bound. The calls of a principal have no rate limit then. */
export const PROCESS_LOOKUP_LIMITER: RateLimit = new ProcessLimiter(1200);

/** Used for refreshes and revocations of each known grant if `ADDRESS_LIMITER` is not bound. */
export const PROCESS_GRANT_LIMITER: RateLimit = new ProcessLimiter(60);

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

/** A request and what it needs open at most this many files of the process, so that open requests cannot use up all files. */
const FILES_FOR_A_REQUEST = 8;
let open = 0;

/**
 * Counts an open request until its response begins.
 * @param client aborts when the client disconnects. The runtime may then end the request without running its `finally` blocks
 * @returns the function that ends the request
 */
export function openRequest(client: AbortSignal): () => void {
  open += 1;
  let isOpen = true;
  const end = () => {
    if (isOpen) open -= 1;
    isOpen = false;
  };
  client.addEventListener("abort", end);
  return end;
}

/**
 * Whether a request must be refused because too many are open. Requests without a token are refused sooner, so that they leave room for
 * the others.
 * @param files the most files that this process can open; undefined on Cloudflare, which limits requests itself
 */
export function areTooManyOpen(hasToken: boolean, files = Infinity): boolean {
  const most = files / FILES_FOR_A_REQUEST;
  return open > (hasToken ? most : most / 2);
}

/**
 * The most bytes that the calls of a principal, or of another holder, keep: bodies, answers that their clients have not read, and input
 * that an actor works on. An isolate on Cloudflare has 128 MB for all principals.
 */
export const MAX_HELD_BYTES = 32 * 1024 * 1024;

/** What a call counts besides its body and answer. So a holder has at most MAX_CALLS calls at once. */
export const CALL_BYTES = 32 * 1024;
const MAX_CALLS = MAX_HELD_BYTES / CALL_BYTES;

/** After this time, a call counts as ended, because the platform can reset an actor, and then no call of it ends. */
const LONGEST_CALL_MS = 900_000;

const heldBytes = new Map<string, number>();

export function hasRoomFor(holder: string, bytes: number): boolean {
  return (heldBytes.get(holder) ?? 0) + bytes <= MAX_HELD_BYTES;
}

/** Counts bytes, also beyond the limit. A negative number releases them. */
export function hold(holder: string, bytes: number): void {
  const held = (heldBytes.get(holder) ?? 0) + bytes;
  if (held > 0) heldBytes.set(holder, held);
  else heldBytes.delete(holder);
}

/** How often work that waits for room looks for it. */
const ROOM_MS = 100;

/**
 * Counts bytes when there is room.
 * @param roomToLeave for other work of the holder @param isOver whether to stop waiting
 * @returns false, and counts nothing, if there is no room after `ms`
 */
export async function holdWhenRoom(
  holder: string,
  bytes: number,
  { ms, roomToLeave = 0, isOver = () => false }: { ms: number; roomToLeave?: number; isOver?: () => boolean },
): Promise<boolean> {
  const until = Date.now() + ms;
  while (!hasRoomFor(holder, bytes + roomToLeave)) {
    if (isOver() || Date.now() >= until) return false;
    await pause(ROOM_MS);
  }
  hold(holder, bytes);
  return true;
}

/**
 * Does the work of a call in an actor. The call counts until the work ends, also if its client has disconnected.
 * @param by whose calls count together: a principal, or the requests by its links, which need no token
 * @param size of the input in characters or bytes. Not the input, which must not stay in memory if the call is too late to use it
 * @throws {ToolError} `quota_exceeded`, before the work
 */
export async function whileHolding<T>(by: string, size: number, work: () => Promise<T>): Promise<T> {
  const holder = `calls of ${by}`;
  const bytes = Math.max(size, CALL_BYTES);
  if (!hasRoomFor(holder, bytes)) throw tooManyUnended(MAX_CALLS, MAX_HELD_BYTES);
  hold(holder, bytes);
  let isHeld = true;
  const release = () => {
    clearTimeout(timer);
    if (isHeld) hold(holder, -bytes);
    isHeld = false;
  };
  const timer = setTimeout(release, LONGEST_CALL_MS);
  try {
    return await work();
  } finally {
    release();
  }
}

/** The characters and bytes in a value. */
export function sizeOf(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length;
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce<number>((sum, part) => sum + sizeOf(part), 0);
}
