/** Bodies of answers as a sandbox can send them. */
import { expect, it } from "vitest";
import { readBounded } from "../../src/shared/stream-bytes.ts";

/** An endless response in pieces of one byte. */
function inPieces(count: number): Response {
  const { readable, writable } = new IdentityTransformStream();
  const write = async () => {
    const writer = writable.getWriter();
    for (let sent = 0; sent < count; sent++) await writer.write(Uint8Array.of(sent));
  };
  // Its reader may leave.
  write().catch(() => undefined);
  return new Response(readable);
}

it("a body that does not end is abandoned", async () => {
  expect(await readBounded(inPieces(100), 10_000, 300)).toBeUndefined();
});
