/**
 * The pace of requests that wait for no turn of a principal (`request-turns.ts`): open routes, and refusals. workerd looks for
 * connections with new data only when nothing else is ready. But a connection is ready at once if its next request has already
 * arrived. So without a pace, the clients of many connections could occupy the thread. Measured while 1,000 connections without a
 * token repeated `GET /unknown`: workerd read no other request until they stopped.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { pause } from "./timers.ts";

/**
 * Also the pace of a principal's calls. The cheapest requests take 0.1 to 0.2 ms of the thread, so this pace leaves most of it to
 * others. Calls of tools take longer: measured, 300 to 1,000 of them were possible in a second.
 */
export const REQUEST_PACE = { burst: 200, perSecond: 1000 };

/**
 * The longest wait for the pace, in milliseconds. Requests whose clients have disconnected count too. Measured without this limit:
 * after 25,000 such requests in eight seconds, `GET /health` took 9 seconds.
 */
export const MAX_PACE_MS = 2000;

const pace = new Pace(REQUEST_PACE);

/** So many cheap requests take the thread as long as a refused head. */
const LARGE_HEAD_REQUESTS = 16;
/**
 * Refused heads have a pace of their own. When they used the one above, 130 connections without a token repeated 66 of them a second,
 * and each open request of others waited for two seconds.
 */
const largeHeads = new Pace(REQUEST_PACE);

/**
 * How long requests may pause together, in seconds, and per second after that: about 3,000 requests pause at once, and 1,500 if there
 * are always more. A pause keeps a connection, also if its client has disconnected. Measured without this limit: 150 connections that
 * sent 7,000 requests a second without a token, and disconnected after 20 ms each, occupied 20,000 files and 800 MB after some seconds,
 * and workerd ended. A count of pauses would not do, because the runtime can end a request in its pause without a sign.
 */
export const PAUSES = { burst: 4000, perSecond: 1500 };
/** The pauses of strangers, and those for refused heads, which strangers could use up otherwise. */
const pauses = new Pace(PAUSES);
const largeHeadPauses = new Pace(PAUSES);

export async function paceOpenRequest(): Promise<void> {
  await waitForPace(pace, 1);
}

export async function paceLargeHead(): Promise<void> {
  await waitForPace(largeHeads, LARGE_HEAD_REQUESTS, MAX_PACE_MS, largeHeadPauses);
}

/**
 * Waits until a pace allows these requests, for `maxMs` at most.
 * @param all the pauses that count together
 * @returns false if that is too short, or too many requests pause already; then they do not count
 */
export async function waitForPace(
  of: Pace,
  requests: number,
  maxMs = MAX_PACE_MS,
  all = pauses,
): Promise<boolean> {
  const ms = of.take(requests);
  if (ms === 0) return true;
  const isPaused = ms <= maxMs && all.tryTake(ms / 1000);
  if (isPaused) await pause(ms);
  else {
    of.giveBack(requests);
    await pauseRefused(all);
  }
  return isPaused;
}

/**
 * Pauses a request that is refused. Also if too many pause already, the runtime first reads from other connections. With 250 ms for these
 * instead, a neighbour's call took up to 3.2 instead of 0.9 s.
 * @param all the pauses that count together
 */
export async function pauseRefused(all: Pace): Promise<void> {
  await pause(all.tryTake(MAX_PACE_MS / 1000) ? MAX_PACE_MS : 0);
}
