import { waitAtMost } from "./timers.ts";

/** A stream in pieces of a fixed size; the last may be shorter. @param body must be a byte stream */
export async function* splitStream(
  body: ReadableStream<Uint8Array>,
  bytes: number,
): AsyncGenerator<Uint8Array> {
  const reader = body.getReader({ mode: "byob" });
  try {
    for (;;) {
      const { value, done } = await reader.readAtLeast(bytes, new Uint8Array(bytes));
      if (value && value.length > 0) yield value;
      if (done) return;
    }
  } finally {
    // The cancellation fails if the stream has failed.
    await reader.cancel().catch(() => undefined);
  }
}

/** The longest piece of `changePieces`. By default, the runtime reads 4 KiB, which takes the thread almost as long. */
const PIECE_BYTES = 64 * 1024;

/**
 * Passes a body on, changed, in pieces as they arrive. Reads at most two pieces before the reader asks for them.
 * @param body must be a byte stream
 * @param closed aborts when the reader disconnects, if it does not cancel the body then. While the sender is silent, nothing else shows that
 * @param change returns what is passed on for a piece, perhaps nothing
 * @param end returns what is passed on at the end
 * @returns `isComplete` tells whether the whole body was read, also if its reader has stopped then
 */
export function changePieces(
  body: ReadableStream<Uint8Array>,
  closed: AbortSignal | undefined,
  change: (piece: Uint8Array) => Uint8Array | Promise<Uint8Array>,
  end: () => Uint8Array = () => new Uint8Array(),
): { readable: ReadableStream<Uint8Array>; isComplete: Promise<boolean> } {
  const { promise: isComplete, resolve } = Promise.withResolvers<boolean>();
  const reader = body.getReader({ mode: "byob" });
  let leave: () => void;
  const finish = (isWhole: boolean) => {
    resolve(isWhole);
    closed?.removeEventListener("abort", leave);
  };
  const stop = (reason: unknown) => {
    finish(false);
    // Not awaited: the sender may never stop.
    reader.cancel(reason).catch(() => undefined);
  };
  const source: UnderlyingSource<Uint8Array> = {
    start(controller: ReadableStreamDefaultController<Uint8Array>) {
      leave = () => {
        stop(closed?.reason);
        controller.error(closed?.reason);
      };
      if (closed?.aborted) leave();
      else closed?.addEventListener("abort", leave);
    },
    async pull(controller: ReadableStreamDefaultController<Uint8Array>) {
      try {
        for (let isPassed = false; !isPassed;) {
          const { done, value } = await reader.read(new Uint8Array(PIECE_BYTES));
          const changed = done ? end() : await change(value);
          isPassed = done || changed.length > 0;
          if (changed.length > 0) controller.enqueue(changed);
          if (!done) continue;
          finish(true);
          controller.close();
        }
      } catch (error) {
        stop(error);
        controller.error(error);
      }
    },
    cancel: stop,
  };
  // Two, so that a short body is read to its end even if its reader takes nothing.
  return { readable: new ReadableStream(source, { highWaterMark: 2 }), isComplete };
}

/** Whether a stream has failed. */
export async function isBroken(stream: WritableStream<Uint8Array>): Promise<boolean> {
  const writer = stream.getWriter();
  const isOver = writer.closed.then(
    () => true,
    () => true,
  );
  const broken = await Promise.race([isOver, new Promise<false>((resolve) => setTimeout(resolve, 0, false))]);
  writer.releaseLock();
  return broken;
}

/** The announced size of a body; undefined if unknown. A response in chunks can announce any text. */
export function announcedBytes(headers: Headers): number | undefined {
  const size = headers.get("content-length") ?? "";
  return /^\d{1,15}$/.test(size) ? Number(size) : undefined;
}

/** The default time limit of a body in milliseconds, and how many bytes are read at once. */
export const READ_MS = 60_000;
const READ_BYTES = 64 * 1024;

interface Bounds {
  maxBytes: number;
  /** How many bytes of an oversized body are still read and dropped; 0 by default. */
  drainBytes?: number;
  ms?: number;
  /**
   * Counts a body of more than READ_BYTES before its rest is read, by its announced length or `maxBytes`. Returns the function that
   * corrects the count when the body has arrived; undefined if there is no room.
   */
  reserve?: (bytes: number) => Promise<((arrived: number) => void) | undefined>;
}

/**
 * Reads a body into one buffer, and counts its bytes after the runtime has decoded them. The reads are large, because each read takes some
 * more kilobytes of memory.
 * @throws errors of reading, for example if the client disconnects
 */
export async function readBody(
  { body, headers }: Pick<Request | Response, "body" | "headers">,
  { maxBytes, drainBytes = 0, ms = READ_MS, reserve }: Bounds,
): Promise<{ bytes: Uint8Array<ArrayBuffer> } | { problem: "too_large" | "too_slow" | "no_room" }> {
  let buffer = new Uint8Array();
  if (!body) return { bytes: buffer };
  const reader = body.getReader({ mode: "byob" });
  let arrived = 0;
  let correct: ((arrived: number) => void) | undefined;
  try {
    // A body must not be longer than announced.
    const announced = Math.min(maxBytes, announcedBytes(headers) ?? maxBytes);
    let until = Date.now() + ms;
    // One byte more detects the end of a short body.
    for (let room = Math.min(READ_BYTES, announced + 1); ; room = READ_BYTES) {
      const read = await waitAtMost(until - Date.now(), reader.readAtLeast(room, new Uint8Array(room)));
      if (!read) return { problem: "too_slow" };
      const { value, done } = read;
      const length = value?.length ?? 0;
      const isEnd = done || length < room;
      if (reserve && !correct && !isEnd) {
        const waitedFrom = Date.now();
        correct = await reserve(announced);
        if (!correct) return { problem: "no_room" };
        until += Date.now() - waitedFrom;
      }
      if (arrived + length > announced) {
        buffer = new Uint8Array();
        if (isEnd || arrived + length > announced + drainBytes) return { problem: "too_large" };
      } else if (value) {
        if (arrived + length > buffer.length) {
          const larger = new Uint8Array(Math.min(announced, 2 * (arrived + length)));
          larger.set(buffer);
          buffer = larger;
        }
        buffer.set(value, arrived);
      }
      arrived += length;
      if (isEnd) return { bytes: buffer.subarray(0, arrived) };
    }
  } finally {
    // Nothing is kept of a body that is too large.
    correct?.(Math.min(arrived, buffer.length));
    // Not awaited: the sender may never stop.
    reader.cancel().catch(() => undefined);
  }
}

/** A form sent by a browser; undefined for another type, and for a body that is too long, too slow or broken. */
export async function readForm(request: Request, bounds: Bounds): Promise<URLSearchParams | undefined> {
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/x-www-form-urlencoded") return undefined;
  const read = await readBody(request, bounds).catch(() => undefined);
  return read && "bytes" in read ? new URLSearchParams(new TextDecoder().decode(read.bytes)) : undefined;
}

/** A response's body; undefined if it is too long, too slow or encoded. The server never requests an encoding. */
export async function readBounded(response: Response, bounds: Bounds) {
  if (isEncoded(response)) {
    await response.body?.cancel();
    return undefined;
  }
  const read = await readBody(response, bounds);
  return "bytes" in read ? read.bytes : undefined;
}

/** Whether the runtime decodes the body, so that its length on the wire differs. */
export function isEncoded({ headers }: Response): boolean {
  return (headers.get("content-encoding") ?? "identity") !== "identity";
}
