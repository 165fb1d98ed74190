/** Response bodies that a sandbox can send. */
import { describe, expect, it } from "vitest";
import { readBounded } from "../../src/shared/stream-bytes.ts";
import { Turns } from "../../src/shared/turns.ts";

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
  expect(await readBounded(respondInPieces(100), { maxBytes: 10_000, ms: 300 })).toBeUndefined();
});

describe("of several large response bodies", () => {
  const MIB = 1024 * 1024;

  /** A response that sends almost `MIB` bytes, and never ends. */
  function respondWithoutEnd(onSent: (bytes: number) => void): Response {
    const { readable, writable } = new IdentityTransformStream();
    const write = async () => {
      const writer = writable.getWriter();
      for (let sent = 0; sent < MIB - 16_384; sent += 16_384) {
        await writer.write(new Uint8Array(16_384));
        onSent(16_384);
      }
    };
    write().catch(() => undefined);
    return new Response(readable);
  }

  it("the server reads two at once, and only the first 64 KiB of the others", async () => {
    let taken = 0;
    const turns = new Turns(2);
    const read = () =>
      readBounded(
        respondWithoutEnd((bytes) => (taken += bytes)),
        { maxBytes: MIB, ms: 500, turns },
      );
    expect(await Promise.all(Array.from({ length: 20 }, read))).toEqual(Array(20).fill(undefined));
    // Two bodies, the first 64 KiB of 18 others, and the data that streams buffer.
    expect(taken).toBeLessThan(8 * MIB);
    expect(taken).toBeGreaterThan(MIB);
  });

  it("those that wait are read when others have ended", async () => {
    const turns = new Turns(2);
    const read = () => readBounded(new Response(new Uint8Array(MIB)), { maxBytes: MIB, turns });
    const bodies = await Promise.all(Array.from({ length: 20 }, read));
    expect(bodies.map((bytes) => bytes?.length)).toEqual(Array(20).fill(MIB));
  });
});
