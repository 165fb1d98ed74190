/** Bytes that arrive one by one and belong to no body: the engine counts each read. */
import { once } from "node:events";
import { get } from "node:http";
import { connect, createServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import { connect as connectTLS } from "node:tls";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Pace } from "../../container/sandboxd/pace.ts";
import { PREVIEW_PORT } from "../../container/sandboxd/protocol.ts";
import { problemWithTLS } from "../../local/engine/client-hello.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { ACCEPTED } from "../../local/engine/proxy-listeners.ts";
import { startTLSOver } from "../../local/engine/tls-records.ts";
import { startProxy, upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { forwardTo } from "../setup/forwarder.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { until } from "../setup/until.ts";

const CONNECTIONS = 8;
/** Without a limit, the engine reads at least this many single bytes. */
const DRIPPED = 16_000;

// The limits get no tokens back while the clock stands still.
beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

/** Connects with the buffer of server-connections.ts, so that a paused connection reads nothing. */
async function connectLikeServer(port: number): Promise<Socket> {
  const options = { port, host: "127.0.0.1", highWaterMark: 1 };
  const socket = connect(options);
  await once(socket, "connect");
  return socket;
}

/** Writes a byte to each connection in each turn of the event loop, until `read` stops growing. Returns the value of `read`. */
async function drip(connections: readonly Socket[], byte: string, read: () => number): Promise<number> {
  for (let before = -1; before < read() && read() < DRIPPED;) {
    before = read();
    for (let turn = 0; turn < 100; turn++) {
      for (const connection of connections) connection.write(byte);
      await nextTurn();
    }
  }
  return read();
}

it.each([
  ["the head of a response", "HTTP/1.1 200 OK\r\nX: ", "x"],
  ["line ends before a response", "", "\n"],
  ["the length of a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0"],
])("%s from a sandbox is read at a limited rate", async (_what, head, byte) => {
  const inside: Socket[] = [];
  const program = endLater(
    createServer({ noDelay: true }, (socket) => {
      socket
        .on("error", () => undefined)
        .once("data", () => {
          socket.write(head);
          inside.push(socket);
        });
    }),
  );
  const port = await listen(program);
  const { forwarder, dialed: outside, engine } = forwardTo(() => connectLikeServer(port));
  endLater(forwarder);
  endLater(engine);
  const address = { port: await listen(engine), headers: { [PREVIEW_PORT]: "8080" } };
  for (let n = 0; n < CONNECTIONS; n++)
    get(address, (response) => response.resume().on("error", () => undefined)).on("error", () => undefined);
  await until(() => inside.length === CONNECTIONS);
  const read = () => outside.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  expect(await drip(inside, byte, read)).toBeLessThan(DRIPPED / 2);
});

it("a kept connection that sends bytes without a request is closed", async () => {
  const program = endLater(
    createServer((socket) => {
      const respond = () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      socket.on("error", () => undefined).on("data", respond);
      unasked.push(() => socket.write("x"));
    }),
  );
  const unasked: (() => void)[] = [];
  const port = await listen(program);
  const { forwarder, dialed: outside, engine } = forwardTo(() => connectLikeServer(port));
  endLater(forwarder);
  endLater(engine);
  const url = `http://127.0.0.1:${await listen(engine)}/`;
  for (let n = 0; n < 3; n++) expect((await fetch(url)).status).toBe(200);
  expect(outside).toHaveLength(1);
  unasked[0]?.();
  await until(() => outside[0]?.destroyed);
  expect((await fetch(url)).status).toBe(200);
});

const RECORD = Buffer.from([22, 3, 1, 0x3f, 0, 1, 0, 0x3e, 0xf0]);

it.each([
  [
    "the ClientHello in a tunnel",
    (socket: Duplex, reads: Pieces) =>
      void problemWithTLS("host.test", socket, Buffer.alloc(0), reads).catch(() => undefined),
  ],
  [
    "a TLS record",
    (socket: Duplex, reads: Pieces) =>
      void startTLSOver(socket, reads, (records) => connectTLS({ socket: records }))
        .on("error", () => undefined)
        .unref(),
  ],
])("single bytes of %s are read at a limited rate", async (_what, read) => {
  const reads = new Pieces({ pace: new Pace({ burst: 50, perSecond: 1 }) });
  const socket = new Duplex({ read: () => undefined, write: (_bytes, _encoding, done) => done() });
  read(socket, reads);
  socket.push(RECORD);
  for (let n = 0; n < 100; n++) {
    socket.push(Buffer.alloc(1));
    await nextTurn();
  }
  expect(reads.isPaused).toBe(true);
  socket.destroy();
});

it("the records of a handshake are read at a limited rate, also if many arrive together", async () => {
  const reads = new Pieces({ pace: new Pace({ burst: 50, perSecond: 1 }) });
  const socket = new Duplex({ read: () => undefined, write: (_bytes, _encoding, done) => done() });
  startTLSOver(socket, reads, (records) => connectTLS({ socket: records })).on("error", () => undefined);
  // A ServerHello of 16,000 bytes, in records of one byte.
  const message = Buffer.concat([Buffer.from([2, 0, 0x3e, 0x80]), Buffer.alloc(100)]);
  socket.emit("data", Buffer.concat(Array.from(message, (byte) => Buffer.from([22, 3, 3, 0, 1, byte]))));
  await nextTurn();
  expect(reads.isPaused).toBe(true);
  socket.destroy();
});

it.each([
  ["the head of a request", "GET / HTTP/1.1\r\nX: ", "x"],
  ["line ends before a request", "", "\n"],
  [
    "the length of a chunk",
    "POST http://host.test/ HTTP/1.1\r\nHost: host.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    "0",
  ],
])("%s to the proxy of a sandbox is read at a limited rate", async (_what, head, byte) => {
  const host = endLater(createServer((socket) => socket.on("error", () => undefined).resume()));
  const { proxy, port } = await startProxy({ upstream: upstreamTo({ "host.test:80": await listen(host) }) });
  const accepted: Socket[] = [];
  proxy.on(ACCEPTED, (socket: Socket) => accepted.push(socket));
  const programs = await Promise.all(Array.from({ length: CONNECTIONS }, () => connectTo(port)));
  for (const program of programs)
    program
      .setNoDelay()
      .on("error", () => undefined)
      .write(head);
  await until(() => accepted.length === CONNECTIONS);
  const read = () => accepted.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  expect(await drip(programs, byte, read)).toBeLessThan(DRIPPED / 2);
});
