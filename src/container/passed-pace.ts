/**
 * Limits the bytes of responses that the Worker passes on to sandboxes itself, because it masks secrets in them or does not know their
 * length. All sandboxes share its thread.
 */
import { pacesOf } from "../shared/per-principal.ts";
import { waitForPaces } from "../shared/timers.ts";

const MIB = 1024 * 1024;
/** For each principal. The rate takes about a fifth of the thread: measured, 20 to 35 ns for each byte, with all streams around it. */
const PACE = { burst: 4 * MIB, perSecond: 8 * MIB };
/** All principals together have the rate of this many, in each process. If more of them download, they share it equally. */
const FULL_RATES = 2;

const paces = pacesOf(PACE);

/**
 * Waits until a piece of this length may pass. Each request waits only for its own timer. When a piece also waited for a turn of its
 * principal, and the client of the piece before it disconnected, some downloads hung: they continued in the context of the other request.
 * @param client aborts when the reader disconnects
 */
export async function waitToPass(principalID: string, bytes: number, client: AbortSignal): Promise<void> {
  const pace = paces.of(principalID);
  await waitForPaces([pace], bytes * Math.max(1, paces.usedCount / FULL_RATES), client);
}
