/**
 * Limits a principal's calls that its actors work on, and the input that they keep. When a client disconnects, the Worker's count of its
 * request ends (request-memory.ts), but the actor continues the call. Measured without this limit: one client that disconnected 259 times
 * while the sandbox did not respond made workerd grow by 1.4 GB in 20 seconds.
 */
import { tooManyUnended } from "./errors.ts";
import { PerPrincipal } from "./per-principal.ts";
import { CALL_BYTES } from "./request-memory.ts";
import { elapsedMs } from "./timers.ts";

/** The most characters and bytes. The Worker lets a principal's connected clients send half as many. */
const MAX_HELD = 32 * 1024 * 1024;

/**
 * A call counts at least as CALL_BYTES, so that a principal has at most MAX_CALLS calls. Measured without it: 1,926 calls that waited for
 * a set-up, and whose clients had disconnected, took 142 MB, and 160 more began each second, for 40 s each.
 */
const MAX_CALLS = MAX_HELD / CALL_BYTES;

/**
 * After this time in milliseconds, a call counts as ended. The platform can reset an actor, and then no call of it ends. Clients may
 * wait for ten minutes (MAX_WAIT_SECONDS).
 */
const LONGEST_MS = 900_000;

class HeldCalls {
  /** When each call began, and its size. The oldest is first. */
  readonly #calls = new Map<symbol, { begunAt: number; size: number }>();
  #size = 0;

  get isUnused(): boolean {
    return this.#calls.size === 0;
  }

  /** @returns the function that ends the call; undefined if there is no room for it */
  add(size: number): (() => void) | undefined {
    for (const [call, { begunAt }] of this.#calls) {
      if (elapsedMs(begunAt) < LONGEST_MS) break;
      this.#end(call);
    }
    if (this.#size + size > MAX_HELD) return undefined;
    const call = Symbol();
    this.#calls.set(call, { begunAt: Date.now(), size });
    this.#size += size;
    return () => this.#end(call);
  }

  #end(call: symbol): void {
    this.#size -= this.#calls.get(call)?.size ?? 0;
    this.#calls.delete(call);
  }
}

const held = new PerPrincipal(
  () => new HeldCalls(),
  (calls) => calls.isUnused,
);

/**
 * Does the work of a call whose input has this size.
 * @param by whose calls count together: a principal, or the requests by its links, which need no token
 * @param size as `sizeOf` returns it. Not the input, which must not stay in memory if the call is too late to use it
 * @throws {ToolError} `quota_exceeded`, before the work
 */
export async function whileHolding<T>(by: string, size: number, work: () => Promise<T>): Promise<T> {
  const end = held.of(by).add(Math.max(size, CALL_BYTES));
  if (!end) throw tooManyUnended(MAX_CALLS, MAX_HELD);
  try {
    return await work();
  } finally {
    end();
  }
}

/** The characters and bytes in a value. */
export function sizeOf(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length;
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce<number>((sum, part) => sum + sizeOf(part), 0);
}
