/** The machine's memory for TCP is full of data that hosts of a sandbox, or clients of the server, do not read. */
import { connect, createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { listen } from "../setup/listen.ts";
import { tcpBytes } from "../setup/processes.ts";

it("the engine ends a sandbox whose hosts do not read, and not one with more connections", async () => {
  const host = endLater(createServer((socket) => socket.pause().on("error", () => undefined)));
  const allowAddresses = [`host.test:443=${await listen(host)}`];
  const tcpBytesOfMachine = tcpBytes() + 100 * 1024 * 1024;
  const one = endLater(await startTestEngine({ allowAddresses, limits: { tcpBytesOfMachine } }));
  const [modest, taker] = [await TestSandbox.start(one), await TestSandbox.start(one)];
  const connections = [
    "import socket, time",
    "listener = socket.create_server(('127.0.0.1', 5000), backlog=4096)",
    "held = [(socket.create_connection(('127.0.0.1', 5000)), listener.accept()) for _ in range(150)]",
    "open('/workspace/held', 'w').close(); time.sleep(600)",
  ];
  void modest.python(connections).catch(() => undefined);
  await expect.poll(async () => (await modest.run("ls /workspace")).stdout).toBe("held");
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

it("the engine ends no sandbox with idle connections when other programs use the memory", async () => {
  const before = tcpBytes();
  const tcpBytesOfMachine = before + 40 * 1024 * 1024;
  const one = endLater(await startTestEngine({ limits: { tcpBytesOfMachine } }));
  const idle = await TestSandbox.start(one);
  const connections = [
    "import socket, time",
    "listener = socket.create_server(('127.0.0.1', 5000), backlog=4096)",
    "held = [(socket.create_connection(('127.0.0.1', 5000)), listener.accept()) for _ in range(150)]",
    "open('/workspace/held', 'w').close(); time.sleep(600)",
  ];
  void idle.python(connections).catch(() => undefined);
  await expect.poll(async () => (await idle.run("ls /workspace")).stdout).toBe("held");
  const unread = endLater(createServer((socket) => socket.pause().on("error", () => undefined)));
  const port = await listen(unread);
  for (let count = 0; count < 20; count++) {
    const client = connect(port, "127.0.0.1").on("error", () => undefined);
    onTestFinished(() => void client.destroy());
    client.write(Buffer.alloc(8 * 1024 * 1024));
  }
  await expect.poll(() => tcpBytes()).toBeGreaterThan(tcpBytesOfMachine);
  // The engine looks at the memory four times a second.
  await pause(1500);
  expect(tcpBytes()).toBeGreaterThan(tcpBytesOfMachine);
  expect((await idle.run("echo unharmed")).stdout).toBe("unharmed");
});
