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
const internetPort = await listen(endLater(internet));
const allowAddresses = [
  `internet.test:80=${internetPort}`,
  `internet.test:443=${internetPort}`,
  `aligned.test:80=${await listen(endLater(aligned))}`,
];
const engine = endLater(await startTestEngine({ allowAddresses }));
const neighbour = await TestSandbox.start(engine);

/** Runs an attack. Meanwhile and afterwards, another sandbox gets its responses. */
async function attackBeside<T>(attack: Promise<T>): Promise<T> {
  let isOver = false;
  const settled = attack.finally(() => (isOver = true));
  do {
    expect((await neighbour.run("curl -sS http://internet.test/")).stdout).toBe("hello");
    // Without a pause, the requests would take too much processor time.
    await sleep(200);
  } while (!isOver);
  return await settled;
}

it("requests without a response take little memory, and do not delay later ones", async () => {
  const intercepts = { http: ["anthropic.internal"], https: [] };
  const attacker = await TestSandbox.start(engine, { intercepts });
  const before = process.memoryUsage().rss;
  let peak = before;
  const measuring = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 100);
  await attackBeside(attacker.run(FLOOD)).finally(() => clearInterval(measuring));
  expect((peak - before) / MIB).toBeLessThan(200);
  await expect
    .poll(async () => (await attacker.run("curl -sS --max-time 5 http://internet.test/")).stdout)
    .toBe("hello");
});

it("the engine closes a connection whose TLS handshake has records of one byte or never ends", async () => {
  const policy = { internet: "allowlist", allowHosts: ["internet.test"] } as const;
  const flooding = await TestSandbox.start(engine, { policy });
  const code = `
import concurrent.futures, socket
# A message of 2,000 bytes. Less than half of it is ever sent.
pieces = b"".join(b"\\x16\\x03\\x01\\x00\\x01" + bytes([byte]) for byte in b"\\x01\\x00\\x07\\xd0" + bytes(900))
def is_closed(data):
    one = socket.create_connection(("127.0.0.1", 3128)); one.settimeout(25)
    one.sendall(b"CONNECT internet.test:443 HTTP/1.1\\r\\nHost: internet.test:443\\r\\n\\r\\n")
    assert one.recv(65536).startswith(b"HTTP/1.1 200")
    try:
        one.sendall(data)
        return one.recv(100)[:1] in (b"\\x15", b"")
    except ConnectionError: return True
    except TimeoutError: return False
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    print(all(pool.map(is_closed, [b"\\x16\\x03\\x01\\x07\\xd4\\x01\\x00\\x07\\xd0"] + [pieces] * 200)))
`;
  expect(await attackBeside(flooding.python(code))).toMatchObject({ stdout: "True", stderr: "" });
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
  const attack = attackBeside(sandbox.python(script));
  expect(await attack).toMatchObject({ stdout: "b'HTTP/1.1 200'", stderr: "" });
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
