/** A sandbox opens many UDP sockets: a packet to all of them delays the machine, and their data fills the machine's memory for UDP. */
import { expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";

const MiB = 1024 * 1024;

/**
 * A Python program that binds this many sockets to one port, or each to its own port, then creates the file /workspace/bound, and sends
 * multicasts to the port 7777.
 */
const bindAll = (sockets: number, port: "one port" | "own ports" = "one port") => [
  "import socket, time",
  "held = []",
  `for one in range(${sockets}):`,
  "  end = socket.socket(socket.AF_INET6 if one % 2 else socket.AF_INET, socket.SOCK_DGRAM); held.append(end)",
  "  if one % 2: end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)",
  "  end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)",
  `  end.bind(('', ${port === "one port" ? "7777" : "7777 + one"}))`,
  "open('/workspace/bound', 'w').close()",
  "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.bind(('127.0.0.1', 0))",
  "sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('127.0.0.1'))",
  "while True: sender.sendto(b'hello', ('224.0.0.1', 7777)); time.sleep(0.01)",
];

async function hold(sandbox: TestSandbox, program: readonly string[]): Promise<void> {
  void sandbox.python(program).catch(() => undefined);
  await expect.poll(async () => (await sandbox.run("ls /workspace")).stdout).toBe("bound");
}

const endedForSockets = { exitCode: 137, reason: expect.stringContaining("UDP sockets") };

it("the engine ends the sandbox with most UDP sockets of one port, if its principal has too many, and no other", async () => {
  const one = endLater(await startTestEngine());
  const start = async (principal: string) => await TestSandbox.start(one, { principal });
  const [modest, small, large] = [await start("modest"), await start("greedy"), await start("greedy")];
  await hold(modest, bindAll(150));
  await hold(small, bindAll(90));
  void large.python(bindAll(120)).catch(() => undefined);
  expect(await large.waitForEnd()).toMatchObject(endedForSockets);
  for (const sandbox of [modest, small]) expect((await sandbox.run("echo unharmed")).stdout).toBe("unharmed");
});

it("a sandbox may have many UDP sockets of different ports while one gets multicasts, but not thousands", async () => {
  const one = endLater(await startTestEngine());
  const sandbox = await TestSandbox.start(one);
  await hold(sandbox, bindAll(900, "own ports"));
  const quiet = await TestSandbox.start(one, { principal: "quiet" });
  // Nobody sends to this port.
  await hold(quiet, bindAll(700).slice(0, -1).concat("time.sleep(600)"));
  expect((await quiet.run("sleep 0.5; echo unharmed")).stdout).toBe("unharmed");
  expect((await sandbox.run("sleep 0.5; echo unharmed")).stdout).toBe("unharmed");
  for (const first of [10_000, 20_000])
    void sandbox
      .python([
        "import socket, time",
        "held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(700)]",
        `for at, end in enumerate(held): end.bind(('127.0.0.1', ${first} + at))`,
        "time.sleep(600)",
      ])
      .catch(() => undefined);
  expect(await sandbox.waitForEnd()).toMatchObject(endedForSockets);
});

it("the engine ends a sandbox that fills the memory of UDP with sockets that have no port, and not one with more connections", async () => {
  const limits = { udpBytesOfMachine: 40 * MiB };
  const one = endLater(await startTestEngine({ limits }));
  const [modest, taker] = [await TestSandbox.start(one), await TestSandbox.start(one)];
  await hold(modest, [
    "import socket, time",
    "listener = socket.create_server(('127.0.0.1', 5000), backlog=4096)",
    "held = [(socket.create_connection(('127.0.0.1', 5000)), listener.accept()) for _ in range(400)]",
    "open('/workspace/bound', 'w').close(); time.sleep(600)",
  ]);
  void taker
    .python([
      "import ctypes, socket, time",
      "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.bind(('127.0.0.1', 7777)); held = []",
      "for _ in range(350):",
      "  end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); held.append(end)",
      "  end.connect(('127.0.0.1', 7777))",
      "  for _ in range(4): sender.sendto(bytes(60000), end.getsockname())",
      // An address of the family AF_UNSPEC (0) takes the port from the socket, and its data stays.
      "  ctypes.CDLL(None).connect(end.fileno(), bytes(16), 16)",
      "time.sleep(600)",
    ])
    .catch(() => undefined);
  expect(await taker.waitForEnd()).toMatchObject({
    exitCode: 137,
    reason: expect.stringContaining("memory for UDP"),
  });
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});
