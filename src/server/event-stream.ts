/** A response of server-sent events, of which each is made when the client takes it. Who stops reading ends them. */
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
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "x-accel-buffering": "no" },
  });
}

/** An event that says nothing: proxies close a connection that is silent for long. */
export const SILENCE = ": it goes on\n\n";

/** The longest silence, milliseconds. */
export const SILENCE_MS = 10_000;
