/**
 * The pace of requests that wait for no turn of a principal (`request-turns.ts`): open routes, and refusals. workerd looks for
 * connections with new data only when nothing else is ready. But a connection is ready at once if its next request has already
 * arrived. So without a pace, the clients of many connections could occupy the thread. Measured while 1,000 connections without a
 * token repeated `GET /unknown`: workerd read no other request until they stopped.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { pacesOf } from "./per-principal.ts";
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
 * Requests for which OAuth uses its store have paces of their own. On the local platform, a look-up of a token takes the thread 1.4 ms,
 * and a request that writes up to 8 ms. Measured without these paces: while 60 connections without a valid token repeated look-ups, each
 * with another address, a neighbour's call took 0.26 s (median), and 0.3 to 0.5 s with requests for tokens.
 */
const lookUps = new Pace({ burst: 50, perSecond: 250 });
const writes = new Pace({ burst: 12, perSecond: 62 });
/**
 * The pace of each principal's valid tokens. The server looks a token up before it knows whose turn to wait for. Measured without it:
 * while clients with a valid token sent 600 requests a second and disconnected, a neighbour's call took 1.7 s (median).
 */
const knownLookUps = pacesOf({ burst: 200, perSecond: 250 });

/**
 * How long these requests wait, in milliseconds. Measured with 2 s, after which they were handled: 1,000 connections that registered
 * clients did so at the same time, and other calls waited up to 6 s. So then they are refused. The 600 requests that an address may send
 * in a minute (`limiter.ts`) are not.
 */
const MAX_STORE_MS = 10_000;

/** @returns false if too many unknown tokens are being looked up */
export function paceLookUp(): Promise<boolean> {
  return waitForPace(lookUps, 1, MAX_STORE_MS);
}

/** @returns false if the principal has too many requests under way */
export function paceKnownLookUp(principalID: string): Promise<boolean> {
  return waitForPace(knownLookUps.of(principalID), 1, MAX_STORE_MS);
}

/** @returns false if too many such requests are under way */
export function paceStoreWrite(): Promise<boolean> {
  return waitForPace(writes, 1, MAX_STORE_MS);
}

/** Waits until a pace allows these requests, for `maxMs` at most. @returns false if that is too short; then they do not count */
export async function waitForPace(of: Pace, requests: number, maxMs = MAX_PACE_MS): Promise<boolean> {
  const ms = of.take(requests);
  if (ms > maxMs) of.giveBack(requests);
  if (ms > 0) await pause(Math.min(ms, maxMs));
  return ms <= maxMs;
}
