/** A stream in pieces of so many bytes, of which the last one may be shorter. */
export async function* inPieces(body: ReadableStream<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(bytes);
  let filled = 0;
  for await (const chunk of body) {
    for (let taken = 0; taken < chunk.length;) {
      const part = chunk.subarray(taken, taken + bytes - filled);
      piece.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled < bytes) continue;
      yield piece;
      piece = new Uint8Array(bytes);
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}
