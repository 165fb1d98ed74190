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
