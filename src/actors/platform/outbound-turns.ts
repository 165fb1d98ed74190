/**
 * Limits the requests that containers send through the Worker, because all sandboxes may share its thread. On the local platform, the
 * engine limits them before.
 */
import { waitUntil } from "cloudflare:workers";
import { INTERNET_TEXTS } from "../../container/texts.ts";
import { pacesOf } from "../../shared/per-principal.ts";
import { announcedBytes } from "../../shared/stream-bytes.ts";
import { CALL_MS, pause, waitForPaces } from "../../shared/timers.ts";
import { Turns, TurnsByID } from "../../shared/turns.ts";

/** The most requests of a sandbox at once, for each handler, so that other requests do not delay the report of the container's end. */
const AT_ONCE = 16;
/** The most requests that wait for a turn. Local sandboxes have as many connections. */
const MAX_WAITING = 256;
/** How long a request beyond MAX_WAITING waits for its refusal, in milliseconds. Otherwise a program would repeat it at once. */
const REFUSAL_MS = 2000;
/** How long a turn may last while others wait for it in vain, in milliseconds: longer than any API takes. */
const LONGEST_MS = 15 * 60_000;
/** The rate of a sandbox's requests. An installation of packages sends hundreds. */
const REQUEST_PACE = { burst: 1000, perSecond: 100 };
/** The rate of all sandboxes of a principal, in each process. A sandbox waits for at most the requests that have turns: 0.8 s for ten. */
const TOGETHER_PACE = { burst: 2000, perSecond: 200 };

const turns = new TurnsByID(() => new Turns(AT_ONCE), LONGEST_MS);
const paces = pacesOf(REQUEST_PACE);
const pacesTogether = pacesOf(TOGETHER_PACE);

/**
 * Handles a request in a turn, which lasts until its response has been sent.
 * @param handler the name of the handler @param principalID undefined if only the sandbox is known
 */
export async function inTurn(
  request: Request,
  containerID: string,
  handler: string,
  handle: () => Promise<Response>,
  principalID?: string,
): Promise<Response> {
  const id = `${handler} ${containerID}`;
  const hasRoom = turns.of(id).waiting < MAX_WAITING;
  const end = hasRoom ? await turns.take(id, CALL_MS, request.signal) : await pause(REFUSAL_MS);
  if (!end) return new Response(`sandbox-mcp: ${INTERNET_TEXTS.tooMany}.\n`, { status: 429 });
  try {
    const together = principalID === undefined ? [] : [pacesTogether.of(principalID)];
    await waitForPaces([paces.of(containerID), ...together], 1, request.signal);
    request.signal.throwIfAborted();
    return endAfter(await handle(), end);
  } catch (error) {
    end();
    throw error;
  }
}

/** Calls `end` when the response has been sent. The streams between are the platform's own, so the pieces cost almost nothing. */
function endAfter(response: Response, end: () => void): Response {
  const { body, headers } = response;
  const length = announcedBytes(headers);
  if (body === null) {
    end();
    return response;
  }
  const { readable, writable } =
    length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
  waitUntil(body.pipeTo(writable).then(end, end));
  return new Response(readable, response);
}
