/** Kernel memory that the limit of memory for all sandboxes misses, and kernel memory for which the engine ends a sandbox. */
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { chmodSync, statfsSync, writeFileSync } from "node:fs";
import { truncate } from "node:fs/promises";
import { totalmem } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { countOf, kernelMemoryOf, memoryOf } from "../../local/engine/group-use.ts";
import { findGroupParents } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, groupsOf } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

it.runIf(isMemoryLimited)(
  "directories in each other count with the memory for the lists of their entries",
  async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const sleeper = `sleep 86400.${randomInt(1e9)}`;
    await sandbox.run(`setsid ${sleeper} >/dev/null 2>&1 &`);
    await expect.poll(() => findProcess(sleeper)).toBeDefined();
    const groups = groupsOf(findProcess(sleeper)?.pid);
    const measure = async () => ({
      memory: await countOf(groups, memoryOf),
      kernel: await countOf(groups, kernelMemoryOf),
    });
    const before = await measure();
    const nest = ["import os", "for _ in range(60_000): os.mkdir('one'); os.chdir('one')", "print('made')"];
    expect((await sandbox.python(nest)).stdout).toBe("made");
    const after = await measure();
    // Measured: 960 bytes of a directory are counted, and 286 are not.
    expect(after.memory - before.memory).toBeGreaterThan(1.2 * (after.kernel - before.kernel));
  },
);

/** ext4, which keeps the entries that a program has not read yet. */
const isExt4 = statfsSync("/usr/bin").type === 0xef53;

it.runIf(isExt4)(
  "the engine ends a sandbox whose many open directories fill the kernel's memory",
  async () => {
    const limits = { kernelGrowthOfMachine: 200 * 1024 * 1024 };
    const engine = endLater(await startTestEngine({ limits }));
    const [modest, reader] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    const open = [
      "import ctypes, os, platform, time",
      "getdents = 217 if platform.machine() == 'x86_64' else 61",
      "libc, entries = ctypes.CDLL(None), ctypes.create_string_buffer(300)",
      "for _ in range(60):",
      "  reader, writer = os.pipe()",
      "  if os.fork() == 0:",
      "    for file in [os.open('/usr/bin', os.O_RDONLY) for _ in range(900)]: libc.syscall(getdents, file, entries, 300)",
      "    os.write(writer, b'x'); time.sleep(600)",
      "  os.read(reader, 1); os.close(reader); os.close(writer)",
      "time.sleep(600)",
    ];
    void reader.python(open).catch(() => undefined);
    expect((await reader.waitForEnd()).reason).toContain("many directories");
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  },
);

/** Takes 180 MB of the kernel's memory for a reason that the engine does not look for. */
const MAKE_FILES = [
  "import os, time",
  "for at in range(190_000): os.close(os.open(f'/tmp/{at}', os.O_CREAT))",
  "print('made', flush=True); time.sleep(4); print('kept')",
];
/** Takes 400 MB with a program outside all sandboxes: memory of its own, or of the kernel. */
const TAKE = {
  "its own": ["kept = bytearray(b'1') * (400 << 20)"],
  "the kernel's": [
    "import os; zeros = os.open('/dev/zero', os.O_RDONLY); pipes = [os.pipe() for _ in range(400)]",
    "import fcntl; [fcntl.fcntl(end, 1031, 1 << 20) for _, end in pipes]",
    "for _, end in pipes: os.sendfile(end, zeros, 0, 1 << 20)",
  ],
};

describe.runIf(isMemoryLimited)("kernel memory without a known reason, 150 MB more of it", () => {
  const kernelGrowthOfMachine = 150 * 1024 * 1024;

  it("while the machine has no memory left, the engine ends the sandbox that has most of it", async () => {
    const limits = { kernelGrowthOfMachine, usedMemoryOfMachine: 1 };
    const engine = endLater(await startTestEngine({ limits }));
    const [modest, taker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    void taker.python(MAKE_FILES).catch(() => undefined);
    expect((await taker.waitForEnd()).reason).toContain("most of the kernel's memory");
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  });

  it("while the machine has memory left, the engine ends no sandbox", async () => {
    const limits = { kernelGrowthOfMachine, usedMemoryOfMachine: totalmem() };
    const sandbox = await TestSandbox.start(endLater(await startTestEngine({ limits })));
    expect((await sandbox.python(MAKE_FILES)).stdout).toBe("made\nkept");
  });

  it.each(Object.entries(TAKE))(
    "the engine ends no sandbox when another program takes the rest of the machine's memory, %s",
    async (_, take) => {
      const limits = { kernelGrowthOfMachine, usedMemoryOfMachine: 1 };
      const sandbox = await TestSandbox.start(endLater(await startTestEngine({ limits })));
      const program = [...take, "import time; print(1, flush=True); time.sleep(600)"].join("\n");
      const taker = spawn("python3", ["-c", program], { stdio: ["ignore", "pipe", "inherit"] });
      onTestFinished(() => void taker.kill("SIGKILL"));
      await once(taker.stdout, "data");
      await sleep(2000);
      expect((await sandbox.run("echo unharmed")).stdout).toBe("unharmed");
    },
  );
});

it("the engine does not end a sandbox with unread data in a few connections for memory that another one takes by pipes", async () => {
  const engine = endLater(await startTestEngine({ limits: { kernelGrowthOfMachine: 150 * 1024 * 1024 } }));
  const [modest, taker] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  // Each connection could hide 85 MB.
  const connect = [
    "import os, socket",
    "server = socket.create_server(('127.0.0.1', 0)); held = []",
    "for _ in range(8):",
    "  client = socket.create_connection(server.getsockname())",
    "  client.sendall(bytes(10_000)); held.append((client, server.accept()))",
    "open('/tmp/connected', 'w').close()",
    "os.system('until [ -e /tmp/end ]; do sleep 0.1; done'); print('kept')",
  ];
  const kept = modest.python(connect);
  void kept.catch(() => undefined);
  await modest.run("until [ -e /tmp/connected ]; do sleep 0.1; done");
  const fill = [
    "import os, time",
    "for user in range(1000, 1020):",
    "  if os.fork() == 0: break",
    "else: time.sleep(600)",
    "os.setgid(user); os.setuid(user); zeros = os.open('/dev/zero', os.O_RDONLY)",
    "pipes = [os.pipe() for _ in range(400)]",
    "for _, end in pipes: os.sendfile(end, zeros, 0, 65_536)",
    "time.sleep(600)",
  ];
  void taker.python(fill).catch(() => undefined);
  expect((await taker.waitForEnd()).reason).toContain("many pipes");
  await modest.run("touch /tmp/end");
  expect((await kept).stdout).toBe("kept");
});

const MiB = 1024 * 1024;

/** An engine whose sandboxes see a large file, and a neighbour that holds 200 MiB and has not accepted some connections. */
async function startWithLargeFile(allMemoryBytes: number) {
  const directory = temporaryDirectory();
  chmodSync(directory, 0o755);
  writeFileSync(join(directory, "large"), "");
  await truncate(join(directory, "large"), 2 ** 32);
  const limits = { allMemoryBytes, diskBytes: 512 * MiB, memoryBytes: 1024 * MiB };
  const readOnly = [{ from: directory, to: "/opt/large" }];
  const engine = endLater(await startTestEngine({ limits, readOnly }));
  const start = (principal: string) => TestSandbox.start(engine, { principal });
  const neighbour = await start("neighbour");
  const hold = [
    "import socket, time",
    'kept = bytearray(200 << 20); server = socket.socket(socket.AF_UNIX); server.bind("/tmp/busy"); server.listen()',
    "clients = [socket.socket(socket.AF_UNIX) for _ in range(10)]",
    "for client in clients: client.connect(server.getsockname())",
    "print(1, flush=True); time.sleep(600)",
  ];
  await neighbour.run(`{ python3 -c '${hold.join("\n")}' & } | head -n 1`);
  return { neighbour, start };
}

/** Keeps 26 MB of the large file for each user. Linux makes small pipes for a user with many. */
const keepInPipes = (users: number) => [
  "import os, time",
  `for user in range(${users}):`,
  "  if os.fork() == 0: break",
  "else: time.sleep(600)",
  "os.setgid(1000 + user); os.setuid(1000 + user); file = os.open('/opt/large/large', os.O_RDONLY)",
  "pipes = [os.pipe() for _ in range(400)]",
  "for at, (_, end) in enumerate(pipes): os.sendfile(end, file, (user * 400 + at) << 16, 65_536)",
  "open(f'/tmp/kept-{user}', 'w'); time.sleep(600)",
];

it.runIf(isMemoryLimited).each([
  ["", 18],
  [", in so many processes that the first one gets no turn", 100],
])(
  "the engine ends only the sandbox that keeps cached files in pipes until the memory of all sandboxes is used up%s",
  async (_, users) => {
    // Without the cached files, the neighbour has most.
    const { neighbour, start } = await startWithLargeFile(900 * MiB);
    const keeper = await start("keeper");
    void keeper.python(keepInPipes(users)).catch(() => undefined);
    expect((await keeper.waitForEnd()).reason).toContain("memory of all sandboxes");
    expect((await neighbour.run("echo unharmed")).stdout).toBe("unharmed");
  },
);

it.runIf(isMemoryLimited)(
  "the engine ends only the sandbox that keeps files in pipes for which an ended sandbox counts",
  async () => {
    const { neighbour, start } = await startWithLargeFile(1100 * MiB);
    const [reader, keeper] = [await start("attacker"), await start("attacker")];
    await reader.run(`head -c ${18 * 400 * 65_536} /opt/large/large >/dev/null`);
    void keeper.python(keepInPipes(18)).catch(() => undefined);
    await keeper.run("until [ -e /tmp/kept-17 ] && [ $(ls /tmp/kept-* | wc -l) = 18 ]; do sleep 0.1; done");
    await reader.call("DELETE", "");
    const grown = neighbour.python(["x = bytearray(400 << 20); print('grown')"]);
    expect((await keeper.waitForEnd()).reason).toContain("ended sandboxes");
    expect((await grown).stdout).toBe("grown");
  },
);

/** Reads 480 MiB in pieces of 2 MiB, which the kernel keeps as a whole. */
const READ_PIECES = [
  "import mmap; file = open('/opt/large/large', 'rb')",
  "pages = mmap.mmap(file.fileno(), 480 << 20, prot=mmap.PROT_READ); pages.madvise(14)",
  "for at in range(240): pages[at << 21]",
];

/** Keeps one page of each piece. */
const KEEP = {
  "Unix sockets": [
    "pairs = [socket.socketpair() for _ in range(3)]",
    "for at in range(240): os.sendfile(pairs[at % 3][0].fileno(), file, at << 21, 1)",
  ],
  "Unix sockets, beside so many descriptors that a count ends without a result,": [
    "pairs = [socket.socketpair() for _ in range(3)]",
    "for at in range(240): os.sendfile(pairs[at % 3][0].fileno(), file, at << 21, 1)",
    "libc = ctypes.CDLL(None); watch = libc.inotify_init()",
    "for at in range(20_000): os.mkdir(f'/tmp/{at}'); libc.inotify_add_watch(watch, b'/tmp/%d' % at, 2)",
    "copies = [os.dup(watch) for _ in range(1000)]",
  ],
  "Unix sockets, beside a file that waits where no count sees it until a count breaks a connection,": [
    "pairs = [socket.socketpair() for _ in range(3)]",
    "for at in range(240): os.sendfile(pairs[at % 3][0].fileno(), file, at << 21, 1)",
    "hiding = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "server = socket.socket(socket.AF_UNIX); server.bind('/tmp/server'); server.listen()",
    "if os.fork() == 0:",
    "  while True:",
    "    client = socket.socket(socket.AF_UNIX); client.connect('/tmp/server')",
    "    socket.send_fds(hiding[0], [b''], [file]); hiding[1].recv(1, socket.MSG_PEEK)",
    "    client.recv(1); hiding[1].recv(1); time.sleep(0.3)",
  ],
  "Unix connections that no program has accepted": [
    "server = socket.socket(socket.AF_UNIX); server.bind('/tmp/server'); server.listen(3)",
    "for at in range(240):",
    "  if at % 80 == 0: client = socket.socket(socket.AF_UNIX); client.connect('/tmp/server')",
    "  os.sendfile(client.fileno(), file, at << 21, 1)",
    "client.close()",
  ],
  "TCP connections": [
    "server = socket.create_server(('127.0.0.1', 0)); clients = []",
    "for _ in range(3): clients.append((socket.create_connection(server.getsockname()), server.accept()))",
    "for at in range(240): os.sendfile(clients[at % 3][0].fileno(), file, at << 21, 1)",
  ],
  "locked memory": [
    "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p",
    "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]",
    "libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]",
    "for part in range(15):",
    "  reader, writer = os.pipe()",
    "  if os.fork() == 0:",
    "    pages = libc.mmap(None, 480 << 20, 1, 1, file, 0)",
    "    for at in range(16): libc.mlock(pages + ((part * 16 + at) << 21), 4096)",
    "    os.close(writer); time.sleep(600)",
    "  os.close(writer); os.read(reader, 1)",
  ],
};

it.runIf(isMemoryLimited).each(Object.entries(KEEP))(
  "the engine ends only the sandbox that keeps large pieces of files in %s for which an ended sandbox counts",
  async (_, keep) => {
    const { neighbour, start } = await startWithLargeFile(1100 * MiB);
    const [reader, keeper] = [await start("attacker"), await start("attacker")];
    await reader.python(READ_PIECES);
    const lines = [
      "import ctypes, os, socket, time; file = os.open('/opt/large/large', os.O_RDONLY)",
      ...keep,
    ];
    void keeper.python([...lines, "open('/tmp/kept', 'w'); time.sleep(600)"]).catch(() => undefined);
    await keeper.run("until [ -e /tmp/kept ]; do sleep 0.1; done");
    await reader.call("DELETE", "");
    const grown = neighbour.python(["x = bytearray(440 << 20); print('grown')"]);
    expect((await keeper.waitForEnd()).reason).toContain("ended sandboxes");
    expect((await grown).stdout).toBe("grown");
  },
);
