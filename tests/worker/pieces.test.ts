/** Bodies of answers as a sandbox can send them. */
import { expect, it } from "vitest";
import { readBounded } from "../../src/shared/pieces.ts";

/** An answer in pieces of one byte. With `isEndless` its body does not end. */
function inPieces(count: number, isEndless = false): Response {
  const { readable, writable } = new IdentityTransformStream();
  const write = async () => {
    const writer = writable.getWriter();
    for (let sent = 0; sent < count; sent++) await writer.write(Uint8Array.of(sent));
    if (!isEndless) await writer.close();
  };
  // Its reader may leave.
  write().catch(() => undefined);
  return new Response(readable);
}

it("a body in pieces of one byte is read as one of the same bytes", async () => {
  const bytes = Uint8Array.from({ length: 10_000 }, (_, n) => n);
  expect(await readBounded(inPieces(10_000), 10_000)).toEqual(bytes);
  expect(await readBounded(inPieces(10_000), 9999)).toBeUndefined();
  expect(await readBounded(new Response(bytes), 10_000)).toEqual(bytes);
  expect(await readBounded(new Response(null), 10)).toEqual(new Uint8Array());
});

it("a body of several times what is read at once is read whole, up to its bound", async () => {
  const bytes = Uint8Array.from({ length: 300_000 }, (_, n) => n * 7);
  expect(await readBounded(new Response(bytes), 300_000)).toEqual(bytes);
  expect(await readBounded(new Response(bytes), 299_999)).toBeUndefined();
});

it("a body that does not end is given up", async () => {
  expect(await readBounded(inPieces(100, true), 10_000, 300)).toBeUndefined();
});
