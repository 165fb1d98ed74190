/**
 * A response of server-sent events. The generator runs at most one event ahead of the client. If the client disconnects, the
 * stream ends the generator.
 */
export function eventStream<Event>(events: AsyncGenerator<Event, void>, textOf: (event: Event) => string) {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(textOf(value)));
    },
    cancel: () => void events.return(undefined),
  });
  return new Response(body, { headers: EVENT_HEADERS });
}

const EVENT_HEADERS = { "content-type": "text/event-stream", "x-accel-buffering": "no" };

/** A comment that keeps the connection open, because proxies close silent connections. */
export const KEEP_ALIVE = ": keep-alive\n\n";

export const KEEP_ALIVE_MS = 10_000;
