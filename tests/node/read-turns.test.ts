/** Connections with much data are read in turns, so that the engine's thread has time for other sandboxes. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { Duplex, PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, it } from "vitest";
import { connectBuffered, connectStreams } from "../../local/engine/buffered-socket.ts";
import { FramedConnection } from "../../local/engine/frames.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { readTurns } from "../../local/engine/read-turns.ts";
import { endLater } from "../setup/end-later.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { listen } from "../setup/listen.ts";
import { sleep } from "../setup/until.ts";

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

it("a connection that another limit counts while it waits has only one turn, and its end delays no other connection", async () => {
  const [reads, pieces] = [new Pieces(), new Pieces()];
  const [first, second] = [new PassThrough(), new PassThrough()];
  reads.join(first);
  reads.read(first, MIB);
  expect(readTurns.isWaiting(first)).toBe(true);
  // Node resumes a connection before its reader can pause it again, and may read meanwhile.
  first.resume();
  pieces.read(first, 1);
  first.destroy();
  await once(first, "close");
  reads.read(second, MIB);
  for (let left = 100; left > 0 && readTurns.isWaiting(second); left--) await turn();
  expect(readTurns.isWaiting(second)).toBe(false);
});

it("WebSockets with long messages read a few pieces at a time, and get all bytes", async () => {
  const message = Buffer.concat([Buffer.from("827f0000000000100000", "hex"), randomBytes(MIB)]);
  const server = endLater(createServer((socket) => void socket.on("error", () => undefined).end(message)));
  const at = await listen(server);
  const pieces = new Pieces({ pace: new Pace({ burst: 1e9, perSecond: 1e9 }) });
  const connections = Array.from({ length: 100 }, () => {
    const socket = connect(at, "127.0.0.1");
    return new FramedConnection(socket, pieces, true, () => undefined);
  });
  // Data of all connections arrives before anything is read.
  await sleep(300);
  let read = 0;
  const complete = connections.map(async (connection) => {
    const chunks: Buffer[] = [];
    connection.on("data", (bytes: Buffer) => {
      read += bytes.length;
      chunks.push(bytes);
    });
    await once(connection, "end");
    return Buffer.concat(chunks).equals(message);
  });
  let most = 0;
  while (read < 100 * message.length) {
    const before = read;
    await turn();
    most = Math.max(most, read - before);
  }
  expect(most).toBeLessThanOrEqual(2 * MIB);
  expect(await Promise.all(complete)).not.toContain(false);
});
