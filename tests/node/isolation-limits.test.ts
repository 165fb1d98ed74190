/** A sandbox uses up all resources that it can get. The engine and the other sandboxes continue to work. */
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it, onTestFinished } from "vitest";
import { countOf, freeableMemoryOf } from "../../local/engine/group-use.ts";
import { findGroupParents, type Limits } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, groupsOf, valuesInGroups } from "../setup/processes.ts";
import { lookUpInVain } from "../setup/python-programs.ts";

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

/** Expects a new engine to end a sandbox with this program, because of this resource. Returns the output of another sandbox. */
async function endFor(resource: string, program: readonly string[], ofMachine: Partial<Limits>) {
  const one = endLater(await startTestEngine({ limits: { ...limits, ...ofMachine } }));
  const [modest, taker] = [await TestSandbox.start(one), await TestSandbox.start(one)];
  void taker.python(program).catch(() => undefined);
  expect(await taker.waitForEnd()).toMatchObject(endedFor(resource));
  return (await modest.run("echo unharmed")).stdout;
}

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
      /^512\n64\n0\n.*not permitted/,
    );
    expect((await other.run("ulimit -c unlimited && ulimit -c 100")).exitCode).toBe(0);
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

describe("resources of the whole machine", () => {
  const checked = [
    "import ctypes, os, time",
    "libc = ctypes.CDLL(None, use_errno=True)",
    "def checked(result):",
    "  if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))",
    "  return result",
  ];
  /** Takes as many resources as possible, prints their number and the error, and keeps them. */
  const takeAll = (take: string, at: string) =>
    [
      ...checked,
      "held = []; why = None",
      "while why is None and len(held) < 5000:",
      `  try: held.append(${take})`,
      "  except OSError as error: why = error.strerror",
      "print(len(held), why, flush=True)",
      `open('${at}', 'w').close(); time.sleep(600)`,
    ].join("\n");

  it.each([
    ["pseudo terminals", "os.openpty()", 64],
    ["inotify instances", "checked(libc.inotify_init1(0))", 64],
  ])("%s are divided among sandboxes", async (_, take, most) => {
    const greedy = await startGreedy();
    // Two processes, because one process reaches its limit of open files first.
    for (const part of ["a", "b"]) {
      void greedy
        .run(`python3 -c "${takeAll(take, `/tmp/${part}.done`)}" >/tmp/${part}`)
        .catch(() => undefined);
      await expect.poll(async () => (await greedy.run(`test -e /tmp/${part}.done`)).exitCode).toBe(0);
    }
    const { stdout } = await greedy.run("cat /tmp/a /tmp/b");
    const [first = "", second = ""] = stdout.split("\n");
    expect(Number.parseInt(first, 10)).toBeGreaterThan(8);
    expect(Number.parseInt(first, 10) + Number.parseInt(second, 10)).toBeLessThanOrEqual(most);
    const one = [...checked, take, "print('had')"].join("\n");
    expect((await other.run(`python3 -c "${one}"`)).stdout).toBe("had");
  });

  it("memory of TCP: unread data of a hundred connections is limited", async () => {
    const greedy = await startGreedy();
    const connections = [
      "import socket",
      "listener = socket.create_server(('127.0.0.1', 0), backlog=200)",
      "held = []; waiting = 0",
      "for _ in range(100):",
      "  one = socket.create_connection(listener.getsockname()); held += [one, listener.accept()[0]]",
      "  one.settimeout(0.02)",
      "  while waiting < 300 << 20:",
      "    try: waiting += one.send(bytes(1 << 16))",
      "    except OSError: break",
      "print(waiting >> 20)",
    ];
    const { stdout } = await greedy.python(connections);
    expect(Number(stdout)).toBeGreaterThan(0);
    expect(Number(stdout)).toBeLessThan(40);
  });

  it("memory of TCP: the engine ends a sandbox that takes most of it by many connections", async () => {
    const connections = [
      "import os, socket, time",
      "for one in range(1, 61):",
      "  if os.fork() == 0:",
      "    address = (f'127.1.0.{one}', 5000); listener = socket.create_server(address, backlog=4096); held = []",
      "    for _ in range(450):",
      "      end = socket.socket(); end.setblocking(False); held.append(end)",
      "      end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)",
      "      try: end.connect(address)",
      "      except BlockingIOError: pass",
      "      try:",
      "        while end.send(bytes(20000)): pass",
      "      except BlockingIOError: pass",
      "    time.sleep(600)",
      "time.sleep(600)",
    ];
    expect(await endFor("TCP", connections, { tcpBytesOfMachine: 100 * MiB })).toBe("unharmed");
  });

  it("memory of the kernel: the engine ends a sandbox that takes most of it by file locks", async () => {
    const locks = [
      "import fcntl, os, time",
      "for one in range(8):",
      "  if os.fork() == 0:",
      "    held = [os.memfd_create('locked') for _ in range(200)]",
      "    for file in held:",
      "      for at in range(2000, 0, -2): fcntl.lockf(file, fcntl.LOCK_EX, 1, at)",
      "    time.sleep(600)",
      "time.sleep(600)",
    ];
    expect(await endFor("locks", locks, { kernelGrowthOfMachine: 50 * MiB })).toBe("unharmed");
  });

  /** The kernel frees a block of 32 KiB only as a whole. `nextBlock` fills the current block, so that one unread byte holds it. */
  const blocks = [
    "import ctypes, fcntl, os, socket, struct, termios, time",
    "def connected():",
    "  with socket.create_server(('127.0.0.1', 0)) as listener:",
    "    one = socket.create_connection(listener.getsockname()); return one, listener.accept()[0]",
    "source, sink = connected(); data = bytes(32760)",
    "def nextBlock():",
    "  source.sendall(data); left = len(data)",
    "  while left: left -= len(sink.recv(left))",
  ];
  const datagrams = [
    ...blocks,
    "held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(450)]",
    "for end in held:",
    "  end.connect(('127.0.0.1', 9))",
    "  for _ in range(16): end.send(b'x', socket.MSG_MORE); nextBlock()",
  ];
  const queues = {
    "datagrams that are not finished": [...datagrams, "time.sleep(600)"],
    "datagrams that are not finished, in sockets that have lost their port": [
      ...datagrams.slice(0, -1),
      "  for _ in range(16): end.send(b'x', socket.MSG_MORE); nextBlock()",
      "  ctypes.CDLL(None).connect(end.fileno(), struct.pack('H14x', socket.AF_UNSPEC), 16)",
      "time.sleep(600)",
    ],
    "unsent data of a few TCP connections": [
      ...blocks,
      "held = [connected() for _ in range(10)]",
      "for end, _ in held:",
      "  end.setblocking(False); end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30); unsent = 0",
      "  while unsent == 0:",
      "    end.send(bytes(1000)); time.sleep(0.001)",
      "    unsent, = struct.unpack('i', fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)))",
      "  try:",
      "    while end.send(b'x'): nextBlock()",
      "  except BlockingIOError: pass",
      "time.sleep(600)",
    ],
    "unread pages in local sockets": [
      "import os, socket, time",
      "file = os.open('/proc/version', os.O_RDONLY); held = [socket.socketpair() for _ in range(200)]",
      "for end, _ in held:",
      "  end.setblocking(False)",
      "  try:",
      "    while os.sendfile(end.fileno(), file, 0, 1): pass",
      "  except BlockingIOError: pass",
      "time.sleep(600)",
    ],
  };

  it("memory of the kernel: the engine ends a sandbox that takes most of it by data in its sockets", async () => {
    const ownEngine = endLater(
      await startTestEngine({ limits: { ...limits, kernelGrowthOfMachine: 50 * MiB } }),
    );
    const modest = await TestSandbox.start(ownEngine);
    for (const [kind, program] of Object.entries(queues)) {
      const taker = await TestSandbox.start(ownEngine);
      const failed = taker.python(program).then(({ stderr }) => ({ reason: stderr }));
      const end = await Promise.race([taker.waitForEnd(), failed.catch(() => taker.waitForEnd())]);
      expect({ kind, ...end }).toMatchObject({ kind, reason: expect.stringContaining("unsent or unread") });
    }
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  });

  it.runIf(isMemoryLimited)(
    "memory of the kernel: a sandbox with idle Unix sockets is not ended for memory that another one takes by pipes",
    async () => {
      const ownEngine = endLater(
        await startTestEngine({ limits: { ...limits, kernelGrowthOfMachine: 60 * MiB } }),
      );
      const [idle, taker] = [await TestSandbox.start(ownEngine), await TestSandbox.start(ownEngine)];
      await idle.python([
        "import os, socket, time",
        "if os.fork() == 0:",
        "  pairs = [socket.socketpair() for _ in range(60)]",
        "  open('/tmp/ready', 'w'); [os.close(one) for one in (0, 1, 2)]; time.sleep(600)",
        "while not os.path.exists('/tmp/ready'): time.sleep(0.01)",
      ]);
      const filling = taker.python([
        "import os, time",
        "def fill():",
        "  file, kept = os.open('/proc/version', os.O_RDONLY), []",
        "  try:",
        "    while True:",
        "      kept.append(os.pipe()); os.set_blocking(kept[-1][1], False)",
        "      try:",
        "        while os.sendfile(kept[-1][1], file, 0, 1): pass",
        "      except BlockingIOError: pass",
        "  except OSError: pass",
        "  os.write(done, b'x'); time.sleep(600)",
        "all, done = os.pipe()",
        "for _ in range(45):",
        "  if os.fork() == 0: [os.close(one) for one in (0, 1, 2)]; fill()",
        "for _ in range(45): os.read(all, 1)",
        "time.sleep(600)",
      ]);
      filling.catch(() => undefined);
      expect(await taker.waitForEnd()).toMatchObject(endedFor("in many pipes"));
      expect((await idle.run("echo unharmed")).stdout).toBe("unharmed");
    },
  );

  /** Connections that their clients have reset before the server accepts them. */
  const resetConnections = (data: string) => [
    "import ctypes, os, socket, time",
    "for one in range(1, 5):",
    "  if os.fork() == 0:",
    "    listeners = []",
    "    for port in range(5000, 5005):",
    "      address = (f'127.1.0.{one}', port)",
    "      listeners.append(socket.create_server(address, backlog=4096))",
    "      for _ in range(4000):",
    "        with socket.create_connection(address) as end:",
    `          end.send(${data})`,
    // Connecting to no address (AF_UNSPEC) resets the connection.
    "          assert ctypes.CDLL(None).connect(end.fileno(), bytes(16), 16) == 0",
    "    time.sleep(600)",
    "time.sleep(600)",
  ];

  it("memory of the kernel: the engine ends a sandbox that takes most of it by reset connections", async () => {
    const program = resetConnections("b''");
    expect(await endFor("unsent or unread", program, { kernelGrowthOfMachine: 50 * MiB })).toBe("unharmed");
  });

  it("memory of TCP: the engine ends a sandbox that takes most of it by reset connections", async () => {
    const tcpBytesOfMachine = 100 * MiB;
    expect(await endFor("TCP", resetConnections("bytes(20000)"), { tcpBytesOfMachine })).toBe("unharmed");
  });

  it("TCP: the engine ends the sandbox that has most of the closed connections with data to send", async () => {
    const connections = [
      "import os, socket, time",
      "for one in range(1, 5):",
      "  if os.fork() == 0:",
      "    listeners = []",
      "    for port in range(5000, 5003):",
      "      address = (f'127.1.0.{one}', port); listeners.append(socket.socket())",
      "      listeners[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)",
      "      listeners[-1].bind(address); listeners[-1].listen(4096)",
      "      for _ in range(4000):",
      "        with socket.create_connection(address) as end:",
      "          end.setblocking(False); end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)",
      "          try:",
      "            while end.send(bytes(2500)): pass",
      "          except BlockingIOError: pass",
      "    time.sleep(600)",
      "time.sleep(600)",
    ];
    expect(await endFor("TCP connections", connections, { tcpOrphansOfMachine: 200 })).toBe("unharmed");
  });

  it("memory of netlink: a process can send messages to the kernel, but not to another process", async () => {
    const sockets = [
      "import os, socket",
      "one, two = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) for _ in range(2)); one.bind((0, 0))",
      "try: print(two.sendto(bytes(64), (one.getsockname()[0], 0)))",
      "except OSError as error: print(error.strerror)",
      "print(socket.if_nameindex())",
    ];
    const { stdout } = await other.python(sockets);
    expect(stdout).toBe("Operation not permitted\n[(1, 'lo')]");
    expect((await other.run("node -p 'Object.keys(os.networkInterfaces())'")).stdout).toBe("[ 'lo' ]");
  });

  it("memory of netlink: the engine ends a sandbox that leaves many replies of the kernel unread", async () => {
    const greedy = await startGreedy();
    const unread = [
      "import socket, struct, time",
      "refused = struct.pack('=IHHII', 60000, 4000, 1, 1, 0) + bytes(60000 - 16)",
      "held = []",
      "for _ in range(400):",
      "  one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); held.append(one)",
      "  for _ in range(4): one.send(refused)",
      "time.sleep(600)",
    ];
    void greedy.python(unread).catch(() => undefined);
    expect(await greedy.waitForEnd()).toMatchObject(endedFor("netlink"));
  });

  it("netlink: the engine also ends a sandbox with many sockets, which the kernel lists slowly", async () => {
    const greedy = await startGreedy();
    const many = "import socket, time; held = [socket.socket(16, 3, 0) for _ in range(400)]";
    void greedy
      .run(
        `for i in 1 2 3; do python3 -c '${many}; [one.bind((0, 0)) for one in held]; time.sleep(600)' & done; wait`,
      )
      .catch(() => undefined);
    expect(await greedy.waitForEnd()).toMatchObject(endedFor("netlink"));
  });

  /** Both programs keep files open without descriptors, so no limit of a process counts them. */
  const holders = {
    "waiting in sockets, of many users": [
      "import array, os, socket, time",
      "sockets = [socket.socketpair() for _ in range(160)]",
      "for user, (end, _) in enumerate(sockets, 1):",
      "  if os.fork() == 0:",
      "    os.setuid(user)",
      "    for _ in range(5):",
      "      files = [os.open('/dev/null', 0) for _ in range(250)]",
      "      end.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])",
      "      for file in files: os.close(file)",
      "    os._exit(0)",
      "  os.wait()",
      "time.sleep(600)",
    ],
    "mapped into memory": [
      "import ctypes, os, time",
      "libc = ctypes.CDLL(None)",
      "for _ in range(4):",
      "  if os.fork() == 0:",
      "    for _ in range(50000):",
      "      file = os.open('/workspace/file', os.O_CREAT)",
      "      libc.mmap(None, ctypes.c_size_t(4096), 1, 2, file, ctypes.c_long(0)); os.close(file)",
      "    time.sleep(600)",
      "time.sleep(600)",
    ],
  };

  it.runIf(isMemoryLimited && process.getuid?.() === 0).each(Object.entries(holders))(
    "open files of the machine: the engine ends a sandbox that takes most of them: %s",
    async (_, program) => {
      const few = { openFiles: 1024, openFilesOfMachine: 100_000 };
      expect(await endFor("open files", program, few)).toBe("unharmed");
    },
  );

  it("queued signals and POSIX timers are limited, because all timers can end in one interrupt", async () => {
    const timers = [
      "import ctypes, os",
      "libc = ctypes.CDLL(None, use_errno=True); made = 0",
      "while made < 10000 and libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0: made += 1",
      "print(made <= 128, os.strerror(ctypes.get_errno()))",
    ];
    const { stdout } = await other.run(`python3 -c "${timers.join("\n")}"`);
    expect(stdout).toBe("True Resource temporarily unavailable");
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

  it("share a memory limit, and the engine first ends the one that uses most", async () => {
    const ownEngine = endLater(await startTestEngine({ limits: whole }));
    const [modest, large, many] = await Promise.all([1, 2, 3].map(() => TestSandbox.start(ownEngine)));
    // The largest process is not in the sandbox that uses the most memory.
    await large?.run(`{ ${hold(120)} & } | head -n 1`);
    void many?.run(fill).catch(() => undefined);
    expect(await many?.waitForEnd()).toMatchObject(endedFor("memory"));
    expect((await large?.run("pgrep -c -f bytearray"))?.stdout).toBe("1");
    expect((await modest?.run("echo unharmed"))?.stdout).toBe("unharmed");
  });

  it("are counted by principal: many small sandboxes of one principal end before a larger one of another principal", async () => {
    const one = endLater(await startTestEngine({ limits: whole }));
    const start = (principal: string) => TestSandbox.start(one, { principal });
    const [large, ...several] = await Promise.all(["single", "many", "many", "many"].map(start));
    await large?.run(`{ ${hold(240)} & } | head -n 1`);
    for (const sandbox of several) void sandbox.run(fill).catch(() => undefined);
    const ended = await Promise.any(several.map((sandbox) => sandbox.waitForEnd()));
    expect(ended).toMatchObject(endedFor("memory"));
    expect((await large?.run("pgrep -c -f bytearray"))?.stdout).toBe("1");
  });

  it("keep few names that were looked up in /usr in vain, because a watch of a directory goes through all of them", async () => {
    const greedy = await startGreedy();
    const mark = `sleep 86400.${randomUUID().replaceAll(/\D/g, "")}`;
    await greedy.run(`setsid ${mark} >/dev/null 2>&1 &`);
    const names = async () => await countOf(groupsOf(findProcess(mark)?.pid), freeableMemoryOf);
    await greedy.python(lookUpInVain(300_000));
    await expect.poll(names).toBeLessThan(128 * MiB);
    expect((await greedy.run("echo goes on")).stdout).toBe("goes on");
  });

  it("are not ended for memory that Linux keeps of ended sandboxes: names that were looked up in /usr in vain", async () => {
    const one = endLater(await startTestEngine({ limits: { ...whole, allMemoryBytes: 240 * MiB } }));
    const modest = await TestSandbox.start(one);
    const passing = await TestSandbox.start(one);
    await passing.python(lookUpInVain(150_000)).catch(() => undefined);
    await passing.destroy();
    await modest.run(`{ ${hold(100)} & } | head -n 1; sleep 2`);
    expect((await modest.run("pgrep -c -f bytearray")).stdout).toBe("1");
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

  it("has a limit of files, because the kernel takes long to go through a million nested or neighbouring directories", async () => {
    const { stdout } = await other.run("stat -f -c %c / /dev/shm /var/lib/sandbox-mcp");
    expect(Math.max(...stdout.split("\n").map(Number))).toBeLessThanOrEqual(262_144);
  });

  it("is the only writable place except shared memory, which has its own limit", async () => {
    const greedy = await startGreedy();
    const { stdout, stderr } = await greedy.run("head -c 200M /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x");
    expect(stderr).toContain("No space left on device");
    expect(Number(stdout)).toBeLessThanOrEqual(limits.diskBytes / 4);
    const mounts = await greedy.run("awk '$4 ~ /^rw/ && $3 == \"tmpfs\" {print $2}' /proc/mounts");
    const known = ["/", "/dev/shm", "/var/lib/sandbox-mcp"];
    expect(mounts.stdout.split("\n").toSorted()).toEqual(known);
    // Without overlayfs, the sandbox has the machine's devices, which are in a devtmpfs.
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
