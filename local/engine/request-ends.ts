/** What remains of a request after its response, or while nobody reads its body. */
import type { IncomingMessage, ServerResponse } from "node:http";

/**
 * Drains a request whose response ended early. Otherwise, the next request on the connection, perhaps another principal's, would
 * wait behind it.
 */
export function drainAfter(request: IncomingMessage, response: ServerResponse): void {
  response.once("close", () => {
    request.unpipe();
    request.resume();
  });
}

/**
 * Calls `end` if the receiver takes nothing of a request's body for `ms` milliseconds. The body already goes to the receiver, which
 * pauses it. The engine does not read the client's connection then, so it would never notice that the client has disconnected.
 */
export function endStalled(
  request: IncomingMessage,
  response: ServerResponse,
  ms: number,
  end: () => void,
): void {
  let stalled: NodeJS.Timeout | undefined;
  let isOver = false;
  const stop = () => clearTimeout(stalled);
  request.on("resume", stop).on("pause", () => {
    stop();
    // Node also pauses a request when its whole body has been passed on. The response may come later.
    if (!isOver && !request.readableEnded) stalled = setTimeout(end, ms).unref();
  });
  response.once("close", () => {
    isOver = true;
    stop();
  });
}
