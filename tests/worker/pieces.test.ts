/** Response bodies and saves that a sandbox can send. */
import { describe, expect, it } from "vitest";
import { readObjects, writeObjects } from "../../src/actors/workspace-objects.ts";
import type { ObjectStore } from "../../src/storage/object-store.ts";
import { readBounded } from "../../src/shared/stream-bytes.ts";
import { bucket, sleep } from "./support.ts";

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

const MIB = 1024 * 1024;

describe("a saved stream", () => {
  it.each([0, 1, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB])(
    "of %d bytes becomes objects of 4 MiB, and is read again",
    async (length) => {
      const content = new Uint8Array(length).map((_, at) => (at * 31) ^ (at >> 12));
      const prefix = `pieces/${length}/pack.`;
      expect(await writeObjects(bucket, prefix, new Blob([content]).stream(), length)).toBe(length);
      const { keys } = await bucket.list(prefix);
      const sizes = await Promise.all(keys.sort().map(async (key) => (await bucket.get(key))?.size));
      const rest = length % (4 * MIB);
      expect(sizes).toEqual([
        ...Array<number>((length - rest) / (4 * MIB)).fill(4 * MIB),
        ...(rest > 0 ? [rest] : []),
      ]);
      const { readable, writable } = new IdentityTransformStream();
      const ranges = [{ prefix, from: 0, to: length }];
      const [read] = await Promise.all([
        new Response(readable).bytes() as Promise<Uint8Array<ArrayBuffer>>,
        readObjects(bucket, ranges, writable, new AbortController().signal),
      ]);
      expect(read.length).toBe(length);
      expect(await digest(read)).toEqual(await digest(content));
    },
  );

  it("is read only as far as 4 MiB while the store takes nothing", async () => {
    let taken = 0;
    const body = new ReadableStream({
      type: "bytes",
      pull(controller) {
        taken += 65_536;
        controller.enqueue(new Uint8Array(65_536));
      },
    });
    const failure = Promise.withResolvers<never>();
    const store: ObjectStore = { ...bucket, put: () => failure.promise };
    const written = writeObjects(store, "pieces/slow/pack.", body, 100 * MIB);
    await expect.poll(() => taken).toBeGreaterThanOrEqual(4 * MIB);
    await sleep(200);
    expect(taken).toBeLessThan(5 * MIB);
    failure.reject(new Error("R2 is not there"));
    await expect(written).rejects.toThrow("R2 does not respond");
  });
});

const digest = async (bytes: Uint8Array<ArrayBuffer>) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
