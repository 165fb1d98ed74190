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

export async function paceOpenRequest(): Promise<void> {
  await waitForPace(pace, 1);
}

export async function paceLargeHead(): Promise<void> {
  await waitForPace(largeHeads, LARGE_HEAD_REQUESTS);
}

/**
 * The pauses of all requests together, in seconds: about 2,000 requests pause at once, and 1,500 if there are always more. A pause
 * keeps a connection, also if its client has disconnected. Measured without this limit: 150 connections that sent 7,000 requests a
 * second without a token, and disconnected after 20 ms each, occupied 20,000 files and 800 MB after some seconds, and workerd ended. A
 * count of pauses would not do, because the runtime can end a request in its pause without a sign.
 */
const pauses = new Pace({ burst: 4000, perSecond: 1500 });

/**
 * Waits until a pace allows these requests, for `maxMs` at most.
 * @returns false if that is too short, or too many requests pause already; then they do not count
 */
export async function waitForPace(of: Pace, requests: number, maxMs = MAX_PACE_MS): Promise<boolean> {
  const ms = of.take(requests);
  const isAllowed = ms <= maxMs;
  if (!isAllowed) of.giveBack(requests);
  if (ms === 0 || (await pauseRequest(Math.min(ms, maxMs)))) return isAllowed;
  if (isAllowed) of.giveBack(requests);
  return false;
}

/** Pauses a request. @returns false, without a pause, if too many requests pause already */
export async function pauseRequest(ms: number): Promise<boolean> {
  const hasPause = pauses.tryTake(ms / 1000);
  if (hasPause) await pause(ms);
  return hasPause;
}
