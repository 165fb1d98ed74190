/**
 * The container's event streams: server-sent events in a byte stream, read by the SDK's parser. Some carry the event's
 * name in a line of its own (`execute`), most only data.
 */

const encoder = new TextEncoder();

export type StreamEvent = { type: string } & Record<string, unknown>;

export function encodeEvent(event: StreamEvent, named = false): Uint8Array {
  const data = `data: ${JSON.stringify(event)}\n\n`;
  return encoder.encode(named ? `event: ${event.type}\n${data}` : data);
}

export interface EventStreamOptions {
  /** Adds the line with the event's name. */
  named?: boolean;
  /** Called when the reader cancels, to wake a generator that waits. */
  onCancel?: () => void;
}

/**
 * A stream of the events an async generator yields, each made only when the reader asks for it. Cancelling the stream
 * ends the generator at its next `yield`.
 */
export function eventStream(
  events: AsyncGenerator<StreamEvent>,
  { named = false, onCancel }: EventStreamOptions = {},
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) controller.close();
      else controller.enqueue(encodeEvent(value, named));
    },
    async cancel() {
      onCancel?.();
      await events.return(undefined);
    },
  });
}
