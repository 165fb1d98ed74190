/** A sandbox floods its egress proxy: neither the engine nor other sandboxes are disturbed. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, IncomingMessage } from "node:http";
import { connect, createServer as createTCPServer, Socket } from "node:net";
import { expect, it, onTestFinished, vi } from "vitest";
import { PassThrough } from "node:stream";
import { connectBuffered, connectStreams } from "../../local/engine/buffered-socket.ts";
import { ACCEPTED, serveListeners } from "../../local/engine/proxy-listeners.ts";
import {
  gather,
  Pieces,
  readsTogether,
  requestPiecesTogether,
  requestsOf,
  shortReads,
} from "../../local/engine/piece-limit.ts";
import { RequestLimiter } from "../../local/engine/request-limiter.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { boundedLookups } from "../../local/engine/upstream.ts";
import { elapsedMs } from "../../src/shared/timers.ts";
import { startProxy, upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { listen } from "../setup/listen.ts";
import { sleep, until } from "../setup/until.ts";

const MIB = 1024 * 1024;
/** The pause between two requests of the neighbour. Without it, they would take too much processor time. */
const PAUSE_MS = 200;

/** Writes requests into connections as fast as the server reads them. Exits when all connections are closed. */
const flood = (connections: number, requests: number) => `node -e '
  const { connect } = require("node:net");
  const request = "GET http://anthropic.internal/ HTTP/1.1\\r\\nHost: anthropic.internal\\r\\n\\r\\n";
  const piece = Buffer.from(request.repeat(1000));
  let open = ${connections}, sent = 0;
  for (let n = 0; n < ${connections}; n++) {
    const socket = connect(3128);
    let left = ${requests} / 1000;
    const write = () => {
      while (left-- > 0) { sent += 1000; if (!socket.write(piece)) return; }
      socket.end();
    };
    socket.on("connect", write).on("drain", write).on("error", () => {}).resume();
    socket.on("close", () => { if (--open === 0) { console.log(sent); process.exit(); } });
  }
  setTimeout(() => { console.log("open:", open); process.exit(); }, 20_000);
'`;

/** Sends 4,000 interim responses at once, and no final response. */
const interim = createTCPServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", () => socket.write("HTTP/1.1 100\r\n\r\n".repeat(4000)));
});
/** Sends a response whose header ends exactly where one of the engine's reads (64 KiB) ends. The next read gets the whole body. */
async function sendAligned(socket: Socket): Promise<void> {
  const early = (bytes: number) => `HTTP/1.1 103 Early Hints\r\na: ${"b".repeat(bytes - 33)}\r\n\r\n`;
  // The kernel's receive buffer grows.
  for (let burst = 0; burst < 5; burst++) {
    socket.write(early(8000).repeat(3));
    await sleep(5);
  }
  await sleep(50);
  const head = "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
  const padding = early(8000).repeat(7) + early(65_536 - 56_000 - head.length);
  socket.write(padding + head + "x".repeat(60_000));
}

const aligned = createTCPServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", () => void sendAligned(socket));
});

const internet = createServer((request, response) => request.resume().on("end", () => response.end("hello")));
const internetPort = await listen(endLater(internet));
const engine = endLater(
  await startTestEngine({
    hasAuthority: true,
    allowAddresses: [
      `internet.test:80=${internetPort}`,
      `internet.test:443=${internetPort}`,
      `interim.test:80=${await listen(endLater(interim))}`,
      `aligned.test:80=${await listen(endLater(aligned))}`,
    ],
  }),
);
const startIntercepted = () =>
  TestSandbox.start(engine, { intercepts: { http: ["anthropic.internal"], https: [] } });
const [attacker, neighbour] = await Promise.all([startIntercepted(), startIntercepted()]);

it("requests without a response take little memory, and other sandboxes get their responses", async () => {
  const before = process.memoryUsage().rss;
  let peak = before;
  let isOver = false;
  const attack = attacker.run(flood(8, 200_000)).finally(() => (isOver = true));
  let responses = 0;
  while (!isOver) {
    const { stdout } = await neighbour.run("curl -sS http://internet.test/");
    expect(stdout).toBe("hello");
    responses += 1;
    peak = Math.max(peak, process.memoryUsage().rss);
    await sleep(PAUSE_MS);
  }
  await attack;
  expect(responses).toBeGreaterThan(0);
  expect((peak - before) / MIB).toBeLessThan(200);
  // The flood does not delay later requests.
  await expect
    .poll(async () => (await attacker.run("curl -sS --max-time 5 http://internet.test/")).stdout)
    .toBe("hello");
});

it("the engine refuses a TLS handshake that has records of one byte or never ends, and other sandboxes get their responses", async () => {
  const flooding = await TestSandbox.start(engine, {
    policy: { internet: "allowlist", allowHosts: ["internet.test"] },
  });
  const code = `
import concurrent.futures, select, socket
def begun():
    one = socket.create_connection(("127.0.0.1", 3128)); one.settimeout(20)
    one.sendall(b"CONNECT internet.test:443 HTTP/1.1\\r\\nHost: internet.test:443\\r\\n\\r\\n")
    assert one.recv(65536).startswith(b"HTTP/1.1 200")
    return one
record = lambda byte: b"\\x16\\x03\\x01\\x00\\x01" + byte
def pieces(_):
    one = begun()
    # A message of 2,000 bytes. Less than half of it is ever sent.
    try: one.sendall(record(b"\\x01") + record(b"\\x00") + record(b"\\x07") + record(b"\\xd0") + record(b"\\x00") * 900)
    except ConnectionError: return True
    one.settimeout(5)
    try: return one.recv(100)[:1] in (b"\\x15", b"")
    except ConnectionError: return True
    except TimeoutError: return False
def slow():
    one = begun(); one.sendall(b"\\x16\\x03\\x01\\x07\\xd4\\x01\\x00\\x07\\xd0")
    try:
        for _ in range(60):
            one.sendall(b"\\x00")
            if select.select([one], [], [], 0.4)[0]: return one.recv(100)[:1] in (b"\\x15", b"")
    except ConnectionError: return True
    return False
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    trickle = pool.submit(slow)
    print(all(pool.map(pieces, range(200))), trickle.result())
`;
  let isOver = false;
  const attack = flooding.python(code).finally(() => (isOver = true));
  while (!isOver) {
    expect((await neighbour.run("curl -sS http://internet.test/")).stdout).toBe("hello");
    await sleep(PAUSE_MS);
  }
  expect(await attack).toMatchObject({ stdout: "True True", stderr: "" });
});

it("request bodies in chunks of one byte do not disturb other sandboxes, whether the engine accepts or refuses the requests", async () => {
  const chunks = `node -e '
    const { connect } = require("node:net");
    const piece = Buffer.from("1\\r\\nx\\r\\n".repeat(10_000));
    const open = (host) => {
      const socket = connect(3128);
      const write = () => { while (socket.write(piece)); };
      socket.write("POST http://" + host + "/ HTTP/1.1\\r\\nHost: " + host + "\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n");
      socket.on("connect", write).on("drain", write).on("error", () => {}).resume();
      socket.on("close", () => setTimeout(open, 50, host));
    };
    for (let n = 0; n < 60; n++) { open("anthropic.internal"); open("10.0.0.1"); }
    setTimeout(() => process.exit(), 1200);
  '`;
  const callsDuring = async (command: string) => {
    let isOver = false;
    const running = attacker.run(command).finally(() => (isOver = true));
    let calls = 0;
    for (; !isOver; calls += 1) expect((await neighbour.run("echo hello")).stdout).toBe("hello");
    expect((await running).stderr).toBe("");
    return calls;
  };
  const busy =
    "node -e 'setTimeout(() => {}, 1200); const end = Date.now() + 1200; while (Date.now() < end);'";
  // Other tests may disturb one measurement.
  const shares: number[] = [];
  while (shares.length < 3 && !shares.some((share) => share > 1 / 3)) {
    const atRest = await callsDuring(busy);
    shares.push((await callsDuring(chunks)) / atRest);
  }
  expect(Math.max(...shares)).toBeGreaterThan(1 / 3);
  // Another sandbox can still upload a complete body.
  const { stdout } = await neighbour.run(
    "head -c 3000000 /dev/zero | curl -sS -o /dev/null -w '%{http_code}' --max-time 20 -T - http://internet.test/",
  );
  expect(stdout).toBe("200");
});

it("the engine survives a response whose header ends exactly where a read ends, and whose body the program does not read", async () => {
  // The attacker may still have to wait after its floods.
  const sandbox = await TestSandbox.start(engine);
  const script = `import socket, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
s.connect(("127.0.0.1", 3128))
for _ in range(6):
    s.sendall(b"GET http://aligned.test/ HTTP/1.1\\r\\nHost: aligned.test\\r\\n\\r\\n")
    time.sleep(0.5)
print(s.recv(12))`;
  expect(await sandbox.python(script)).toMatchObject({ stdout: "b'HTTP/1.1 200'", stderr: "" });
  expect((await neighbour.run("curl -sS http://internet.test/")).stdout).toBe("hello");
  await sandbox.destroy();
});

it("the engine serves the first of several pipelined requests, and makes the client repeat the others", async () => {
  const requests = "GET http://internet.test/ HTTP/1.1\\r\\nHost: internet.test\\r\\n\\r\\n".repeat(10);
  const { stdout } = await neighbour.run(
    `node -e 'require("node:net").connect(3128).on("connect", function () { this.write("${requests}"); }).pipe(process.stdout)'`,
  );
  expect(stdout.match(/HTTP\/1.1 200 OK/g)).toHaveLength(1);
  expect(stdout).toMatch(/Connection: close[^]*hello/);
});

it.each([
  [
    "with an unknown expectation",
    "GET http://internet.test/ HTTP/1.1\\r\\nHost: internet.test\\r\\nExpect: x",
    /^HTTP\/1.1 417(?![^]*HTTP\/1.1 )/,
  ],
  ["without a host", "GET /internet.test/ HTTP/1.1", /does not name a host/],
])("only the first of several pipelined requests %s gets a response", async (_kind, head, response) => {
  const { stdout } = await neighbour.run(
    `node -e 'require("node:net").connect(3128).on("connect", function () { this.write("${head}\\r\\n\\r\\n".repeat(10)); }).pipe(process.stdout)'`,
  );
  expect(stdout).toMatch(response);
});

it("the engine looks up no name for a client that disconnected while the look-up waited", async () => {
  const lookups: string[] = [];
  const pending: (() => void)[] = [];
  const { resolve } = boundedLookups({
    allowAddresses: new Map(),
    env: {},
    resolve: async (host) => {
      lookups.push(host);
      await new Promise<void>((finish) => pending.push(finish));
      return [host];
    },
  });
  const first = ["a", "b", "c", "d"].map((name) => resolve?.(name));
  const abandoning = new AbortController();
  const abandoned = Array.from({ length: 100 }, (_, n) => resolve?.(`${n}`, abandoning.signal));
  const last = resolve?.("last");
  abandoning.abort();
  const outcomes = await Promise.allSettled(abandoned);
  expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
  await expect(resolve?.("late", abandoning.signal)).rejects.toThrow("has disconnected");
  for (const finish of pending.splice(0)) finish();
  await Promise.all(first);
  await expect.poll(() => pending.length).toBe(1);
  pending[0]?.();
  expect(await last).toEqual(["last"]);
  expect(lookups).toEqual(["a", "b", "c", "d", "last"]);
});

it("look-ups that never end, in ten sandboxes of one principal, leave most threads to others", async () => {
  const lookups: string[] = [];
  const options = {
    allowAddresses: new Map(),
    env: {},
    resolve: async (host: string) => {
      lookups.push(host);
      return host === "quick" ? [host] : await new Promise<string[]>(() => undefined);
    },
  };
  const sandboxOf = (principal: string) => boundedLookups(boundedLookups(options, principal));
  const greedy = Array.from({ length: 10 }, () => sandboxOf("greedy"));
  for (const { resolve } of greedy) for (const name of ["a", "b", "c", "d", "e"]) void resolve?.(name);
  await sleep(10);
  expect(lookups).toHaveLength(8);
  expect(await sandboxOf("neighbour").resolve?.("quick")).toEqual(["quick"]);
});

it("a look-up with thousands of addresses delays the sandbox's next look-ups", async () => {
  const lookups: string[] = [];
  const { resolve } = boundedLookups({
    allowAddresses: new Map(),
    env: {},
    resolve: async (host) => {
      lookups.push(host);
      return Array.from({ length: 500 }, () => "127.0.0.1");
    },
  });
  /** The ends of the delays, of one millisecond for each address. */
  const ends: (() => void)[] = [];
  const setTimer = setTimeout;
  const timer = vi.spyOn(globalThis, "setTimeout").mockImplementation(((end: () => void, ms: number) => {
    if (ms !== 500) return setTimer(end, ms);
    ends.push(end);
    return setTimer(() => undefined, 0);
  }) as never);
  onTestFinished(() => timer.mockRestore());
  await Promise.all(["a", "b", "c", "d"].map((name) => resolve?.(name)));
  const next = resolve?.("next");
  await sleep(10);
  expect(lookups).toHaveLength(4);
  ends[0]?.();
  await next;
  expect(lookups).toHaveLength(5);
});

it("requests of disconnected clients stop waiting, and do not delay others", async () => {
  const limiter = new RequestLimiter(createServer());
  const clients = Array.from({ length: 20_000 }, () => new PassThrough());
  const waits = clients.map((client) => limiter.waitForRate(client, "direct"));
  for (const client of clients) client.destroy();
  await Promise.all(waits);
  // If requests of disconnected clients counted, this would take a minute and a half.
  expect(await limiter.waitForRate(new PassThrough(), "direct")).toBe(true);
});

it("the engine pauses reading from hosts that send thousands of interim responses", async () => {
  const sandbox = await TestSandbox.start(engine);
  const code = `
import select, socket, time
proxy = lambda: socket.create_connection(("127.0.0.1", 3128))
asking = [proxy() for _ in range(100)]
for one in asking: one.sendall(b"GET http://interim.test/ HTTP/1.1\\r\\nHost: interim.test\\r\\n\\r\\n")
refused = lambda: len(select.select(asking, [], [], 0.1)[0])
while refused() == 0: pass
time.sleep(5)
print(refused() < 50)
`;
  expect(await sandbox.python(code)).toMatchObject({ stdout: "True", stderr: "" });
  expect((await neighbour.run("curl -sS http://internet.test/")).stdout).toBe("hello");
  await sandbox.destroy();
});

it("a body that its receiver does not read pauses its connection at once", () => {
  const socket = new Socket();
  const message = new IncomingMessage(socket);
  gather(message, new Pieces());
  message.push(Buffer.alloc(65_536));
  // Node would read up to 2 MB of a fast sender before the next turn of the event loop.
  expect(socket.isPaused()).toBe(true);
});

it.each([
  ["pieces", () => new Pieces(), requestPiecesTogether, 10_000],
  ["reads", shortReads, readsTogether, 2500],
])(
  "short %s of all sandboxes of a principal are limited together, and those of other principals are not",
  (_kind, create, together, most) => {
    const sandboxesOf = (principal: string) =>
      Array.from({ length: 10 }, () => {
        const pieces = create();
        pieces.pace.together = together.of(principal);
        return pieces;
      });
    const [attacking, other] = [sandboxesOf("attacker"), sandboxesOf("neighbour")];
    // Each of the sandboxes stays below its own limit.
    for (const pieces of attacking) for (let piece = 0; piece < most; piece++) pieces.take(1);
    for (const pieces of other) pieces.take(1);
    expect(attacking.filter(({ isPaused }) => isPaused).length).toBeGreaterThanOrEqual(4);
    expect(other.some(({ isPaused }) => isPaused)).toBe(false);
  },
);

it("the rest of a request whose response has ended is read at a limited rate", async () => {
  // A machine without free processors reads less than the usual rate allows.
  const pieces = new Pieces({ pace: new Pace({ burst: 1000, perSecond: 100 }) });
  const server = createServer({ IncomingMessage: requestsOf(pieces) }, (_request, response) =>
    response.end(),
  );
  pieces.watch(server);
  const client = connect(await listen(server), "127.0.0.1");
  client
    .on("error", () => undefined)
    .write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n");
  const write = () => {
    while (client.write(Buffer.alloc(MIB)));
  };
  client.on("drain", write);
  write();
  await expect.poll(() => pieces.isPaused).toBe(true);
  client.destroy();
  server.closeAllConnections();
  server.close();
});

/** Connects two ends in this process by a tunnel. */
async function openTunnel(reads: Pieces) {
  const proxy = createServer();
  proxy.on(ACCEPTED, (socket: Socket) => proxy.emit("connection", socket) && socket.resume());
  const listener = createTCPServer();
  const host = endLater(createTCPServer({ noDelay: true }));
  const port = await listen(listener);
  doLater(serveListeners(proxy, [listener]));
  const upstream = connectBuffered({ port: await listen(host), host: "127.0.0.1", noDelay: true });
  const [outside] = (await once(host, "connection")) as [Socket];
  const program = connect({ port, host: "127.0.0.1", noDelay: true });
  program.write("CONNECT host.test:443 HTTP/1.1\r\n\r\n");
  const [, client] = (await once(proxy, "connect")) as [IncomingMessage, Socket];
  connectStreams(client, upstream, reads);
  for (const socket of [program, client, upstream, outside]) socket.on("error", () => undefined);
  doLater(() => [program, upstream, outside].forEach((socket) => socket.destroy()));
  return { program, host: outside, client, upstream };
}

it.each([
  ["program", "client"],
  ["host", "upstream"],
] as const)(
  "the engine counts single bytes from the %s of a tunnel, and pauses reading them",
  async (from, reading) => {
    const pace = new Pace({ burst: 50, perSecond: 10 });
    const reads = new Pieces({ pace });
    const tunnel = await openTunnel(reads);
    const drip = setInterval(() => void tunnel[from].write("x"), 1);
    await until(() => reads.isPaused);
    // Makes the pause long enough for this test.
    pace.take(1000);
    // What was already under way is still read.
    await until(async () => {
      const before = tunnel[reading].bytesRead;
      await sleep(300);
      return tunnel[reading].bytesRead === before;
    });
    expect(reads.isPaused).toBe(true);
    clearInterval(drip);
  },
);

it("tunnels close when their programs end, although their rate is limited", async () => {
  const reads = new Pieces({ pace: new Pace({ burst: 500, perSecond: 500 }) });
  const tunnels = await Promise.all(Array.from({ length: 40 }, () => openTunnel(reads)));
  for (const { host } of tunnels) host.resume();
  const drip = setInterval(() => {
    for (const { program } of tunnels) program.write("x");
  }, 1);
  await until(() => reads.isPaused);
  await sleep(200);
  clearInterval(drip);
  for (const { program } of tunnels) program.end();
  await expect
    .poll(() => tunnels.every((tunnel) => tunnel.client.destroyed && tunnel.upstream.destroyed), {
      timeout: 30_000,
    })
    .toBe(true);
});

/** Sends bytes in short pieces, which exhaust the limit, and long ones, which fill the buffers. @returns how often the limit paused them */
async function sendPieces(to: Socket, sent: Buffer, limit: Pieces): Promise<number> {
  let pauses = 0;
  for (let at = 0, n = 0; at < sent.length; n++) {
    const end = Math.min(sent.length, at + (n % 2 === 0 ? 100 : 100_000));
    if (!to.write(sent.subarray(at, end))) await once(to, "drain");
    limit.take(0, 100);
    pauses += Number(limit.isPaused);
    at = end;
  }
  return pauses;
}

it("a tunnel passes on all bytes unchanged while its rate is limited", async () => {
  // Each count below exceeds this burst, however slowly the test runs.
  const pieces = new Pieces({ pace: new Pace({ burst: 50, perSecond: 20_000 }) });
  const { program, host } = await openTunnel(pieces);
  const sent = randomBytes(20 * MIB);
  for (const [from, to] of [
    [program, host],
    [host, program],
  ] as const) {
    const received: Buffer[] = [];
    to.on("data", (bytes: Buffer) => void received.push(bytes));
    const rests = await sendPieces(from, sent, pieces);
    await until(() => received.reduce((sum, { length }) => sum + length, 0) === sent.length);
    expect(Buffer.concat(received).equals(sent)).toBe(true);
    expect(rests).toBeGreaterThan(0);
  }
});

/** Requests a response through a proxy with this limit of short reads, whose only host is a server in this process. */
async function ask(reads: Pieces, serve: (socket: Socket) => void): Promise<Socket> {
  const host = createTCPServer({ noDelay: true }, (socket) => {
    socket.on("error", () => undefined).once("data", () => serve(socket));
  });
  const upstream = upstreamTo({ "host.test:80": await listen(endLater(host)) });
  const { port } = await startProxy({ reads, upstream });
  const client = connect(port, "127.0.0.1");
  client.on("error", () => undefined).write("GET http://host.test/ HTTP/1.1\r\nHost: host.test\r\n\r\n");
  doLater(() => client.destroy());
  return client;
}

it.each([
  ["a response of known length", "Content-Length: 1000000\r\n\r\n", "x"],
  ["a response that ends with its connection", "\r\n", "x"],
  ["a response in chunks", "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"],
  ["the head of a response", "X: ", "x"],
])("the engine counts single bytes of %s, and pauses reading them", async (_kind, head, piece) => {
  const reads = new Pieces({ pace: new Pace({ burst: 50, perSecond: 10 }) });
  let drip: NodeJS.Timeout | undefined;
  await ask(reads, (socket) => {
    socket.write(`HTTP/1.1 200 OK\r\n${head}`);
    drip = setInterval(() => void socket.write(piece), 1);
  });
  await expect.poll(() => reads.isPaused).toBe(true);
  clearInterval(drip);
});

it("a response of known length is passed on unchanged while its rate is limited", async () => {
  const reads = new Pieces({ pace: new Pace({ burst: 50, perSecond: 20_000 }) });
  const sent = randomBytes(20 * MIB);
  let rests = 0;
  const client = await ask(reads, async (socket) => {
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${sent.length}\r\n\r\n`);
    rests = await sendPieces(socket, sent, reads);
  });
  let received = Buffer.alloc(0);
  const pieces: Buffer[] = [];
  client.on("data", (bytes: Buffer) => void pieces.push(bytes));
  await until(() => {
    received = Buffer.concat(pieces);
    return received.length >= sent.length + received.indexOf("\r\n\r\n") + 4;
  });
  expect(received.subarray(received.indexOf("\r\n\r\n") + 4).equals(sent)).toBe(true);
  expect(rests).toBeGreaterThan(0);
});

it("the engine begins a limited number of simultaneous TLS handshakes, and further ones wait", async () => {
  const intercepts = { http: [], https: ["secret.test"] };
  const sandbox = await TestSandbox.start(engine, { intercepts });
  const code = `
import select, socket
proxy = lambda: socket.create_connection(("127.0.0.1", 3128))
tunnels = [proxy() for _ in range(240)]
for one in tunnels: one.sendall(b"CONNECT secret.test:443 HTTP/1.1\\r\\nHost: secret.test:443\\r\\n\\r\\n")
begun = lambda: len(select.select(tunnels, [], [], 0.1)[0])
while begun() < 100: pass
overtook = False
for _ in range(20):
    one = proxy(); one.sendall(b"GET http://10.0.0.1/ HTTP/1.1\\r\\nHost: 10.0.0.1\\r\\n\\r\\n")
    assert one.recv(100).startswith(b"HTTP/1.1 403")
    overtook = overtook or begun() < 240
print(overtook)
`;
  expect(await sandbox.python(code)).toMatchObject({
    stdout: "True",
    stderr: "",
  });
  await sandbox.destroy();
});

it.each([3_600_000, 86_400_000])("a pause stays as long if a Worker's clock is set back by %d ms", (ms) => {
  let now = 100_000_000;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const pace = new Pace({ burst: 10, perSecond: 10 });
  expect(pace.take(30)).toBe(2000);
  now -= ms;
  expect(pace.take(0)).toBe(2000);
  now += 2000;
  expect(pace.take(0)).toBe(0);
  // The clock of a request that computes may be behind those of other requests. Switching between these clocks gives no tokens.
  expect(pace.take(10)).toBe(1000);
  now -= 100;
  pace.take(0);
  now += 100;
  expect(pace.take(0)).toBe(1000);
  clock.mockRestore();
});

it("a time that only the clock of another request has reached is not long ago, as it is after a clock was set back", () => {
  expect(elapsedMs(Date.now() + 100)).toBe(0);
  expect(elapsedMs(Date.now() + 3_600_000)).toBe(Infinity);
});
