/** A program floods its sandbox's egress proxy: the engine keeps a bounded amount, and other sandboxes get their responses. */
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createTCPServer, type Socket } from "node:net";
import { expect, it, vi } from "vitest";
import { Pace } from "../../container/sandboxd/pace.ts";
import { elapsedMs } from "../../src/shared/timers.ts";
import { startProxy, upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { sleep } from "../setup/until.ts";

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

it.each([
  ["to the proxy", ""],
  ["behind one that waits", "GET http://host.test/ HTTP/1.1\r\n\r\n"],
  ["with a tunnel", "CONNECT host.test:80 HTTP/1.1\r\n\r\n"],
])("of thousands of pipelined requests %s, only a hundred are served", async (_what, first) => {
  const resolve = () => new Promise<string[]>(() => undefined);
  const policy = { internet: "allowlist" as const, allowHosts: ["host.test"] };
  const { proxy, port } = await startProxy({ upstream: { ...upstreamTo(), resolve }, policy });
  let served = 0;
  proxy.on("request", () => served++);
  const dropped = once(proxy, "dropRequest");
  const client = await connectTo(port);
  client.on("error", () => undefined).resume();
  client.write(first + "GET / HTTP/1.1\r\n\r\n".repeat(3000));
  await dropped;
  expect(served).toBe(100);
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
