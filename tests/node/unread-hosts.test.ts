/** The machine's memory for TCP is full of data that hosts of a sandbox, or clients of the server, do not read. */
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import type { Limits } from "../../local/engine/limits.ts";
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

const IDLE_CONNECTIONS = [
  "import socket, time",
  "listener = socket.create_server(('127.0.0.1', 5000), backlog=4096)",
  "held = [(socket.create_connection(('127.0.0.1', 5000)), listener.accept()) for _ in range(150)]",
  "open('/workspace/held', 'w').close(); time.sleep(600)",
];

/** Makes other programs exceed a limit of the engine. Returns the output of a sandbox with idle connections. */
async function outputAfter(limit: Partial<Limits>, exceed: (port: number) => void, isOver: () => boolean) {
  const one = endLater(await startTestEngine({ limits: limit }));
  const idle = await TestSandbox.start(one);
  void idle.python(IDLE_CONNECTIONS).catch(() => undefined);
  await expect.poll(async () => (await idle.run("ls /workspace")).stdout).toBe("held");
  const unread = endLater(createServer((socket) => socket.pause().on("error", () => undefined)));
  exceed(await listen(unread));
  await expect.poll(isOver).toBe(true);
  // The engine checks its limits four times a second.
  await pause(1500);
  expect(isOver()).toBe(true);
  return (await idle.run("echo unharmed")).stdout;
}

function sendUnread(port: number, count: number, use: (client: Socket) => void): void {
  for (let at = 0; at < count; at++) {
    const client = connect(port, "127.0.0.1", () => use(client)).on("error", () => undefined);
    onTestFinished(() => void client.destroy());
  }
}

it("the engine ends no sandbox with idle connections when other programs use the memory", async () => {
  const tcpBytesOfMachine = tcpBytes() + 40 * 1024 * 1024;
  const fill = (port: number) =>
    sendUnread(port, 20, (client) => void client.write(Buffer.alloc(8 * 1024 * 1024)));
  const isOver = () => tcpBytes() > tcpBytesOfMachine;
  expect(await outputAfter({ tcpBytesOfMachine }, fill, isOver)).toBe("unharmed");
});

it("the engine ends no sandbox with idle connections when other programs leave closed connections with unsent data", async () => {
  const orphans = () => Number(/orphan (\d+)/.exec(readFileSync("/proc/net/sockstat", "utf8"))?.[1]);
  const tcpOrphansOfMachine = orphans() + 50;
  // More than the other end receives, and less than waits in Node.
  const leave = (port: number) =>
    sendUnread(port, 100, (client) => {
      client.write(Buffer.alloc(8 * 1024 * 1024));
      setTimeout(() => client.destroy(), 500);
    });
  const isOver = () => orphans() > tcpOrphansOfMachine;
  expect(await outputAfter({ tcpOrphansOfMachine }, leave, isOver)).toBe("unharmed");
});
