/**
 * Limits the bytes of responses that the Worker passes on to sandboxes itself, because it masks secrets in them or does not know their
 * length. All sandboxes share its thread.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "../shared/per-principal.ts";
import { CALL_MS, waitForPaces } from "../shared/timers.ts";
import { Turns, TurnsByID } from "../shared/turns.ts";

const MIB = 1024 * 1024;
/** For each principal. The rate takes about a fifth of the thread: measured, 20 to 35 ns for each byte, with all streams around it. */
const PACE = { burst: 4 * MIB, perSecond: 8 * MIB };
/** For all principals together, in each process. */
const PACE_TOGETHER = { burst: 2 * PACE.burst, perSecond: 2 * PACE.perSecond };

const together = new Pace(PACE_TOGETHER);
const paces = new PerPrincipal(
  () => Object.assign(new Pace(PACE), { together }),
  (pace) => pace.isFull,
);
/** Only one piece of each principal waits for the pace of all, so principals with many downloads do not delay the others. */
const turns = new TurnsByID(() => new Turns(1));

/** Waits until a piece of this length may pass. @param client aborts when the reader disconnects */
export async function waitToPass(principalID: string, bytes: number, client: AbortSignal): Promise<void> {
  const end = await turns.take(principalID, CALL_MS, client);
  try {
    await waitForPaces([paces.of(principalID)], bytes, client);
  } finally {
    end?.();
  }
}
