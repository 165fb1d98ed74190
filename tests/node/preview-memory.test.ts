/** The memory of the engine for WebSocket messages that programs in sandboxes do not complete or do not read. */
import { connect, createServer as createTCPServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { afterEach, expect, it, vi } from "vitest";
import { PREVIEW_PORT } from "../../container/sandboxd/protocol.ts";
import { endLater } from "../setup/end-later.ts";
import { forwardTo } from "../setup/forwarder.ts";
import { acceptOf } from "../setup/handshake.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { sleep, until } from "../setup/until.ts";

const MIB = 1024 * 1024;
/** Almost the longest message. */
const MESSAGE_BYTES = 15 * MIB;
/** The pause before another try of a refused connection. */
const RETRY_MS = 100;

/** A visitor's request for a WebSocket. */
const handshake = [
  "GET / HTTP/1.1",
  "Host: sandbox",
  `${PREVIEW_PORT}: 8080`,
  "Upgrade: websocket",
  "Connection: Upgrade",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "",
  "",
].join("\r\n");

afterEach(() => void vi.useRealTimers());

/** A program that completes the handshake of each visitor and then calls `send`. Returns its port. */
async function startProgram(send = sendAlmostAll): Promise<number> {
  const server = createTCPServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (head) => {
      socket.write(acceptOf(String(head)));
      send(socket);
    });
  });
  endLater(server);
  return listen(server);
}

/** Sends almost all of a message. */
function sendAlmostAll(socket: Socket): void {
  const frame = Buffer.alloc(10);
  frame.set([0x82, 127]);
  frame.writeBigUInt64BE(BigInt(MESSAGE_BYTES), 2);
  socket.write(frame);
  socket.write(Buffer.alloc(MESSAGE_BYTES - 1));
}

/** Sends a message without end: a fragment of one byte among so many pongs that each read of 64 KiB contains one. */
function sendFragments(socket: Socket): void {
  const pong = Buffer.concat([Buffer.from([0x8a, 125]), Buffer.alloc(125)]);
  const pongs = Buffer.concat(Array.from({ length: 516 }, () => pong));
  const fragments = Buffer.concat(Array.from({ length: 256 }, () => [Buffer.from([0, 1, 0]), pongs]).flat());
  socket.write(Buffer.from([2, 1, 0]));
  socket.write(fragments);
}

/** A sandbox's previews, all of the same program. */
async function startPreviews(principal: string, program: number) {
  const { forwarder, dialed: sent, engine } = forwardTo(() => connectTo(program));
  forwarder.joinPrincipal(principal);
  const port = await listen(engine);
  endLater(engine);
  let visitors: Socket[] = [];
  /** Opens a WebSocket. If the server refuses it because of the limit of connections a second, opens it again later. */
  const openVisitor = () => {
    const visitor = connect(port, "127.0.0.1").on("error", () => undefined);
    visitor.once("data", (head) => {
      if (!String(head).startsWith("HTTP/1.1 503")) return;
      visitors = visitors.filter((other) => other !== visitor);
      setTimeout(openVisitor, RETRY_MS);
    });
    visitor.resume().write(handshake);
    visitors.push(visitor);
  };
  return {
    /** Opens WebSockets, and waits until each has its whole incomplete message or is closed. */
    async visit(count: number): Promise<void> {
      for (let n = 0; n < count; n++) openVisitor();
      await until(
        () => sent.length === count && sent.every((s) => s.destroyed || s.bytesRead > MESSAGE_BYTES),
      );
      await until(() => visitors.filter(isOpen).length === sent.filter(isOpen).length);
    },
    get open(): number {
      return sent.filter(isOpen).length;
    },
    async leave(): Promise<void> {
      for (const visitor of visitors) visitor.destroy();
      await until(() => !sent.some(isOpen));
      sent.length = 0;
      visitors = [];
    },
  };
}

const isOpen = ({ destroyed }: Socket) => !destroyed;

it("previews of all sandboxes of a principal share a limit of memory, and those of other principals do not", async () => {
  const program = await startProgram();
  const [one, two, other] = await Promise.all(
    ["attacker", "attacker", "neighbour"].map((principal) => startPreviews(principal, program)),
  );
  if (!one || !two || !other) throw new Error("unreachable");
  await one.visit(6);
  await two.visit(6);
  // 8 incomplete messages have 120 MiB, and the limit is 128 MiB. If several messages exceed it at the same time, more of them
  // may end than necessary.
  expect(one.open + two.open).toBeLessThanOrEqual(8);
  expect(one.open + two.open).toBeGreaterThanOrEqual(4);
  await other.visit(6);
  expect(other.open).toBe(6);
  // Connections that have ended do not count any more.
  await one.leave();
  await two.leave();
  await two.visit(8);
  expect(two.open).toBe(8);
  await Promise.all([two.leave(), other.leave()]);
});

it.each([
  ["is longer than a piece of output", sendAlmostAll, MIB],
  ["has many fragments, because each keeps a whole read in memory", sendFragments, 4 * MIB],
])("the engine closes a connection to sandboxd whose message %s", async (_what, send, most) => {
  const program = await startProgram(send);
  const { dialed: sent, engine } = forwardTo(() => connectTo(program));
  const port = await listen(engine);
  endLater(engine);
  const actor = connect(port, "127.0.0.1").on("error", () => undefined);
  actor.resume().write(handshake.replace(`${PREVIEW_PORT}: 8080\r\n`, ""));
  await until(() => sent[0]?.destroyed === true || (sent[0]?.bytesRead ?? 0) > MESSAGE_BYTES);
  expect(sent[0]?.bytesRead).toBeLessThan(most);
});

/** A connection whose other end sends a request and reads nothing. */
class SilentVisitor extends Duplex {
  override _read(): void {}
  override _write(): void {}
}

it("previews read no further messages for visitors who read nothing, also while many connections wait for turns to read", async () => {
  const payload = 60_000;
  const message = Buffer.concat([
    Buffer.from([0x82, 126, payload >> 8, payload & 255]),
    Buffer.alloc(payload),
  ]);
  const program = createTCPServer((socket) => {
    const send = () => {
      while (socket.write(message));
    };
    socket.on("error", () => undefined).on("drain", send);
    socket.once("data", (head) => {
      socket.write(acceptOf(String(head)));
      send();
    });
  });
  endLater(program);
  const port = await listen(program);
  const { dialed: connections, engine } = forwardTo(() => connectTo(port));
  const count = 40;
  const visitors = Array.from({ length: count }, () => {
    const visitor = new SilentVisitor();
    engine.emit("connection", visitor);
    visitor.push(handshake);
    return visitor;
  });
  const readBytes = () => connections.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  await until(() => readBytes() > count * MIB);
  for (let before = -1; before < readBytes();) {
    before = readBytes();
    await sleep(1000);
  }
  // Of each WebSocket, 1 MiB waits for its visitor, and some pieces are in Node's buffers.
  expect(readBytes()).toBeLessThan(1.4 * count * MIB);
  for (const visitor of visitors) visitor.destroy();
});

/** A message of the actor, binary and masked with zeros, and the beginning of another one. */
function actorMessages(): Buffer {
  const frame = Buffer.alloc(14 + MESSAGE_BYTES);
  frame.set([0x82, 0xff]);
  frame.writeBigUInt64BE(BigInt(MESSAGE_BYTES), 2);
  return Buffer.concat([frame, frame.subarray(0, MIB)]);
}

/** sandboxd's place in a sandbox, taken by a program that reads nothing. */
async function startDeaf(principal?: string) {
  const program = await startProgram((socket) => socket.pause());
  const { forwarder, dialed: sent, engine } = forwardTo(() => connectTo(program));
  if (principal !== undefined) forwarder.joinPrincipal(principal);
  const port = await listen(engine);
  endLater(engine);
  /** Sends messages over a new connection. The engine does not read the second one while the first one waits. */
  const send = (): Socket => {
    const actor = connect(port, "127.0.0.1").on("error", () => undefined);
    actor.once("data", () => actor.write(actorMessages()));
    actor.resume().write(handshake.replace(`${PREVIEW_PORT}: 8080\r\n`, ""));
    return actor;
  };
  /** Waits until the engine has the message of each connection, or has closed it. */
  const hasSent = (count: number) =>
    until(() => sent.length === count && sent.every((s) => s.destroyed || s.bytesWritten > MESSAGE_BYTES));
  return { sent, send, hasSent };
}

it("the engine ends a connection whose program reads nothing, also if the actor has ended it before", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  const { sent, send, hasSent } = await startDeaf();
  const actors = [send(), send()];
  await hasSent(2);
  actors[0]?.resetAndDestroy();
  vi.advanceTimersByTime(10_000);
  await sleep(100);
  expect(sent.filter(isOpen).length).toBe(2);
  vi.advanceTimersByTime(20_000);
  await until(() => !sent.some(isOpen));
  for (const actor of actors) actor.destroy();
});

it("the connections of a sandbox to our servers share a limit of memory", async () => {
  const { sent, send, hasSent } = await startDeaf();
  const actors: Socket[] = [];
  for (let n = 1; n <= 8; n++) {
    actors.push(send());
    await hasSent(n);
  }
  // Four messages have 60 MiB, and the limit is 64 MiB.
  expect(sent.filter(isOpen).length).toBe(4);
  for (const socket of [...actors, ...sent]) socket.destroy();
});

it("the connections of all sandboxes of a principal to our servers share a limit, and a message to each still fits", async () => {
  const actors: Socket[] = [];
  const dialed: Socket[] = [];
  const fill = async (principal: string, messages: number) => {
    const { sent, send, hasSent } = await startDeaf(principal);
    for (let n = 1; n <= messages; n++) {
      actors.push(send());
      await hasSent(n);
    }
    dialed.push(...sent);
    return sent.filter(isOpen).length;
  };
  // Nine messages have 135 MiB, and the limit is 128 MiB.
  expect([await fill("attacker", 4), await fill("attacker", 4)]).toEqual([4, 4]);
  expect(await fill("attacker", 4)).toBe(1);
  expect(await fill("attacker", 1)).toBe(1);
  expect(await fill("neighbour", 4)).toBe(4);
  for (const socket of [...actors, ...dialed]) socket.destroy();
});
