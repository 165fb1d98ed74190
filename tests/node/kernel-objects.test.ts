/** Which sandbox the engine ends when the kernel has many more watches of epoll or mappings of memory. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { expect, it, onTestFinished } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { sleep } from "../setup/until.ts";

/** Watches of one file, whose number exceeds the limit. */
const WATCHES = [
  "import os, select, threading, time",
  "file = os.eventfd(0); held = [os.dup(file) for _ in range(500)]",
  "def watch():",
  "  polls = [select.epoll() for _ in range(130)]",
  "  for poll in polls:",
  "    for descriptor in held: poll.register(descriptor)",
  "  return polls",
];

/** Ways to keep watches, and the kernel objects that grow. Each way adds further ones, if others had added many at the same time. */
const WAYS = {
  watches: ["kept = []", "for _ in range(5): kept += watch(); time.sleep(2)"],
  "watches of a thread whose process seems to have ended": [
    "import ctypes",
    "def run():",
    "  time.sleep(1); kept = []",
    "  for _ in range(5): kept += watch(); time.sleep(2)",
    "  time.sleep(600)",
    "threading.Thread(target=run).start(); ctypes.CDLL(None).pthread_exit(None)",
  ],
};

/** 300 processes, whose memory in the kernel is larger than that of the watches. They share an epoll, as servers may. */
const PROCESSES = [
  "import os, select, time",
  "poll = select.epoll(); file = os.eventfd(0)",
  "for _ in range(400): poll.register(os.dup(file))",
  "for _ in range(300):",
  "  if os.fork() == 0: time.sleep(600)",
  "open('/tmp/ready', 'w').close(); time.sleep(600)",
];

async function startNeighbour(engine: Parameters<typeof TestSandbox.start>[0]): Promise<TestSandbox> {
  const neighbour = await TestSandbox.start(engine, { principal: "neighbour" });
  void neighbour.python(PROCESSES).catch(() => undefined);
  await neighbour.run("until [ -e /tmp/ready ]; do sleep 0.1; done");
  return neighbour;
}

const isCounted = existsSync("/sys/kernel/slab/eventpoll_epi");

it.runIf(isCounted).each(Object.entries(WAYS))(
  "the engine ends the sandbox that holds the new objects, and not one with more kernel memory: %s",
  async (_, program) => {
    const engine = endLater(await startTestEngine());
    const neighbour = await startNeighbour(engine);
    const attacker = await TestSandbox.start(engine, { principal: "attacker" });
    void attacker.python([...WATCHES, ...program, "time.sleep(600)"]).catch(() => undefined);
    const ends = [neighbour, attacker].map(async (sandbox) => [sandbox, await sandbox.waitForEnd()] as const);
    const [ended, { reason }] = await Promise.race(ends);
    expect([ended === attacker, reason]).toEqual([true, expect.stringContaining("epoll")]);
    expect((await neighbour.run("echo unharmed")).stdout).toBe("unharmed");
  },
);

/** Programs outside the sandboxes that add more objects than the limit. Their children end with them. */
const OTHERS = {
  "watches of epoll": [...WATCHES, "kept = watch()"],
  mappings: [
    "import ctypes, mmap, os, time",
    "call = ctypes.CDLL(None).mmap; call.argtypes = [ctypes.c_size_t] * 6",
    "file = os.memfd_create('mapped'); os.ftruncate(file, mmap.PAGESIZE)",
    "for _ in range(60_000): call(0, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)",
    "end = os.pipe()",
    "for _ in range(5):",
    "  if os.fork() == 0: os.close(end[1]); os.read(end[0], 1); os._exit(0)",
  ],
};

it.runIf(isCounted).each(Object.entries(OTHERS))(
  "the engine ends no sandbox for %s of another program",
  async (_, add) => {
    const engine = endLater(await startTestEngine({ limits: { mappingsOfMachine: 250_000 } }));
    const neighbour = await startNeighbour(engine);
    const program = [...add, "print('added', flush=True); time.sleep(600)"].join("\n");
    const other = spawn("python3", ["-c", program], { stdio: ["ignore", "pipe", "inherit"] });
    onTestFinished(() => void other.kill("SIGKILL"));
    await once(other.stdout, "data");
    await sleep(8000);
    expect((await neighbour.run("echo unharmed")).stdout).toBe("unharmed");
  },
);
