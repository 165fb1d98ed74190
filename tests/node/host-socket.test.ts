/** Hosts that do not read what a sandbox has sent, although the sandbox's program has received everything and disconnected. */
import { once } from "node:events";
import { createServer as createHTTPServer } from "node:http";
import { createServer as createHTTPSServer } from "node:https";
import { connect, createServer, Socket } from "node:net";
import { Duplex } from "node:stream";
import { callbackify } from "node:util";
import { expect, it, vi } from "vitest";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import { connectStreams } from "../../local/engine/buffered-socket.ts";
import { createEgress, type Egress, sendWithinPolicy } from "../../local/engine/egress.ts";
import { HostSocket, trackHost } from "../../local/engine/host-socket.ts";
import { InternetRequests } from "../../local/engine/internet-requests.ts";
import { shortReads } from "../../local/engine/piece-limit.ts";
import { egressFor, upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { connectTo, countConnections, listen } from "../setup/listen.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { until } from "../setup/until.ts";

const COUNT = 3;
/** The kernel takes this much for a host that does not read, also if the machine has little memory for TCP. */
const SENT = Buffer.alloc(1_000_000);
/** A host may receive nothing for 60 s. */
const LATE_MS = 61_000;

/** Starts a host, and the settings of a proxy for it. */
async function startHost(onConnection: (socket: Socket) => void) {
  const sockets: Socket[] = [];
  const host = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    sockets.push(socket.on("error", () => undefined));
    onConnection(socket);
  });
  doLater(() => sockets.forEach((socket) => socket.destroy()));
  const port = await listen(endLater(host));
  const upstream = upstreamTo({ "host.test:80": port, "host.test:443": port });
  return { port, sockets, egress: egressFor({ upstream }) };
}

/** Programs send through tunnels to a host that reads nothing, close their direction, and then disconnect as the host closes its own. */
async function sendToUnreading() {
  const host = await startHost(() => undefined);
  const proxy = await listen(endLater(createEgress(host.egress)));
  const programs = Array.from({ length: COUNT }, () =>
    connect({ port: proxy, host: "127.0.0.1", allowHalfOpen: true }),
  );
  for (const program of programs) {
    program
      .on("error", () => undefined)
      .write("CONNECT host.test:443 HTTP/1.1\r\nHost: host.test:443\r\n\r\n");
    expect(String(await once(program, "data"))).toContain("200");
    program.resume();
    await new Promise((resolve) => void program.write(SENT, resolve));
    program.end();
  }
  const closed = programs.map(async (program) => await once(program, "close"));
  // The proxy has passed on everything.
  await until(() => [...host.egress.hosts].every((socket) => socket.writableFinished));
  host.sockets.forEach((socket) => socket.end());
  await Promise.all(closed);
  return host;
}

/** Waits until the engine has closed the connections to hosts that receive nothing. Meanwhile, a minute passes again and again. */
async function untilClosed({ hosts }: Egress): Promise<void> {
  const now = performance.now.bind(performance);
  let later = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now() + later);
  doLater(() => clock.mockRestore());
  const isClosed = () => {
    later += LATE_MS;
    return hosts.size === 0;
  };
  // `until` would use the same clock.
  await expect.poll(isClosed, { interval: 100 }).toBe(true);
}

it("a host that reads slowly receives everything after the program and the host have closed a tunnel", async () => {
  const { egress, sockets } = await sendToUnreading();
  const received = sockets.map(async (socket) => {
    let bytes = 0;
    for await (const data of socket) bytes += (data as Buffer).length;
    return bytes;
  });
  expect(await Promise.all(received)).toEqual(sockets.map(() => SENT.length));
  await until(() => egress.hosts.size === 0);
});

it("the proxy counts a closed tunnel until its host has read, and resets it after a minute", async () => {
  const { egress, port } = await sendToUnreading();
  expect(egress.hosts.size).toBe(COUNT);
  await untilClosed(egress);
  expect(countConnections(port)).toBe(0);
});

it("a tunnel whose host receives nothing for a minute is reset, and not one whose host is slow", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "setTimeout"] });
  doLater(() => void vi.useRealTimers());
  const received: (() => void)[] = [];
  const write = (_data: Buffer, _encoding: string, done: () => void) => void received.push(done);
  const upstream = new Duplex({ write, read: () => undefined });
  const program = new Duplex({ write: (_data, _encoding, done) => done(), read: () => undefined });
  connectStreams(program, upstream, shortReads());
  upstream.push(null);
  for (const data of ["one", "two", "three", null]) program.push(data);
  await new Promise((resolve) => void program.once("close", resolve));
  for (let minutes = 0; minutes < 2; minutes++) {
    received.shift()?.();
    await vi.advanceTimersByTimeAsync(LATE_MS);
    expect(upstream.destroyed).toBe(false);
  }
  await vi.advanceTimersByTimeAsync(LATE_MS);
  expect(upstream.destroyed).toBe(true);
});

it("of too many connections, the engine resets the one whose host has received nothing for the longest time", async () => {
  const { egress } = await sendToUnreading();
  const [oldest] = egress.hosts;
  if (!(oldest instanceof HostSocket)) throw new Error("no connection");
  // The kernel may buffer everything for a host that reads a part, so the lists say that this host has received more.
  for (const unsent of [SENT.length, SENT.length / 2])
    oldest.closeIfReceived({ of: new Map([[oldest.name ?? "", { unsent, unread: 0 }]]), isComplete: true });
  while (egress.hosts.size < 256) trackHost(egress.hosts, new Socket());
  trackHost(egress.hosts, new Socket());
  await until(() => egress.hosts.size === 256);
  expect(egress.hosts.has(oldest)).toBe(true);
});

it.each([
  ["read only a part", 40_000_000],
  ["read nothing more", 1_000_000],
])("the proxy keeps no data for a host that has responded early and %s", async (_what, bytes) => {
  const { egress, port, sockets } = await startHost((socket) => {
    socket
      .once("data", () => socket.pause().write("HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nhi"))
      .resume();
  });
  const proxy = await listen(endLater(createEgress(egress)));
  for (let count = 0; count < COUNT; count++) {
    const program = await connectTo(proxy);
    program.on("error", () => undefined);
    let received = "";
    program.on("data", (data) => (received += data));
    const head = `POST http://host.test/ HTTP/1.1\r\nHost: host.test\r\nContent-Length: ${bytes}\r\n\r\n`;
    program.write(head);
    program.write(Buffer.alloc(bytes));
    await until(() => received.endsWith("hi"));
    expect(received).toContain("413");
    program.destroy();
  }
  expect(sockets).toHaveLength(COUNT);
  await untilClosed(egress);
  expect(countConnections(port)).toBe(0);
});

it("the engine keeps no data of the Worker's HTTPS requests for a host that stops reading", async () => {
  const authority = await CertificateAuthority.open(temporaryDirectory());
  const options = { SNICallback: callbackify((name: string) => authority.contextFor(name)) };
  const tls = createHTTPSServer(options, (request) => void request.resume().on("error", () => undefined));
  const inside = await listen(endLater(tls));
  let unread = 0;
  /** Passes on the handshake, and then reads no more. */
  const { egress, port } = await startHost((socket) => {
    const inner = connect(inside, "127.0.0.1").on("error", () => undefined);
    let bytes = 0;
    inner.on("data", (data) => void socket.write(data));
    socket.on("close", () => inner.destroy());
    socket.on("data", (data) => {
      inner.write(data);
      bytes += data.length;
      if (bytes < 1_000_000) return;
      socket.pause();
      unread++;
    });
    socket.resume();
  });
  egress.upstream = { ...egress.upstream, authorities: [authority.pem] };
  const requests = new InternetRequests(300);
  const engine = createHTTPServer((request, response) => {
    requests.add(request, response);
    void sendWithinPolicy(egress, request, response, new URL("https://host.test/"), []);
  });
  const enginePort = await listen(endLater(engine));
  for (let count = 0; count < COUNT; count++) {
    const worker = await connectTo(enginePort);
    worker.on("error", () => undefined);
    worker.write("POST / HTTP/1.1\r\nHost: engine\r\nContent-Length: 40000000\r\n\r\n");
    worker.write(Buffer.alloc(20_000_000));
    await until(() => unread > count);
    worker.resetAndDestroy();
  }
  await until(() => egress.hosts.size === 0);
  expect(countConnections(port)).toBe(0);
});
