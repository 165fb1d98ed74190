/** A sandbox opens many UDP sockets: a packet to all of them delays the machine. */
import { expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";

/** A Python program that binds this many sockets to one port, and then creates the file /workspace/bound. */
const bindAll = (sockets: number) => [
  "import socket, time",
  "held = []",
  `for one in range(${sockets}):`,
  "  end = socket.socket(socket.AF_INET6 if one % 2 else socket.AF_INET, socket.SOCK_DGRAM); held.append(end)",
  "  if one % 2: end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)",
  "  end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)",
  "  end.bind(('', 7777))",
  "open('/workspace/bound', 'w').close(); time.sleep(600)",
];

async function hold(sandbox: TestSandbox, program: readonly string[]): Promise<void> {
  void sandbox.python(program).catch(() => undefined);
  await expect.poll(async () => (await sandbox.run("ls /workspace")).stdout).toBe("bound");
}

it("the engine ends the sandbox with most UDP sockets of a principal that has too many, and no other", async () => {
  const one = endLater(await startTestEngine());
  const start = async (principal: string) => await TestSandbox.start(one, { principal });
  const [modest, small, large] = [await start("modest"), await start("greedy"), await start("greedy")];
  await hold(modest, bindAll(300));
  await hold(small, bindAll(190));
  void large.python(bindAll(220)).catch(() => undefined);
  expect(await large.waitForEnd()).toMatchObject({
    exitCode: 137,
    reason: expect.stringContaining("UDP sockets"),
  });
  for (const sandbox of [modest, small]) expect((await sandbox.run("echo unharmed")).stdout).toBe("unharmed");
});
