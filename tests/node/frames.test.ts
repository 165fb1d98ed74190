import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, it } from "vitest";
import { FramedConnection } from "../../local/engine/frames.ts";
import { maxMessageBytes } from "../../local/engine/frames.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { sleep, until } from "../setup/until.ts";

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

it("the memory of an incomplete message counts each read and each fragment, until the message is complete", async () => {
  const socket = new PassThrough();
  const counted: { memory: number; isComplete: boolean }[] = [];
  const onRead = (memory: number, isComplete: boolean) => void counted.push({ memory, isComplete });
  const connection = new FramedConnection(socket, new Pieces(), true, onRead);
  connection.resume();
  const send = async (text: string) => {
    socket.write(Buffer.from(text, "latin1"));
    await sleep(10);
    return counted
      .splice(0)
      .reduce((sum, { memory, isComplete }) => ({ memory: sum.memory + memory, isComplete }), {
        memory: 0,
        isComplete: true,
      });
  };
  const [ping, whole] = ["\x89\x00", "\x82\x01x"];
  expect(await send(ping)).toMatchObject({ isComplete: true });
  expect(await send(whole)).toMatchObject({ isComplete: true });
  const fragments = await send("\x02\x01x" + "\x00\x01x".repeat(30));
  expect(fragments.isComplete).toBe(false);
  expect(fragments.memory).toBeGreaterThan(30 * 500);
  expect(await send(ping)).toMatchObject({ isComplete: false });
  expect(await send("\x80\x01x")).toMatchObject({ isComplete: true });
  const part = await send("\x82\x7e\xff\xffx");
  expect(part.isComplete).toBe(false);
  expect((await send("x")).memory).toBeGreaterThan(500);
});

it("a connection whose socket was destroyed ends", async () => {
  const socket = new PassThrough();
  const connection = new FramedConnection(socket, new Pieces(), true, () => undefined);
  // `ws` ends its direction when the other one has ended.
  connection.once("end", () => connection.end()).resume();
  socket.destroy();
  await once(connection, "close", { signal: AbortSignal.timeout(5000) });
  expect(connection.destroyed).toBe(true);
});

it("short reads of a long frame are limited like frames", async () => {
  const pace = new Pace({ burst: 100, perSecond: 1 });
  const socket = new PassThrough();
  const connection = new FramedConnection(socket, new Pieces({ pace }), true, () => undefined);
  connection.resume();
  socket.write(Buffer.from("\x82\x7f\x00\x00\x00\x00\x00\xff\xff\xff", "latin1"));
  for (let count = 0; count < 40; count++) {
    socket.write("x");
    await sleep(1);
  }
  expect(connection.isPaused()).toBe(true);
});

/** A message of one byte. */
const FRAME = "\x82\x01x";

it("a connection with one frame does not wait behind connections that flood their sandbox with frames", async () => {
  const pieces = new Pieces({ pace: new Pace({ burst: 1000, perSecond: 20_000 }) });
  const open = (frames: number) => {
    const socket = new PassThrough();
    const connection = new FramedConnection(socket, pieces, true, () => undefined);
    socket.write(Buffer.from(FRAME.repeat(frames), "latin1"));
    return connection;
  };
  const floods = Array.from({ length: 10 }, () => open(20_000));
  let passedBytes = 0;
  for (const flood of floods) flood.on("data", ({ length }: Buffer) => (passedBytes += length));
  await until(() => pieces.isPaused);
  await once(open(1), "data");
  expect(passedBytes).toBeLessThan((10 * 20_000 * FRAME.length) / 2);
  for (const flood of floods) flood.destroy();
});
