/** Connections with much data are read in turns, so that the engine's thread has time for other sandboxes. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, it } from "vitest";
import { connectBuffered, connectStreams } from "../../local/engine/buffered-socket.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { readTurns } from "../../local/engine/read-turns.ts";
import { endLater } from "../setup/end-later.ts";
import { listen } from "../setup/listen.ts";

const MIB = 1024 * 1024;
const sent = randomBytes(2 * MIB);
const host = endLater(createServer((socket) => void socket.on("error", () => undefined).end(sent)));
const port = await listen(host);

/** The other end of a tunnel. Keeps what it receives. */
class Program extends Duplex {
  readonly received: Buffer[] = [];

  override _read(): void {}

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    // The tunnel reuses its buffer.
    this.received.push(Buffer.from(bytes));
    setImmediate(done);
  }

  get isComplete(): boolean {
    return Buffer.concat(this.received).equals(sent);
  }
}

async function download(reads: Pieces): Promise<{ program: Program; upstream: Socket }> {
  const upstream = connectBuffered({ port, host: "127.0.0.1" });
  await once(upstream, "connect");
  const program = new Program();
  connectStreams(program, upstream, reads);
  return { program, upstream };
}

it("a hundred downloads read a few pieces at a time, and get all bytes; another sandbox's download need not wait for them", async () => {
  const reads = new Pieces();
  const downloads = await Promise.all(Array.from({ length: 100 }, () => download(reads)));
  const neighbour = await download(new Pieces());
  const readBytes = () => downloads.reduce((sum, { upstream }) => sum + upstream.bytesRead, 0);
  // Until all have read for the first time, none of them waits.
  while (downloads.some(({ upstream }) => upstream.bytesRead === 0)) await turn();
  let most = 0;
  let leftWhenNeighbourEnded = 0;
  while (downloads.some(({ program }) => !program.writableFinished)) {
    const before = readBytes();
    await turn();
    most = Math.max(most, readBytes() - before);
    if (neighbour.program.writableFinished) leftWhenNeighbourEnded ||= 100 * sent.length - readBytes();
  }
  expect(most).toBeLessThanOrEqual(MIB);
  expect(leftWhenNeighbourEnded).toBeGreaterThan(100 * MIB);
  expect([...downloads, neighbour].every(({ program }) => program.isComplete)).toBe(true);
});

it("a few downloads do not wait for turns", async () => {
  const reads = new Pieces();
  const downloads = await Promise.all(Array.from({ length: 4 }, () => download(reads)));
  let waits = 0;
  for (const { upstream } of downloads)
    upstream.on("pause", () => void (readTurns.isWaiting(upstream) && (waits += 1)));
  await Promise.all(downloads.map(({ program }) => once(program, "finish")));
  expect(waits).toBe(0);
});
