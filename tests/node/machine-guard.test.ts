/** Which sandboxes the engine ends, and that it ends none if another program used up the machine's memory. */
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import type { EngineSandbox } from "../../local/engine/engine-sandbox.ts";
import { type KernelObjects, lazyCount, VERY_MANY } from "../../local/engine/kernel-objects.ts";
import { countOf, measureMemory, memoryOf } from "../../local/engine/group-use.ts";
import { defaultLimits, findGroupParents, memoryMargin } from "../../local/engine/limits.ts";
import { guardMachine } from "../../local/engine/machine-guard.ts";
import { repository } from "../../local/engine/own-files.ts";
import { sum } from "../../local/engine/sum.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { NO_MACHINE_LIMITS, startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { guardOneSandbox } from "../setup/guarded-sandbox.ts";
import { END_FIRST_THREAD, passOn } from "../setup/python-programs.ts";
import { findProcess, groupsOf, processes } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep, until } from "../setup/until.ts";

const MiB = 1024 * 1024;
const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

/** Takes memory of the kernel with a program outside all sandboxes. */
async function takeKernelMemory(): Promise<void> {
  const pages = [
    "import os, socket, time",
    "file = os.open('/proc/version', os.O_RDONLY); held = [socket.socketpair() for _ in range(400)]",
    "for end, _ in held:",
    "  end.setblocking(False)",
    "  try:",
    "    while os.sendfile(end.fileno(), file, 0, 1): pass",
    "  except BlockingIOError: pass",
    "print('taken', flush=True); time.sleep(600)",
  ];
  const taker = spawn("python3", ["-c", pages.join("\n")], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void taker.kill("SIGKILL"));
  await once(taker.stdout, "data");
}

it("memory of the kernel: a sandbox with many locks is not ended because of memory that another program took", async () => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 200 * MiB } }));
  const locks = [
    "import fcntl, os",
    "held = os.memfd_create('locked')",
    "for at in range(4000, 0, -2): fcntl.lockf(held, fcntl.LOCK_EX, 1, at)",
    "os.system('sleep 1'); print('kept')",
  ];
  const modest = await TestSandbox.start(engine);
  // In this time the guard measures the kernel's memory.
  await modest.run("sleep 1");
  await takeKernelMemory();
  await modest.run("sleep 1");
  expect((await modest.python(locks)).stdout).toBe("kept");
});

it("memory of the kernel: a sandbox with many empty pipes is not ended because of memory that another program took", async () => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 200 * MiB } }));
  const modest = await TestSandbox.start(engine);
  const pipes = [
    "import os",
    "held = [os.pipe() for _ in range(400)]",
    "os.system('touch /tmp/made; sleep 4'); print('kept')",
  ];
  const kept = modest.python(pipes);
  await modest.run("until [ -e /tmp/made ]; do sleep 0.1; done; sleep 0.5");
  await takeKernelMemory();
  expect((await kept).stdout).toBe("kept");
});

const MAKE_NAMED_PIPE = [
  "def make():",
  "  path = f'/tmp/{os.getpid()}'; os.mkfifo(path); end = os.open(path, os.O_RDWR); os.remove(path); return end, end",
];
/**
 * Fills 25 MB of pipes for each user, one after another. Linux makes small pipes for a user with many. Together they are many times the
 * limit of these tests, because other programs can release memory of the kernel meanwhile.
 */
const fillPipes = (make = ["make = os.pipe"], users = 40, pauseSeconds = 0) => [
  "import array, ctypes, os, socket, threading, time",
  ...make,
  `for user in range(1000, ${1000 + users}):`,
  "  if os.fork() == 0: break",
  `  time.sleep(${pauseSeconds})`,
  "else: time.sleep(600)",
  "os.setgid(user); os.setuid(user); zeros = os.open('/dev/zero', os.O_RDONLY)",
  "pipes = [make() for _ in range(400)]",
  "for _, end in pipes: os.sendfile(end, zeros, 0, 65_536)",
];
const PUT_IN_TRANSIT = [
  "held = socket.socketpair()",
  "for first in (0, 200):",
  "  rights = array.array('i', [start for start, _ in pipes[first:first + 200]])",
  "  held[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
  "for start, end in pipes: os.close(start); os.close(end)",
];
const PUT_SOCKET_IN_TRANSIT = [
  "outer = socket.socketpair(); rights = array.array('i', [held[1].fileno()])",
  "outer[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
  "for end in held: end.close()",
];
it.each([
  ["open", fillPipes()],
  ["open, made as files", fillPipes(MAKE_NAMED_PIPE)],
  ["in transit", [...fillPipes(), ...PUT_IN_TRANSIT]],
  ["in transit in sockets in transit", [...fillPipes(), ...PUT_IN_TRANSIT, ...PUT_SOCKET_IN_TRANSIT]],
  ["of processes whose first threads have ended", [...fillPipes(), ...END_FIRST_THREAD]],
  ["passed on to new processes", [...fillPipes(), ...passOn()]],
])("memory of the kernel: the engine ends a sandbox that keeps data in many pipes, %s", async (_, fill) => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 150 * MiB } }));
  const [modest, taker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  void taker.python([...fill, "time.sleep(600)"]).catch(() => undefined);
  expect((await taker.waitForEnd()).reason).toContain("many pipes");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});

it("memory of the kernel: no sandbox can fill more memory while the count of another one of its principal lasts", async () => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 150 * MiB } }));
  const start = () => TestSandbox.start(engine, { principal: "attacker" });
  const [slow, taker] = [await start(), await start()];
  const copies = [
    "import os, time",
    "for _ in range(950): os.dup(0)",
    "for _ in range(100):",
    "  if os.fork() == 0: time.sleep(600)",
    "open('/tmp/ready', 'w'); time.sleep(600)",
  ];
  void slow.python(copies).catch(() => undefined);
  await slow.run("until [ -e /tmp/ready ]; do sleep 0.1; done");
  const mark = `fill-${randomUUID()}`;
  const fill = [...fillPipes(undefined, undefined, 0.05), "time.sleep(600)"].join("\n");
  void taker.run(`exec -a ${mark} python3 -c "${fill}"`).catch(() => undefined);
  let most = 0;
  const timer = setInterval(() => {
    const parent = findProcess(mark)?.pid;
    const children = attempt(() => readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8"), "");
    most = Math.max(most, children.split(" ").length);
  }, 100);
  onTestFinished(() => clearInterval(timer));
  expect((await taker.waitForEnd()).reason).toContain("many pipes");
  // Each has filled 25 MB.
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThan(20);
});

it("memory of the kernel: a sandbox with a file in a socket is not ended for memory that another one takes by pipes", async () => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 150 * MiB } }));
  const [modest, taker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  // By the kernel's memory for the names, its socket could hide more pipes than the other sandbox has.
  await modest.python([
    "import array, os, socket, time",
    "if os.fork() == 0:",
    "  held = socket.socketpair(); file = array.array('i', [0])",
    "  held[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, file)])",
    "  for name in range(20_000): open(f'/dev/shm/{name}', 'w').close()",
    "  open('/tmp/ready', 'w'); [os.close(one) for one in (0, 1, 2)]; time.sleep(600)",
    "while not os.path.exists('/tmp/ready'): time.sleep(0.01)",
  ]);
  void taker.python([...fillPipes(), "time.sleep(600)"]).catch(() => undefined);
  expect((await taker.waitForEnd()).reason).toContain("many pipes");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});

it("timers: the engine ends a sandbox that has thousands as files, and none that has other files", async () => {
  const engine = endLater(await startTestEngine({ limits: { timersOfMachine: 8000 } }));
  const [modest, taker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  const open = (make: string) => [
    "import ctypes, os, struct, time; libc = ctypes.CDLL(None)",
    "def timer():",
    "  made = libc.timerfd_create(1, 0); libc.timerfd_settime(made, 0, struct.pack('4q', 0, 0, 900, 0), None)",
    "for _ in range(12):",
    `  if os.fork() == 0: kept = [${make} for _ in range(900)]; time.sleep(600)`,
    "time.sleep(1); open('/tmp/open', 'w').close(); time.sleep(600)",
  ];
  void modest.python(open("os.open('/dev/null', 0)")).catch(() => undefined);
  await modest.run("until [ -e /tmp/open ]; do sleep 0.1; done");
  void taker.python(open("timer()")).catch(() => undefined);
  expect((await taker.waitForEnd()).reason).toContain("timers");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});

/** Maps a file 60,000 times: at most 65,530 mappings are possible for a process. */
const MAP_OFTEN = [
  "import ctypes, mmap, os, threading, time",
  "call = ctypes.CDLL(None).mmap; call.argtypes = [ctypes.c_size_t] * 6",
  "file = os.memfd_create('mapped'); os.ftruncate(file, mmap.PAGESIZE)",
  "for _ in range(60_000): call(0, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)",
];
const COPY_OFTEN = ["for _ in range(9):", "  if os.fork() == 0: break"];

describe.runIf(existsSync("/sys/kernel/slab/vm_area_struct"))("mappings of memory", async () => {
  const engine = endLater(await startTestEngine({ limits: { mappingsOfMachine: 300_000 } }));
  const full = await TestSandbox.start(engine);
  await full.run("mkdir /tmp/many && cd /tmp/many && seq 60000 | xargs touch; ls -lR /usr | head -90000");

  it.each([
    ["processes", []],
    ["processes whose first threads have ended", END_FIRST_THREAD],
    ["mappings that are passed on to new processes", passOn()],
  ])("the engine ends the sandbox that has most, and not one with many files: of %s", async (_, end) => {
    const attacker = await TestSandbox.start(engine);
    void attacker.python([...MAP_OFTEN, ...COPY_OFTEN, ...end, "time.sleep(600)"]).catch(() => undefined);
    expect((await attacker.waitForEnd()).reason).toContain("mapped files");
    expect((await full.run("echo unharmed")).stdout).toBe("unharmed");
  });

  it("the engine ends no sandbox for those of another program", async () => {
    const ends = ["end = os.pipe()", ...COPY_OFTEN, "else: os.close(end[0]); print('added', flush=True)"];
    const wait = "time.sleep(600) if os.getpid() == first else (os.close(end[1]), os.read(end[0], 1))";
    const program = [...MAP_OFTEN, "first = os.getpid()", ...ends, wait].join("\n");
    const other = spawn("python3", ["-c", program], { stdio: ["ignore", "pipe", "inherit"] });
    onTestFinished(() => void other.kill("SIGKILL"));
    await once(other.stdout, "data");
    await sleep(3000);
    expect((await full.run("echo unharmed")).stdout).toBe("unharmed");
  });
});

/** Unlocking every second byte, from the end, splits one lock into many. */
const SPLIT = "for at in range(100_000, 0, -2): fcntl.lockf(file, fcntl.LOCK_UN, 1, at)";

const SET_LOCKS = {
  "": ["fcntl.lockf(file, fcntl.LOCK_SH)", SPLIT],
  "in a process that has ended, and shared its descriptors": [
    "isX64, CLONE_FILES = platform.machine() == 'x86_64', 0x400",
    "if ctypes.CDLL(None).syscall(56 if isX64 else 220, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0) == 0:",
    "  fcntl.lockf(file, fcntl.LOCK_SH); os._exit(0)",
    "os.wait()",
    SPLIT,
  ],
  "for thousands of open files, in processes that have ended": lockMany(),
  "for thousands of open files of processes whose first threads have ended": lockMany(
    ...END_FIRST_THREAD.map((line) => `    ${line}`),
  ),
  "for thousands of open files that are passed on to new processes": lockMany(
    ...passOn(0.05).map((line) => `    ${line}`),
  ),
  "for thousands of open files that wait in sockets": lockMany(
    "    held = socket.socketpair()",
    "    for at in range(0, 950, 190):",
    "      rights = array.array('i', files[at:at + 190])",
    "      held[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])",
    "    for file in files: os.close(file)",
  ),
};

/**
 * Few more locks than the limit: whoever closes one of these files goes through the locks of all, so twice as many take four times as long.
 * @param hide what a process with open files does before it waits
 */
function lockMany(...hide: string[]): string[] {
  return [
    "for one in range(4):",
    "  reader, writer = os.pipe()",
    "  if os.fork() == 0:",
    // The kernel limits the files in sockets for each user.
    "    os.setgid(1000 + one); os.setuid(1000 + one); files = [os.eventfd(0) for _ in range(950)]",
    "    for at in range(0, 950, 50):",
    "      if os.fork() == 0:",
    "        for file in files[at:at + 50]: fcntl.flock(file, fcntl.LOCK_SH)",
    "        os._exit(0)",
    "      os.wait()",
    "    os.write(writer, b'x')",
    ...hide,
    "    time.sleep(600)",
    "  os.read(reader, 1)",
  ];
}

it.runIf(existsSync("/sys/kernel/slab/file_lock_cache")).each(Object.entries(SET_LOCKS))(
  "file locks: the engine ends the sandbox that has most of them on the inode of all epoll descriptors %s",
  async (_, lock) => {
    const engine = endLater(await startTestEngine({ limits: { fileLocksOfMachine: 3_000 } }));
    const locks = [
      "import array, ctypes, fcntl, os, platform, signal, socket, threading, time",
      "file = os.eventfd(0)",
      ...lock,
      "time.sleep(600)",
    ];
    const [modest, locker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    void locker.python(locks).catch(() => undefined);
    expect((await locker.waitForEnd()).reason).toContain("file locks");
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  },
);

it("memory of the kernel: without free descriptors, the amount counts as unknown and not as zero", () => {
  const program = [
    `import { kernelMemory } from ${JSON.stringify(join(repository, "local/engine/machine-memory.ts"))}`,
    "import { openSync } from 'node:fs'",
    "console.log(kernelMemory() > 0)",
    "try { while (true) openSync('/dev/null') } catch {}",
    "await new Promise(setImmediate)",
    "console.log(kernelMemory())",
  ].join("\n");
  const run = ['ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, program];
  expect(execFileSync("bash", ["-c", ...run], { encoding: "utf8" })).toBe("true\nundefined\n");
});

it("memory: a group whose file cache cannot be read counts as unknown, so no sandbox is ended for it", async () => {
  const group = temporaryDirectory();
  await writeFile(join(group, "memory.current"), String(100 * MiB));
  expect(await memoryOf(group)).toBe(0);
  await writeFile(join(group, "memory.stat"), `file ${60 * MiB}\nshmem 0\nunevictable 0\n`);
  expect(await memoryOf(group)).toBe(40 * MiB);
});

it("memory: what a sandbox used before it moved into its principal's group counts, as version 2 leaves it where it was", async () => {
  const groups = [temporaryDirectory(), temporaryDirectory()];
  for (const group of groups) {
    await writeFile(join(group, "memory.current"), String(100 * MiB));
    await writeFile(join(group, "memory.stat"), `file ${60 * MiB}\nshmem 0\nunevictable 0\n`);
  }
  expect(await measureMemory(groups)).toEqual({ used: 80 * MiB, cached: 120 * MiB });
});

it.runIf(isMemoryLimited)(
  "memory: what a program freed lazily and then used again counts, although Linux lists it with the file cache",
  async () => {
    const engine = endLater(await startTestEngine());
    const sandbox = await TestSandbox.start(engine);
    const mark = `lazy-${randomUUID()}`;
    const program = [
      "import mmap, time",
      "one = mmap.mmap(-1, 200 << 20, mmap.MAP_PRIVATE)",
      "one.write(b'1' * len(one)); one.madvise(mmap.MADV_FREE)",
      "for page in range(0, len(one), mmap.PAGESIZE): one[page] = 2",
      "print(1, flush=True); time.sleep(60)",
    ];
    await sandbox.run(`{ exec -a ${mark} python3 -c "${program.join("\n")}" & } | head -n 1`);
    const groups = groupsOf(findProcess(mark)?.pid);
    expect(await countOf(groups, memoryOf)).toBeGreaterThan(200 * MiB);
  },
);

/** Ways to take 400 MiB in some milliseconds. Without memory, a system call gets an error, and the use of a new page waits. */
const FAST = {
  "as files": [
    "file = os.open('/tmp/full', os.O_CREAT | os.O_RDWR)",
    // A call that gets an error leaves nothing. If several get one, the others' files alone do not fill the memory.
    "while True:",
    "  try: os.posix_fallocate(file, 0, 400 << 20); break",
    "  except OSError: pass",
  ],
  "in small processes": [
    "for _ in range(7):",
    "  if os.fork() == 0: break",
    "kept = mmap.mmap(-1, 50 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
    "for page in range(0, len(kept), mmap.PAGESIZE): kept[page] = 1",
  ],
};

it.runIf(isMemoryLimited).each(Object.entries(FAST))(
  "memory: no program of a neighbour is ended when others take all memory faster than the engine can end them, %s",
  async (_, take) => {
    const limits = { allMemoryBytes: 1024 * MiB, diskBytes: 512 * MiB, memoryBytes: 1024 * MiB };
    const engine = endLater(await startTestEngine({ limits }));
    const start = (principal: string) => TestSandbox.start(engine, { principal });
    const [neighbour, ...others] = await Promise.all(["neighbour", "1", "2", "3"].map(start));
    // The largest program: at the limit, the kernel would end it first.
    const hold = "python3 -c 'x = bytearray(120 << 20); print(1, flush=True); import time; time.sleep(600)'";
    await neighbour?.run(`{ ${hold} & } | head -n 1`);
    const program = [
      "import mmap, os, time",
      "open('/tmp/ready', 'w').close()",
      "while not os.path.exists('/tmp/go'): time.sleep(0.001)",
      ...take,
      "time.sleep(600)",
    ];
    for (const sandbox of others) void sandbox.python(program).catch(() => undefined);
    await Promise.all(others.map((one) => one.run("until [ -e /tmp/ready ]; do sleep 0.1; done")));
    for (const sandbox of others) void sandbox.run("touch /tmp/go").catch(() => undefined);
    const ended = await Promise.any(others.map((sandbox) => sandbox.waitForEnd()));
    expect(ended.reason).toContain("memory of all sandboxes");
    expect((await neighbour?.run("pgrep -c -f bytearray"))?.stdout).toBe("1");
  },
);

/**
 * How many of the guard's looks find that programs wait for memory, how many MiB of files count for ended sandboxes, and whether the guard
 * then ends a sandbox with little memory.
 */
const LOOKS = [
  ["one of its looks", 1, 0, []],
  ["all of its looks", Infinity, 0, [expect.stringContaining("memory of all sandboxes")]],
  ["all of its looks, while files of ended sandboxes fill it", Infinity, 600, []],
] as const;

it.each(LOOKS)(
  "memory: whether the engine ends a sandbox if programs wait for memory in %s",
  async (_, most, ofEnded, expected) => {
    const group = temporaryDirectory();
    await writeFile(join(group, "memory.current"), String(1000 * MiB));
    await writeFile(join(group, "memory.stat"), `file ${ofEnded * MiB}\n`);
    await writeFile(join(group, "memory.oom_control"), "oom_kill_disable 1\nunder_oom 1\n");
    const stopWaiting = (look: number) => {
      if (look === most) writeFileSync(join(group, "memory.oom_control"), "under_oom 0\n");
    };
    const reasons = guardOneSandbox(group, stopWaiting, { allMemoryBytes: 4096 * MiB });
    await sleep(1000);
    expect(reasons).toEqual(expected);
  },
);

it("memory: the engine ends a sandbox if nobody can free files of ended ones, also if programs do not wait in some of its looks", async () => {
  const group = temporaryDirectory();
  await writeFile(join(group, "memory.current"), String(1000 * MiB));
  await writeFile(join(group, "memory.stat"), `file ${600 * MiB}\n`);
  const waitInMostLooks = (look: number) =>
    writeFileSync(join(group, "memory.oom_control"), `under_oom ${look % 8 === 0 ? 0 : 1}\n`);
  const reasons = guardOneSandbox(group, waitInMostLooks, { allMemoryBytes: 4096 * MiB });
  await expect.poll(() => reasons, { timeout: 26_000 }).toHaveLength(1);
}, 30_000);

it.runIf(isMemoryLimited)("memory: the engine also ends a sandbox that delays its stop", async () => {
  const limits = { allMemoryBytes: 900 * MiB, diskBytes: 512 * MiB, memoryBytes: 1024 * MiB };
  const engine = endLater(await startTestEngine({ limits }));
  const [modest, slow] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  const fill = ["import time", "time.sleep(3); kept = bytearray(b'1') * (700 << 20); time.sleep(600)"];
  void slow.python(fill).catch(() => undefined);
  await slow.run("{ sleep 1; pkill -STOP -x sbxd; } >/dev/null 2>&1 & sleep 0.1");
  await sleep(1500);
  await slow.call("POST", "/signal", { signal: 15 });
  expect((await slow.waitForEnd()).reason).toContain("memory of all sandboxes");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});

it("memory: when the engine begins to end sandboxes, a tenth is free, on small machines up to a fifth", () => {
  expect([2, 4, 8, 20].map((gibibytes) => Math.floor(memoryMargin(gibibytes * 1024 * MiB) / MiB))).toEqual([
    409, 819, 1024, 2048,
  ]);
});

/** A control group whose list of processes is a pipe. A count of the group waits until it is written. */
function fakeGroup(): { directory: string; list: string } {
  const directory = temporaryDirectory();
  const list = join(directory, "cgroup.procs");
  execFileSync("mkfifo", [list]);
  return { directory, list };
}

/** Opens a list whose count has begun. */
const openCounted = (list: string) =>
  attempt(() => openSync(list, constants.O_WRONLY | constants.O_NONBLOCK), undefined);

it("the counts of a principal's sandboxes together get as much processor time as the count of another one's only sandbox", async () => {
  const groups = Array.from({ length: 9 }, fakeGroup);
  const sandboxes = groups.map(({ directory }, at) => ({
    principal: at === 0 ? "one" : "many",
    groups: [directory],
  }));
  const [sandbox] = sandboxes as unknown as EngineSandbox[];
  const counted = lazyCount(() => sandboxes as unknown as EngineSandbox[])(sandbox as EngineSandbox);
  const weights = await until(() => {
    const all = processes();
    const found = groups.map(({ list }) =>
      all.find(({ command }) => command.startsWith("perl") && command.endsWith(list)),
    );
    const niceness = found.map((process) => Number(procStat(process?.pid ?? 0)?.[16]));
    return niceness.every((level) => level >= 0) ? niceness.map((level) => 1.25 ** -level) : undefined;
  });
  for (const { list } of groups) closeSync(await until(() => openCounted(list)));
  await counted;
  const [one = 0, ...many] = weights;
  expect(sum(many) / one).toBeCloseTo(1, 0);
});

/** Counts the objects of these processes, or of nobody if the list is never written. */
async function countProcesses(write: (list: string) => Promise<void>): Promise<KernelObjects> {
  const { directory, list } = fakeGroup();
  const sandbox = { groups: [directory] } as unknown as EngineSandbox;
  const counting = lazyCount(() => [sandbox])(sandbox);
  await write(list);
  return await counting;
}

const processorParent = (await findGroupParents()).find(({ controllers }) => controllers.includes("cpu"));

it.runIf(processorParent !== undefined)(
  "a count that waits for a processor is not the fault of its sandbox, whose objects it then finds",
  async () => {
    const group = join(processorParent?.path ?? "", `sandbox-mcp-test-${randomUUID()}`);
    mkdirSync(group);
    doLater(() => rmdirSync(group));
    const [file, share] = processorParent?.version === 1 ? ["cpu.cfs_quota_us", "1000"] : ["cpu.max", "1000"];
    if (processorParent?.version === 1) writeFileSync(join(group, "cpu.cfs_period_us"), "1000000");
    writeFileSync(join(group, file), share + (processorParent?.version === 1 ? "" : " 1000000"));
    const counted = await countProcesses(async (list) => {
      const program = await until(() =>
        processes().find(({ command }) => command.startsWith("perl") && command.endsWith(list)),
      );
      writeFileSync(join(group, "cgroup.procs"), String(program.pid));
      const opened = await until(() => openCounted(list));
      // Long enough for about 20 s.
      writeSync(opened, `${process.pid}\n`.repeat(8));
      closeSync(opened);
    });
    expect(counted.mappings).toBeGreaterThan(100);
    expect(counted.mappings).toBeLessThan(VERY_MANY);
  },
);

it("a count that neither ends nor uses a processor, as one that waits for a locked pipe, is the fault of its sandbox", async () => {
  const counted = await countProcesses(async () => undefined);
  expect(counted.mappings).toBe(VERY_MANY);
});

it.runIf(existsSync("/sys/kernel/slab/file_lock_cache"))(
  "file locks: after a count that explains nothing, the engine does not count again at once",
  async () => {
    const { directory, list } = fakeGroup();
    const sandbox = { groups: [directory], chargedGroups: [], end: () => undefined };
    const registry = { count: 1, list: () => [sandbox as unknown as EngineSandbox] };
    onTestFinished(
      guardMachine([], { ...defaultLimits(NO_MACHINE_LIMITS), fileLocksOfMachine: 3000 }, registry),
    );
    // Takes more locks whenever it reads a line.
    const lines = [
      "import fcntl, os, sys",
      "held = []",
      "for _ in sys.stdin:",
      "  for file in [os.memfd_create('locked') for _ in range(200)]:",
      "    held.append(file)",
      "    for at in range(0, 60, 2): fcntl.lockf(file, fcntl.LOCK_EX, 1, at)",
    ];
    const taker = spawn("python3", ["-c", lines.join("\n")], { stdio: ["pipe", "ignore", "inherit"] });
    onTestFinished(() => void taker.kill("SIGKILL"));
    await sleep(500);
    taker.stdin.write("\n");
    const counted = await until(() => openCounted(list));
    await sleep(1000);
    closeSync(counted);
    await sleep(400);
    taker.stdin.write("\n");
    await sleep(600);
    expect(openCounted(list)).toBe(undefined);
    closeSync(await until(() => openCounted(list)));
  },
);
