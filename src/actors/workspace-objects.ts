/** Stores streams of saved states in R2, as objects of one size, and reads ranges of them. */
import { statePartMissing } from "../container/texts.ts";
import { ToolError } from "../shared/errors.ts";
import { isBroken, splitStream } from "../shared/stream-bytes.ts";
import { valueWithin } from "../shared/timers.ts";
import type { ObjectStore } from "../storage/object-store.ts";

/** The size of all objects but the last. It must not change, because stored streams were split by it. */
const OBJECT_BYTES = 4 * 1024 * 1024;

/** An object is collected and sent in pieces of this size, so that a save has the pieces of one object in memory at most. */
const PIECE_BYTES = 256 * 1024;
const OBJECT_PIECES = OBJECT_BYTES / PIECE_BYTES;

/** How many objects are written at once. R2 still works on an object for some time after it was sent. */
const WRITTEN_AT_ONCE = 2;

/** How long one operation of R2 may take. */
const R2_MS = 60_000;

export class StorageError extends Error {
  /** Whether the operation may still take effect. */
  readonly isUnderWay: boolean;

  constructor(cause: unknown, isUnderWay = false) {
    super("R2 does not respond", { cause });
    this.isUnderWay = isUnderWay;
  }
}

interface ObjectRange {
  prefix: string;
  from: number;
  to: number;
}

/** Writes a stream. Returns its length in bytes. @throws {ToolError} if it exceeds `max` @throws {StorageError} */
export async function writeObjects(
  bucket: ObjectStore,
  prefix: string,
  body: ReadableStream<Uint8Array>,
  max: number,
): Promise<number> {
  const writes = new Set<Promise<void>>();
  const sends = new Set<Promise<void>>();
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  let failure: { error: unknown } | undefined;
  /** Writes the collected pieces as an object. Its write begins when all have arrived, because R2 must know the length. */
  const writeObject = () => {
    const { readable, writable } = new FixedLengthStream(pieces.reduce((sum, { length }) => sum + length, 0));
    const writer = writable.getWriter();
    for (const piece of pieces) addUntilSettled(sends, writer.write(piece));
    addUntilSettled(sends, writer.close());
    pieces = [];
    const fail = (error: unknown) => {
      failure ??= { error };
      return writer.abort(error);
    };
    const key = keyOf(prefix, Math.ceil(bytes / OBJECT_BYTES) - 1);
    addUntilSettled(writes, withTimeLimit(bucket.put(key, readable)).catch(fail));
  };
  try {
    for await (const piece of splitStream(body, PIECE_BYTES)) {
      if (bytes + piece.length > max) throw tooLong(max);
      pieces.push(piece);
      bytes += piece.length;
      if (pieces.length === OBJECT_PIECES) {
        while (writes.size >= WRITTEN_AT_ONCE) await Promise.race(writes);
        writeObject();
      }
      while (sends.size + pieces.length >= OBJECT_PIECES) await Promise.race(sends);
      if (failure) break;
    }
    if (!failure && pieces.length > 0) writeObject();
  } finally {
    // Waits for all writes, so that the written objects can be deleted afterwards.
    await Promise.all(writes);
  }
  if (failure) throw failure.error;
  return bytes;
}

/** Adds a promise to a set until it is settled. The promise in the set does not fail. */
function addUntilSettled(set: Set<Promise<void>>, work: Promise<void>): void {
  const settled = work.catch(() => undefined).then(() => void set.delete(settled));
  set.add(settled);
}

/**
 * Writes the bytes of ranges to a stream, in order, until the signal aborts.
 * @throws {ToolError} if an object is missing or too short @throws {StorageError}, and errors of the stream
 */
export async function readObjects(
  bucket: ObjectStore,
  ranges: readonly ObjectRange[],
  into: WritableStream<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const parts = partsOf(ranges);
  const get = ({ key, offset, length }: Part) => {
    const object = withTimeLimit(bucket.get(key, { offset, length }));
    // A read may fail before the loop awaits it. The loop then reports the error.
    object.catch(() => undefined);
    return object;
  };
  try {
    let [next] = parts;
    let ahead = next && get(next);
    for (const [index, part] of parts.entries()) {
      const object = await ahead;
      next = parts[index + 1];
      ahead = next && get(next);
      if (!object || object.size < part.offset + part.length) throw statePartMissing(part.key);
      await object.body
        .pipeTo(into, { preventClose: true, preventAbort: true, signal })
        .catch(async (error: unknown) => {
          throw signal.aborted || (await isBroken(into)) ? error : new StorageError(error);
        });
    }
  } catch (error) {
    await into.abort(error).catch(() => undefined);
    throw error;
  }
  await into.close();
}

interface Part {
  key: string;
  offset: number;
  length: number;
}

function partsOf(ranges: readonly ObjectRange[]): Part[] {
  const parts: Part[] = [];
  for (const { prefix, from, to } of ranges)
    for (let at = from; at < to;) {
      const index = Math.floor(at / OBJECT_BYTES);
      const end = Math.min(to, (index + 1) * OBJECT_BYTES);
      parts.push({ key: keyOf(prefix, index), offset: at - index * OBJECT_BYTES, length: end - at });
      at = end;
    }
  return parts;
}

function keyOf(prefix: string, index: number): string {
  return `${prefix}${String(index).padStart(5, "0")}`;
}

function withTimeLimit<T>(operation: Promise<T>): Promise<T> {
  const done = operation.catch((error: unknown) => {
    throw new StorageError(error);
  });
  return valueWithin(R2_MS, done, () => new StorageError(new Error(`no response after ${R2_MS} ms`), true));
}

function tooLong(max: number): ToolError {
  return new ToolError(
    "too_large",
    `it takes more than the ${Math.floor(max / 1024 / 1024)} MB that are left`,
  );
}
