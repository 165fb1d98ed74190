/** Response bodies that a sandbox can send. */
import { expect, it } from "vitest";
import { readBounded } from "../../src/shared/stream-bytes.ts";

/** A response that sends this number of bytes, each in its own piece, and never ends. */
function respondInPieces(count: number): Response {
  const { readable, writable } = new IdentityTransformStream();
  const write = async () => {
    const writer = writable.getWriter();
    for (let sent = 0; sent < count; sent++) await writer.write(Uint8Array.of(sent));
  };
  // The reader may cancel the response.
  write().catch(() => undefined);
  return new Response(readable);
}

it("the server stops reading a response body that does not end", async () => {
  expect(await readBounded(respondInPieces(100), 10_000, 300)).toBeUndefined();
});
