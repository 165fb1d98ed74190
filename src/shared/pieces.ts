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

/** How long a body may take once its answer has begun, milliseconds, and how many bytes are read of it at once. */
const READ_MS = 60_000;
const READ_BYTES = 64 * 1024;

/**
 * The body of an answer, counted as it arrives. The runtime gathers its pieces: each one that JavaScript gets takes some
 * kilobytes, also when it is a single byte.
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
  let whole = new Uint8Array();
  if (!response.body) return whole;
  const until = Date.now() + ms;
  const reader = response.body.getReader({ mode: "byob" });
  try {
    for (let bytes = 0; ;) {
      const reading = reader.readAtLeast(READ_BYTES, new Uint8Array(READ_BYTES));
      const read = await within(until - Date.now(), reading);
      if (!read) return undefined;
      const { value, done } = read;
      const length = value?.length ?? 0;
      if (bytes + length > maxBytes) return undefined;
      if (bytes + length > whole.length) {
        const larger = new Uint8Array(Math.min(maxBytes, 2 * (bytes + length)));
        larger.set(whole);
        whole = larger;
      }
      if (value) whole.set(value, bytes);
      bytes += length;
      if (done || length < READ_BYTES) return whole.subarray(0, bytes);
    }
  } finally {
    // Not waited for: what sends it may be at it for ever.
    reader.cancel().catch(() => undefined);
  }
}

/** Whether the runtime decodes the body, so that its length on the wire says nothing of its length here. */
export function isEncoded({ headers }: Response): boolean {
  return (headers.get("content-encoding") ?? "identity") !== "identity";
}
