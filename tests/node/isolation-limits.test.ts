/** A sandbox uses up all resources that it can get. The engine and the other sandboxes continue to work. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it, onTestFinished } from "vitest";
import { findGroupParents } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, valuesInGroups } from "../setup/processes.ts";

const MiB = 1024 * 1024;
const limits = {
  diskBytes: 64 * MiB,
  memoryBytes: 384 * MiB,
  processes: 100,
  openFiles: 512,
};
const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

const engine = endLater(await startTestEngine({ limits }));
const other = await TestSandbox.start(engine);

/** Starts a sandbox that a test overloads. After the test, destroys it and checks that the sandbox `other` still works. */
async function startGreedy(): Promise<TestSandbox> {
  const greedy = await TestSandbox.start(engine);
  onTestFinished(async () => {
    await greedy.destroy();
    expect((await other.run("echo unharmed")).stdout).toBe("unharmed");
  });
  return greedy;
}

const endedFor = (resource: string) => ({ exitCode: 137, reason: expect.stringContaining(resource) });

describe("a sandbox's limit of processes", () => {
  it("stops a fork bomb at the limit, and the bomb ends with its sandbox", async () => {
    const greedy = await startGreedy();
    // Children wait on a pipe that closes with their parent.
    const forks = [
      "import os",
      "hold, release = os.pipe(); children = []; why = ''",
      "try:",
      "  while len(children) < 300:",
      "    child = os.fork()",
      "    if child == 0: os.close(release); os.read(hold, 1); os._exit(0)",
      "    children.append(child)",
      "except OSError as error: why = error.strerror",
      "print(len(children) < 100, why)",
    ];
    const { stdout } = await greedy.python(forks);
    expect(stdout).toBe("True Resource temporarily unavailable");
    void greedy.run("bomb() { bomb | bomb & }; bomb").catch(() => undefined);
    await expect.poll(async () => (await other.run("echo alive")).stdout).toBe("alive");
    await greedy.destroy();
    expect(await greedy.waitForEnd()).toEqual({ exitCode: 0, reason: "destroyed" });
  });

  it.runIf(process.getuid?.() === 0)("stops a fork bomb with many user ids", async () => {
    const greedy = await startGreedy();
    const forks = [
      "import os, signal",
      "children = []",
      "for user in range(1, 300):",
      "  try: child = os.fork()",
      "  except OSError: break",
      "  if child == 0:",
      "    try: os.setuid(user); signal.pause()",
      "    finally: os._exit(0)",
      "  children.append(child)",
      "print(len(children) < 100)",
      "for child in children: os.kill(child, 9)",
    ];
    expect((await greedy.python(forks)).stdout).toBe("True");
  });

  it("is combined with limits of open files and locked memory, and core dumps are written only on request", async () => {
    expect((await other.run("ulimit -n; ulimit -l; ulimit -c; ulimit -n 100000 2>&1")).stdout).toMatch(
      /^512\n8192\n0\n.*not permitted/,
    );
    expect((await other.run("ulimit -c unlimited && ulimit -c 100")).exitCode).toBe(0);
  });

  it("allows 65,536 open files, or as many as the server may open", async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const own = execFileSync("/bin/bash", ["-c", "ulimit -Hn"], { encoding: "utf8" }).trim();
    const most = Math.min(65_536, own === "unlimited" ? Infinity : Number(own));
    const { stdout } = await sandbox.run("ulimit -Hn; ulimit -Sn");
    expect(stdout).toBe(`${most}\n${most}`);
  });
});

describe("a sandbox's connections to the proxy", () => {
  it("are limited, and so are the file descriptors that the engine opens for them", async () => {
    const greedy = await startGreedy();
    const before = readdirSync("/proc/self/fd").length;
    const many = [
      "import socket, time",
      "held = []",
      "for _ in range(450):",
      "  one = socket.create_connection(('127.0.0.1', 3128)); held.append(one)",
      "print(len(held), flush=True); time.sleep(600)",
    ];
    void greedy.run(`python3 -c "${many.join("\n")}" >/workspace/held`).catch(() => undefined);
    await expect.poll(async () => (await greedy.run("cat /workspace/held")).stdout).toBe("450");
    expect(readdirSync("/proc/self/fd").length - before).toBeLessThan(350);
  });
});

const effective = /CapEff:\s*(\w+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
/** Whether this process has CAP_SYS_RESOURCE, without which no process can raise the minimum of oom_score_adj. */
const canRaiseMinimum = (parseInt(effective.slice(-8), 16) & (1 << 24)) !== 0;

it("the kernel first kills programs of sandboxes when memory runs out, and code cannot change that", async () => {
  const lower = process.getuid?.() === 0 && canRaiseMinimum ? "echo 0 2>/dev/null >$one; " : "";
  const { stdout } = await other.run(
    `for one in /proc/[0-9]*/oom_score_adj; do ${lower}cat $one; done 2>/dev/null`,
  );
  const values = stdout.split("\n").map(Number);
  expect(values.length).toBeGreaterThan(2);
  expect(Math.min(...values)).toBeGreaterThanOrEqual(300);
});

describe.runIf(isMemoryLimited)("all sandboxes together", () => {
  const whole = { ...limits, memoryBytes: 1024 * MiB, allMemoryBytes: 900 * MiB };
  const hold = (mebibytes: number) =>
    `python3 -c 'x = bytearray(${mebibytes} << 20); print(1, flush=True); import time; time.sleep(600)'`;
  /** Fills the memory slowly, on a busy machine even more so, so that the guard notices before all is used. */
  const fill = `for i in $(seq 24); do { ${hold(25)} & } | head -n 1; sleep 0.3; done`;

  it("have a memory limit that the kernel enforces too, however fast they take it", async () => {
    const ownEngine = endLater(await startTestEngine({ limits: whole }));
    const one = await TestSandbox.start(ownEngine);
    const mark = `limited-${randomUUID()}`;
    const sleeping = one.run(`exec -a ${mark} sleep 60`);
    const find = () => findProcess(mark);
    await expect.poll(find).toBeDefined();
    const valuesOf = (version1: string, version2: string, group?: string) =>
      valuesInGroups(find()?.pid ?? 0, [version1, version2], group);
    expect(valuesOf("memory.limit_in_bytes", "memory.max", "..")).toEqual([whole.allMemoryBytes]);
    // Version 1 counts memory with swap, version 2 swap alone. A machine may count no swap.
    const [memory = 0] = valuesOf("memory.limit_in_bytes", "memory.max");
    const withSwap = valuesOf("memory.memsw.limit_in_bytes", "memory.swap.max");
    expect(Math.max(0, ...withSwap)).toBeLessThanOrEqual(memory);
    await one.run(`pkill -f ${mark}`);
    await sleeping;
  });

  it("share a memory limit, and the engine ends the one that uses most before others lose a program", async () => {
    const ownEngine = endLater(await startTestEngine({ limits: whole }));
    const [modest, large, many] = await Promise.all([1, 2, 3].map(() => TestSandbox.start(ownEngine)));
    // The largest process is not in the sandbox that uses the most memory.
    await large?.run(`{ ${hold(120)} & } | head -n 1`);
    void many?.run(fill).catch(() => undefined);
    expect(await many?.waitForEnd()).toMatchObject(endedFor("memory"));
    expect((await large?.run("pgrep -c -f bytearray"))?.stdout).toBe("1");
    expect((await modest?.run("echo unharmed"))?.stdout).toBe("unharmed");
  });

  it.each([
    ["take all memory", "python3 -c 'x = [bytearray(1 << 24) for _ in range(1000)]'"],
    ["are fork bombs", "bomb() { bomb | bomb & }; bomb; sleep 60"],
  ])("run eight programs that %s, and another one's command ends normally", async (_, program) => {
    const one = endLater(await startTestEngine({ limits: whole }));
    const modest = await TestSandbox.start(one);
    const greedy = await Promise.all(Array.from({ length: 8 }, () => TestSandbox.start(one)));
    const running = modest.run("for i in $(seq 50); do sleep 0.1; done; echo unharmed");
    for (const sandbox of greedy) void sandbox.run(program).catch(() => undefined);
    expect(await running).toMatchObject({ stdout: "unharmed", exitCode: 0 });
    const after = await TestSandbox.start(one);
    expect((await after.run("echo new")).stdout).toBe("new");
  });

  it("run more full disks than their memory can hold, and another one's command ends normally", async () => {
    const one = endLater(
      await startTestEngine({ limits: { ...limits, diskBytes: 256 * MiB, allMemoryBytes: 2048 * MiB } }),
    );
    const modest = await TestSandbox.start(one);
    const running = modest.run("until [ -e /tmp/done ]; do sleep 0.1; done; echo unharmed");
    const full = await Promise.all(Array.from({ length: 8 }, () => TestSandbox.start(one)));
    // Slowly, so that a busy engine notices before all is used.
    const grow = "while head -c 8M /dev/zero >> full; do sleep 0.02; done 2>/dev/null";
    for (const sandbox of full)
      await sandbox.run(`cd /workspace; ${grow}; cd /dev/shm; ${grow}`).catch(() => undefined);
    expect(await Promise.any(full.map((sandbox) => sandbox.waitForEnd()))).toMatchObject(endedFor("memory"));
    await modest.run("touch /tmp/done");
    expect(await running).toMatchObject({ stdout: "unharmed", exitCode: 0 });
  });

  it("leave a command time while four pairs of programs pass a byte to and fro", async () => {
    const [modest, ...greedy] = await Promise.all(Array.from({ length: 5 }, () => TestSandbox.start(engine)));
    const pair = [
      "import os",
      "(a, b), (c, d) = os.pipe(), os.pipe()",
      "if os.fork() == 0: b, c, a, d = d, a, c, b",
      "else: os.write(b, b'x')",
      "try:",
      "  while True: os.write(b, os.read(c, 1))",
      "except OSError: pass",
    ];
    for (const sandbox of greedy) void sandbox.python(pair).catch(() => undefined);
    const work = await modest?.run("python3 -c 'sum(range(10_000_000))'; echo unharmed");
    await Promise.all(greedy.map((sandbox) => sandbox.destroy()));
    expect(work?.stdout).toBe("unharmed");
  });
});

describe("a sandbox's disk", () => {
  it("is full at the limit in every directory, and usable again after files are removed", async () => {
    const greedy = await startGreedy();
    const fill = (path: string) => greedy.run(`head -c 200M /dev/zero > ${path}; stat -c %s ${path}`);
    const first = await fill("/workspace/a");
    expect(first.stderr).toContain("No space left on device");
    const used = Number(first.stdout);
    expect(used).toBeGreaterThan(limits.diskBytes * 0.8);
    for (const path of ["/tmp/b", "/root/c", "/var/tmp/d", "/e", "/run/f", "/etc/g", "/opt/h"]) {
      const { stdout, stderr } = await fill(path);
      expect([path, stderr]).toEqual([path, expect.stringContaining("No space left on device")]);
      expect(used + Number(stdout)).toBeLessThanOrEqual(limits.diskBytes);
    }
    await greedy.run("rm -f /workspace/a /tmp/b /root/c /var/tmp/d /e /run/f /etc/g /opt/h");
    expect((await greedy.run("head -c 20M /dev/zero > /workspace/again && echo fits")).stdout).toBe("fits");
  });

  it("is the only writable place except shared memory, which has its own limit", async () => {
    const greedy = await startGreedy();
    const { stdout, stderr } = await greedy.run("head -c 200M /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x");
    expect(stderr).toContain("No space left on device");
    expect(Number(stdout)).toBeLessThanOrEqual(limits.diskBytes / 4);
    const mounts = await greedy.run("awk '$4 ~ /^rw/ && $3 == \"tmpfs\" {print $2}' /proc/mounts");
    const known = ["/", "/dev/shm", "/var/lib/sandbox-mcp"];
    expect(mounts.stdout.split("\n").toSorted()).toEqual(known);
    // The machine's devices are in a devtmpfs.
    const others = await greedy.run(
      "awk '$4 ~ /^rw/ && $3 !~ /^(dev)?tmpfs$/ {print $3}' /proc/mounts | sort -u",
    );
    expect(others.stdout.split("\n")).toEqual(["devpts", "proc"]);
  });
});

describe.runIf(isMemoryLimited)("a sandbox's memory limit", () => {
  it("ends the process that takes too much, and not the sandbox", async () => {
    const greedy = await startGreedy();
    const { exitCode } = await greedy.run(
      "python3 -c \"x = [bytearray(1 << 24) for _ in range(200)]; print('all')\"",
    );
    expect(exitCode).toBe(137);
    expect((await greedy.run("echo alive")).stdout).toBe("alive");
  });

  it("spares the sandbox when many small processes exceed it", async () => {
    const greedy = await startGreedy();
    const many =
      "for i in $(seq 12); do python3 -c 'x = bytearray(60 << 20); import time; time.sleep(600)' & done 2>/dev/null; sleep 2; true";
    // Linux may also kill sandboxd, which is restarted.
    await greedy.run(many).catch(() => undefined);
    const alive = async () => (await greedy.run("echo alive").catch(() => undefined))?.stdout;
    await expect.poll(alive, { timeout: 30_000 }).toBe("alive");
  });
});
