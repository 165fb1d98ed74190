import { within } from "./within.ts";

/**
 * A stream in pieces of so many bytes, of which the last one may be shorter.
 * @param body a stream of bytes, as responses have them: workerd itself fills each piece
 */
export async function* inPieces(body: ReadableStream<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  const reader = body.getReader({ mode: "byob" });
  try {
    for (;;) {
      const { value, done } = await reader.readAtLeast(bytes, new Uint8Array(bytes));
      if (value && value.length > 0) yield value;
      if (done) return;
    }
  } finally {
    // Nothing is left to cancel where it has ended.
    await reader.cancel().catch(() => undefined);
  }
}

/** How long a body may take, milliseconds, and how many bytes are read of it at once. */
const READ_MS = 60_000;
const READ_BYTES = 64 * 1024;

interface Bounds {
  maxBytes: number;
  /** How many bytes of a body that is too large are still read, and thrown away; none unless given. */
  drainBytes?: number;
  /** How long it may take, milliseconds. */
  ms?: number;
}

/**
 * A whole body, counted as it arrives. The runtime gathers its pieces: each one that JavaScript gets takes some kilobytes, also
 * when it is a single byte.
 * @throws what reading it throws, such as for a client that disconnects
 */
export async function gather(
  { body, headers }: Pick<Request | Response, "body" | "headers">,
  { maxBytes, drainBytes = 0, ms = READ_MS }: Bounds,
): Promise<{ bytes: Uint8Array<ArrayBuffer> } | { problem: "too_large" | "too_slow" }> {
  let whole = new Uint8Array();
  if (!body) return { bytes: whole };
  const until = Date.now() + ms;
  const reader = body.getReader({ mode: "byob" });
  try {
    // A short body needs no more room than it announces, and one byte in which its end shows.
    let room = Math.min(READ_BYTES, Number(headers.get("content-length") ?? READ_BYTES) + 1) || READ_BYTES;
    for (let bytes = 0; ; room = READ_BYTES) {
      const reading = reader.readAtLeast(room, new Uint8Array(room));
      const read = await within(until - Date.now(), reading);
      if (!read) return { problem: "too_slow" };
      const { value, done } = read;
      const length = value?.length ?? 0;
      const isEnd = done || length < room;
      if (bytes + length > maxBytes) {
        if (isEnd || bytes + length > maxBytes + drainBytes) return { problem: "too_large" };
        whole = new Uint8Array();
      } else {
        if (bytes + length > whole.length) {
          const larger = new Uint8Array(Math.min(maxBytes, 2 * (bytes + length)));
          larger.set(whole);
          whole = larger;
        }
        if (value) whole.set(value, bytes);
      }
      bytes += length;
      if (isEnd) return { bytes: whole.subarray(0, bytes) };
    }
  } finally {
    // Not waited for: what sends it may be at it for ever.
    reader.cancel().catch(() => undefined);
  }
}

/**
 * The body of an answer.
 * @param ms how long it may take
 * @returns undefined for a body of more than so many bytes, one that takes longer, and one in an encoding: none is ever asked for
 */
export async function readBounded(
  response: Response,
  maxBytes: number,
  ms = READ_MS,
): Promise<Uint8Array | undefined> {
  if (isEncoded(response)) {
    await response.body?.cancel();
    return undefined;
  }
  const read = await gather(response, { maxBytes, ms });
  return "bytes" in read ? read.bytes : undefined;
}

/** Whether the runtime decodes the body, so that its length on the wire says nothing of its length here. */
export function isEncoded({ headers }: Response): boolean {
  return (headers.get("content-encoding") ?? "identity") !== "identity";
}
