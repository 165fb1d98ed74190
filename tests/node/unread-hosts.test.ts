/** The machine's memory for TCP is full of data that hosts of a sandbox, or clients of the server, do not read. */
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import type { Limits } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { listen } from "../setup/listen.ts";
import { tcpBytes, tcpOrphans } from "../setup/processes.ts";

const MiB = 1024 * 1024;

async function openIdleConnections(sandbox: TestSandbox): Promise<void> {
  const program = [
    "import socket, time",
    "listener = socket.create_server(('127.0.0.1', 5000), backlog=4096)",
    "held = [(socket.create_connection(('127.0.0.1', 5000)), listener.accept()) for _ in range(150)]",
    "open('/workspace/held', 'w').close(); time.sleep(600)",
  ];
  void sandbox.python(program).catch(() => undefined);
  await expect.poll(async () => (await sandbox.run("ls /workspace")).stdout).toBe("held");
}

it("the engine ends a sandbox whose hosts do not read, and not one with more connections", async () => {
  const host = endLater(createServer((socket) => socket.pause().on("error", () => undefined)));
  const allowAddresses = [`host.test:443=${await listen(host)}`];
  const limits = { tcpBytesOfMachine: 100 * MiB };
  const one = endLater(await startTestEngine({ allowAddresses, limits }));
  const [modest, taker] = [await TestSandbox.start(one), await TestSandbox.start(one)];
  await openIdleConnections(modest);
  const tunnels = [
    "import socket, time",
    "held = []",
    "for _ in range(40):",
    "  one = socket.create_connection(('127.0.0.1', 3128)); held.append(one)",
    "  one.sendall(b'CONNECT host.test:443 HTTP/1.1\\r\\nHost: host.test:443\\r\\n\\r\\n'); one.recv(100)",
    "  one.settimeout(0.2)",
    "  try: one.sendall(bytes(20000000))",
    "  except OSError: pass",
    "time.sleep(600)",
  ];
  void taker.python(tunnels).catch(() => undefined);
  expect(await taker.waitForEnd()).toMatchObject({ exitCode: 137, reason: expect.stringContaining("TCP") });
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});

/**
 * Makes other programs exceed a limit of the engine, for six of its checks. Returns the output of a sandbox with idle connections.
 * @param use called with further connections to a server that does not read, until the limit is exceeded
 */
async function outputAfter(limit: Partial<Limits>, isExceeded: () => boolean, use: (client: Socket) => void) {
  const one = endLater(await startTestEngine({ limits: { ...limit } }));
  const idle = await TestSandbox.start(one);
  await openIdleConnections(idle);
  const port = await listen(endLater(createServer((socket) => socket.pause().on("error", () => undefined))));
  // Connections of earlier tests may end meanwhile.
  for (let exceededMs = 0; exceededMs < 1500; exceededMs = isExceeded() ? exceededMs + 50 : 0) {
    if (!isExceeded()) {
      const client = connect(port, "127.0.0.1", () => use(client)).on("error", () => undefined);
      onTestFinished(() => void client.destroy());
    }
    await pause(50);
  }
  return (await idle.run("echo unharmed")).stdout;
}

it("the engine ends no sandbox with idle connections when other programs use the memory", async () => {
  const tcpBytesOfMachine = 40 * MiB;
  const fill = (client: Socket) => void client.write(Buffer.alloc(8 * MiB));
  const isExceeded = () => tcpBytes() > tcpBytesOfMachine;
  expect(await outputAfter({ tcpBytesOfMachine }, isExceeded, fill)).toBe("unharmed");
});

it("the engine ends a sandbox that leaves closed connections whose other ends stay open", async () => {
  const limits = { tcpOrphansOfMachine: 1000 };
  const one = endLater(await startTestEngine({ limits }));
  const taker = await TestSandbox.start(one);
  const program = [
    "import socket, time",
    "listeners = [socket.create_server(('127.0.0.1', 5000 + n), backlog=4096) for n in range(4)]",
    "for n in range(2000):",
    "  one = socket.create_connection(('127.0.0.1', 5000 + n % 4))",
    // Otherwise the kernel keeps no socket of a connection that has sent everything.
    "  one.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 120)",
    "  one.close()",
    "time.sleep(600)",
  ];
  void taker.python(program).catch(() => undefined);
  expect(await taker.waitForEnd()).toMatchObject({
    exitCode: 137,
    reason: expect.stringContaining("TCP connections"),
  });
});

it("the engine ends no sandbox with idle connections when other programs leave closed connections with unsent data", async () => {
  const tcpOrphansOfMachine = 50;
  const leave = (client: Socket) => {
    // More than the other end receives, and less than waits in Node.
    client.write(Buffer.alloc(8 * MiB));
    setTimeout(() => client.destroy(), 500);
  };
  const isExceeded = () => tcpOrphans() > tcpOrphansOfMachine;
  expect(await outputAfter({ tcpOrphansOfMachine }, isExceeded, leave)).toBe("unharmed");
});
