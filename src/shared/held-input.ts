/**
 * Limits the input of a principal's calls that actors keep. When a client disconnects, the Worker's count of its request ends
 * (request-memory.ts), but the actor continues the call. Measured without this limit: one client that disconnected 259 times while the
 * sandbox did not respond made workerd grow by 1.4 GB in 20 seconds.
 */
import { tooMuchInput } from "./errors.ts";
import { PerPrincipal } from "./per-principal.ts";
import { elapsedMs } from "./timers.ts";

/** The most characters and bytes. The Worker lets a principal's connected clients send half as many. */
const MAX_HELD = 32 * 1024 * 1024;

/** Shorter input does not count. Otherwise short requests by link, which need no token, could use up the limit of their principal. */
const SHORT = 16 * 1024;

/**
 * After this time in milliseconds, a call counts as ended. The platform can reset an actor, and then no call of it ends. Clients may
 * wait for ten minutes (MAX_WAIT_SECONDS).
 */
const LONGEST_MS = 900_000;

interface Held {
  size: number;
  begunAt: number;
}

const heldByPrincipals = new PerPrincipal<Set<Held>>(
  () => new Set(),
  (held) => held.size === 0,
);

/**
 * Does the work of a call whose input has this size.
 * @param size as `sizeOf` returns it. Not the input, which must not stay in memory if the call is too late to use it
 * @throws {ToolError} `quota_exceeded`, before the work
 */
export async function whileHolding<T>(principalID: string, size: number, work: () => Promise<T>): Promise<T> {
  if (size < SHORT) return await work();
  const held = heldByPrincipals.of(principalID);
  let sum = 0;
  for (const call of held)
    if (elapsedMs(call.begunAt) < LONGEST_MS) sum += call.size;
    else held.delete(call);
  const mine = { size, begunAt: Date.now() };
  if (sum + size > MAX_HELD) throw tooMuchInput(MAX_HELD);
  held.add(mine);
  try {
    return await work();
  } finally {
    held.delete(mine);
  }
}

/** The characters and bytes in a value. */
export function sizeOf(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length;
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce<number>((sum, part) => sum + sizeOf(part), 0);
}
