/** A program floods its sandbox's egress proxy: the engine keeps a bounded amount, and other sandboxes get their responses. */
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createTCPServer, type Socket } from "node:net";
import { expect, it } from "vitest";
import { startProxy, upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { sleep } from "../setup/until.ts";

const MIB = 1024 * 1024;

/** Writes requests into eight connections as fast as the server reads them. Exits when all connections are closed. */
const FLOOD = `node -e '
  const { connect } = require("node:net");
  const request = "GET http://anthropic.internal/ HTTP/1.1\\r\\nHost: anthropic.internal\\r\\n\\r\\n";
  const piece = Buffer.from(request.repeat(1000));
  let open = 8;
  for (let n = 0; n < 8; n++) {
    const socket = connect(3128);
    let left = 200;
    const write = () => {
      while (left-- > 0) if (!socket.write(piece)) return;
      socket.end();
    };
    socket.on("connect", write).on("drain", write).on("error", () => {}).resume();
    socket.on("close", () => { if (--open === 0) process.exit(); });
  }
  setTimeout(process.exit, 20_000);
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
const allowAddresses = [
  `internet.test:80=${await listen(endLater(internet))}`,
  `aligned.test:80=${await listen(endLater(aligned))}`,
];
const engine = endLater(await startTestEngine({ allowAddresses }));
const neighbour = await TestSandbox.start(engine);
const CURL = "curl -sS --max-time 5 http://internet.test/";

it("requests without a response take little memory, do not delay later ones, and other sandboxes get responses", async () => {
  const intercepts = { http: ["anthropic.internal"], https: [] };
  const attacker = await TestSandbox.start(engine, { intercepts });
  const before = process.memoryUsage().rss;
  let peak = before;
  const measuring = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 100);
  const attack = attacker.run(FLOOD).finally(() => clearInterval(measuring));
  await sleep(200);
  expect((await neighbour.run(CURL)).stdout).toBe("hello");
  await attack;
  expect((peak - before) / MIB).toBeLessThan(200);
  await expect.poll(async () => (await attacker.run(CURL)).stdout).toBe("hello");
});

it("the engine survives a response whose header ends exactly where a read ends, and whose body the program does not read", async () => {
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
  expect((await neighbour.run(CURL)).stdout).toBe("hello");
});

/** The beginning of a TLS handshake of 2,000 bytes. */
const HANDSHAKE = [1, 0, 7, 208];

it.each([
  ["never ends", [22, 3, 1, 7, 212, ...HANDSHAKE]],
  ["has records of one byte", [...HANDSHAKE, ...Buffer.alloc(900)].flatMap((byte) => [22, 3, 1, 0, 1, byte])],
])("the proxy closes a connection whose TLS handshake %s", async (_what, bytes) => {
  const host = await listen(endLater(createTCPServer((socket) => socket.on("error", () => undefined))));
  const policy = { internet: "allowlist", allowHosts: ["host.test"] } as const;
  const { port } = await startProxy({ upstream: upstreamTo({ "host.test:443": host }), policy });
  const client = await connectTo(port);
  client.on("error", () => undefined).write("CONNECT host.test:443 HTTP/1.1\r\nHost: host.test\r\n\r\n");
  expect(String(await once(client, "data"))).toContain("200");
  client.write(Buffer.from(bytes));
  await once(client.resume(), "close");
  expect(client.destroyed).toBe(true);
});

it("of thousands of pipelined requests, only a hundred are served", async () => {
  const resolve = () => new Promise<string[]>(() => undefined);
  const { proxy, port } = await startProxy({ upstream: { ...upstreamTo(), resolve } });
  let served = 0;
  proxy.on("request", () => served++);
  const dropped = once(proxy, "dropRequest");
  const client = await connectTo(port);
  client.on("error", () => undefined).resume();
  client.write("GET http://host.test/ HTTP/1.1\r\n\r\n".repeat(3000));
  await dropped;
  expect(served).toBe(100);
});
