import { CALL_BYTES, type RequestMemory } from "./request-memory.ts";
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

/**
 * How long the next READ_BYTES of a long body may take while `memory` holds room for the whole body: two clients that stop halfway
 * through 8 MiB prevent other long bodies of their principal.
 */
const STALL_MS = 30_000;

/**
 * How long the beginning of a body may take while its principal has too many calls, and the rest of a body for which there is no room.
 * Measured without this: of 2,500 calls that did not finish their bodies, 2,281 were still open after 15 s, each with 0.15 MB of workerd's
 * memory, and 160 more were possible each second. When only the beginning was limited, workerd reached its limit of 20,000 open files after
 * a minute of calls that sent 17,000 bytes, and ended.
 */
const CROWDED_MS = 5000;

/** How long the rest of a body may take after it got a turn, because other bodies wait for turns. */
export const TURN_MS = 15_000;

/** Turns for reading long bodies. `take` returns the function that ends the turn; undefined if there was none in `ms` milliseconds. */
export interface BodyTurns {
  /** @param bytes the most bytes that will be read */
  take(ms: number, bytes: number): Promise<(() => void) | undefined>;
}

interface Bounds {
  maxBytes: number;
  /** How many bytes of an oversized body are still read and dropped; 0 by default. */
  drainBytes?: number;
  ms?: number;
  /**
   * Counts the body. If it has more than CALL_BYTES, which count already, the rest is read only when there is room for its announced
   * length. A client can keep its body unfinished for minutes.
   */
  memory?: RequestMemory | undefined;
  /** A body of more than READ_BYTES needs a turn. Until it has one, only that many of its bytes are read. */
  turns?: BodyTurns | undefined;
}

/**
 * Reads a body into one buffer. The reads are large, because each read takes some more kilobytes of memory.
 * @throws errors of reading, for example if the client disconnects
 */
export async function readBody(
  { body, headers }: Pick<Request | Response, "body" | "headers">,
  { maxBytes, drainBytes = 0, ms = READ_MS, memory, turns }: Bounds,
): Promise<{ bytes: Uint8Array<ArrayBuffer> } | { problem: "too_large" | "too_slow" | "no_room" }> {
  let buffer = new Uint8Array();
  if (!body) return { bytes: buffer };
  let until = Date.now() + ms;
  const reader = body.getReader({ mode: "byob" });
  let endTurn: (() => void) | undefined;
  try {
    // A body must not be longer than announced.
    const size = announcedBytes(headers);
    const announced = Math.min(maxBytes, size ?? maxBytes);
    // A short body needs room only for its announced size, and for one more byte, which detects its end. A longer one without an announced
    // size needs room for the longest.
    let room = Math.min(memory && size !== undefined ? CALL_BYTES : READ_BYTES, announced + 1);
    let hasRoom = memory ? undefined : true;
    let stallMs = memory?.hasRoomFor(0) === false ? CROWDED_MS : Infinity;
    for (let bytes = 0; ; room = READ_BYTES) {
      const reading = reader.readAtLeast(room, new Uint8Array(room));
      const read = await waitAtMost(Math.min(until - Date.now(), stallMs), reading);
      if (!read) return { problem: hasRoom === false ? "no_room" : "too_slow" };
      const { value, done } = read;
      const length = value?.length ?? 0;
      const isEnd = done || length < room;
      if (turns && !endTurn && !isEnd) {
        endTurn = await turns.take(until - Date.now(), announced);
        if (!endTurn) return { problem: "too_slow" };
        until = Math.min(until, Date.now() + TURN_MS);
      }
      if (memory && hasRoom === undefined) {
        const waitedFrom = Date.now();
        hasRoom = isEnd ? memory.addBody(length) : await memory.addLongBody(announced);
        until += Date.now() - waitedFrom;
        stallMs = hasRoom ? STALL_MS : Infinity;
        if (!hasRoom) until = Math.min(until, Date.now() + CROWDED_MS);
      }
      if (bytes + length > announced) {
        if (isEnd || bytes + length > announced + drainBytes) return { problem: "too_large" };
        buffer = new Uint8Array();
      } else if (hasRoom) {
        if (bytes + length > buffer.length) {
          const larger = new Uint8Array(Math.min(announced, 2 * (bytes + length)));
          larger.set(buffer);
          buffer = larger;
        }
        if (value) buffer.set(value, bytes);
      }
      bytes += length;
      if (!isEnd) continue;
      if (!hasRoom) return { problem: "no_room" };
      memory?.shrinkBody(bytes);
      return { bytes: buffer.subarray(0, bytes) };
    }
  } finally {
    endTurn?.();
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
