/**
 * How many requests may wait, and the pace of those that wait for no turn of a principal (`request-turns.ts`): open routes, and
 * refusals. workerd looks for connections with new data only when nothing else is ready. But a connection is ready at once if its next
 * request has already arrived. So without a pace, the clients of many connections could occupy the thread. Measured while 1,000
 * connections without a token repeated `GET /unknown`: workerd read no other request until they stopped.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "./per-principal.ts";
import { elapsedMs, pause } from "./timers.ts";

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
 * The most open requests of a sender; further ones do not wait. Each keeps a connection, which has two files of workerd, also if its
 * client has disconnected. Measured without a limit: 150 connections that sent 7,000 requests a second without a token, and disconnected
 * after 20 ms each, occupied 20,000 files and 800 MB after some seconds, and workerd ended. Measured while 3,000 connections repeated a
 * request without a token: a neighbour's command took 8 ms (median), and 38 ms when only 2,500 could wait.
 */
const MAX_OPEN = 4096;

/**
 * The open requests of all senders together have half of the files that workerd can open. With only the limit of a sender, four
 * principals that sent the beginnings of bodies occupied 20,000, and workerd ended.
 */
const FILES_FOR_A_REQUEST = 4;

/** Each sender may have this many open even if others have all of these. */
const MIN_OPEN = 16;

/** After this time in milliseconds, a request does not count. On Cloudflare, it can end at a limit of the platform without a sign. */
const LONGEST_MS = 900_000;

/** The senders are principals, their links and previews, and these two. With refused heads, strangers could use up their own requests. */
const STRANGERS = "strangers";
const LARGE_HEADS = "large heads";

const bySender = new PerPrincipal(
  () => new Set<OpenRequest>(),
  (all) => all.size === 0,
);
const byClient = new WeakMap<AbortSignal, OpenRequest>();
let open = 0;
let maxOpen = Infinity;

/**
 * Counts a request from its arrival until its response begins, or until its client has read a long one. It counts for strangers until
 * its sender is known.
 */
export class OpenRequest {
  readonly #begunAt = Date.now();
  #sender = STRANGERS;
  /** How often the request must end: once, and once more for each long response. */
  #ends = 1;

  /** @param client aborts when the client disconnects @param files the most files that this process can open */
  constructor(client: AbortSignal, files = Infinity) {
    maxOpen = files / FILES_FOR_A_REQUEST;
    byClient.set(client, this);
    this.#add();
    if (client.aborted) this.#drop();
    else client.addEventListener("abort", () => this.#drop());
  }

  get sender(): string {
    return this.#sender;
  }

  countFor(sender: string): void {
    if (this.#ends <= 0) return;
    this.#remove();
    this.#sender = sender;
    this.#add();
  }

  keep(): void {
    if (this.#ends > 0) this.#ends += 1;
  }

  end(): void {
    this.#ends -= 1;
    if (this.#ends <= 0) this.#remove();
  }

  /** Ends the request also for its long responses. */
  #drop(): void {
    this.#ends = 0;
    this.#remove();
  }

  #add(): void {
    const all = bySender.of(this.#sender);
    for (const oldest of all) {
      if (elapsedMs(oldest.#begunAt) < LONGEST_MS) break;
      oldest.#drop();
    }
    all.add(this);
    open += 1;
  }

  #remove(): void {
    if (bySender.of(this.#sender).delete(this)) open -= 1;
  }
}

/** Counts a client's request for this sender from now on. */
export const countFor = (client: AbortSignal, sender: string) => byClient.get(client)?.countFor(sender);

/** Counts a client's request also after its response has begun. @returns the function that ends this */
export function keepOpen(client: AbortSignal): () => void {
  const request = byClient.get(client);
  request?.keep();
  return () => request?.end();
}

/**
 * Whether an open request of this sender may wait. A sender may have half of what the other senders leave, at most MAX_OPEN. So there
 * are always some for the next sender, also if others keep theirs.
 */
export function mayWait(sender = STRANGERS): boolean {
  const most = Math.min(MAX_OPEN, maxOpen - open);
  return bySender.of(sender).size <= Math.max(MIN_OPEN, most);
}

/** @param client of the request. A refused request of a principal waits too, but as one of the principal's */
export async function paceOpenRequest(client: AbortSignal): Promise<void> {
  await waitForPace(pace, 1, MAX_PACE_MS, byClient.get(client)?.sender);
}

/** @param client of the request with a large head */
export async function paceLargeHead(client: AbortSignal): Promise<void> {
  countFor(client, LARGE_HEADS);
  await waitForPace(largeHeads, LARGE_HEAD_REQUESTS, MAX_PACE_MS, LARGE_HEADS);
}

/**
 * Waits until a pace allows these requests, for `maxMs` at most.
 * @returns false if that is too short, or too many requests of the sender are open already; then they do not count
 */
export async function waitForPace(
  of: Pace,
  requests: number,
  maxMs = MAX_PACE_MS,
  sender = STRANGERS,
): Promise<boolean> {
  const ms = of.take(requests);
  if (ms === 0) return true;
  const isPaused = ms <= maxMs && mayWait(sender);
  if (isPaused) await pause(ms);
  else {
    of.giveBack(requests);
    await pauseRefused(sender);
  }
  return isPaused;
}

/**
 * Pauses a request that is refused. Also if too many are open already, the runtime first reads from other connections. With 250 ms for
 * these instead, a neighbour's call took up to 3.2 instead of 0.9 s.
 */
export async function pauseRefused(sender: string): Promise<void> {
  await pause(mayWait(sender) ? MAX_PACE_MS : 0);
}
