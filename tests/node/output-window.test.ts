/** How much output of many runs sandboxd sends before the actor has stored it. */
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { PIECE_BYTES, LEAST_WINDOW_BYTES, WINDOW_BYTES } from "../../container/sandboxd/protocol.ts";
import { OutputStream } from "../../container/sandboxd/stream.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const streams: OutputStream[] = [];
afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
});

/** A stream with twice WINDOW_BYTES of output, and how many of its bytes were sent. */
function fullStream() {
  const path = join(temporaryDirectory(), "stdout");
  writeFileSync(path, "");
  truncateSync(path, 2 * WINDOW_BYTES);
  const ignore = () => undefined;
  const stream = new OutputStream("stdout", path, undefined, ignore, ignore);
  streams.push(stream);
  let sent = 0;
  stream.follow(0, (offset, bytes) => (sent = offset + bytes.length));
  stream.grow();
  return { stream, sent: () => sent };
}

it("a stream sends a window ahead", () => {
  expect(fullStream().sent()).toBe(WINDOW_BYTES);
});

it("the streams of a sandbox together send little more than two windows ahead", () => {
  const many = Array.from({ length: 100 }, fullStream);
  const sum = many.reduce((bytes, { sent }) => bytes + sent(), 0);
  expect(sum).toBeLessThanOrEqual(2 * WINDOW_BYTES + many.length * (LEAST_WINDOW_BYTES + PIECE_BYTES));
  // Each stream sends something, so that the actor's next acknowledgement lets it continue.
  for (const { stream, sent } of many) {
    const before = sent();
    expect(before).toBeGreaterThan(0);
    stream.acknowledge(before);
    expect(sent()).toBeGreaterThan(before);
  }
});

it("a stream that is not followed any more leaves its share of the windows to others", () => {
  for (const { stream } of [fullStream(), fullStream()]) stream.unfollow();
  expect(fullStream().sent()).toBe(WINDOW_BYTES);
});
