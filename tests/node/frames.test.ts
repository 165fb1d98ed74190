import { PassThrough } from "node:stream";
import { expect, it } from "vitest";
import { FramedConnection } from "../../local/engine/frames.ts";
import { maxMessageBytes } from "../../local/engine/control-guard.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { sleep } from "../setup/until.ts";

it("frames that arrive with the headers of their connection stay in order, also if the reader is slow", async () => {
  const socket = new PassThrough();
  const connection = new FramedConnection(socket, new Pieces(), false, () => undefined);
  const frame = (letter: string) => Buffer.from(`\x82\x03${letter.repeat(3)}`, "latin1");
  socket.write(Buffer.concat([Buffer.from("headers"), frame("a")]));
  connection.read(0);
  await sleep(10);
  // More arrives before the headers are read.
  socket.write(frame("b"));
  await sleep(10);
  const frames: Buffer[] = [];
  connection.once("data", (first: Buffer) => {
    connection.begin();
    connection.unshift(first.subarray("headers".length));
    connection.on("data", (bytes: Buffer) => frames.push(bytes));
  });
  await expect.poll(() => Buffer.concat(frames).length).toBe(10);
  expect(Buffer.concat(frames)).toEqual(Buffer.concat([frame("a"), frame("b")]));
});

it("a frame that announces an impossible length pauses its sandbox's connections no longer than the longest message does", async () => {
  const bytes = new Pace({ burst: 0, perSecond: maxMessageBytes });
  const socket = new PassThrough();
  const connection = new FramedConnection(socket, new Pieces({ bytes }), true, () => undefined);
  socket.write(Buffer.from(`\x82\x7f${"\xff".repeat(8)}`, "latin1"));
  connection.read(0);
  await sleep(10);
  expect(bytes.take(0)).toBeLessThanOrEqual(1000);
});
