/** Counts of files that wait in sockets (SCM_RIGHTS). The programs of these tests run outside sandboxes. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type KernelObjects, PROGRAM } from "../../local/engine/kernel-objects.ts";
import { doLater } from "../setup/end-later.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { until } from "../setup/until.ts";

const IMPORTS = [
  "import array, fcntl, os, select, socket, sys, time",
  "def give(end, *files): end.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])",
];

/** Counts the objects of a Python program. @param openFiles how many files the program that counts may open */
async function outputFor(program: string[], openFiles = 1024, accept = "none"): Promise<string> {
  const group = temporaryDirectory();
  const [ready, list] = [join(group, "ready"), join(group, "cgroup.procs")];
  const lines = [...IMPORTS, ...program, "os.mkdir(sys.argv[1]); time.sleep(600)"];
  const counted = spawn("python3", ["-c", lines.join("\n"), ready], { stdio: "ignore" });
  doLater(() => void counted.kill("SIGKILL"));
  await until(() => existsSync(ready));
  writeFileSync(list, `${counted.pid}\n`);
  const limited = `ulimit -n ${openFiles}; exec perl "$@"`;
  const args = [PROGRAM, process.arch, "1048576", accept, list];
  return execFileSync("sh", ["-c", limited, "sh", ...args], { encoding: "utf8" });
}

async function countOf(program: string[], openFiles?: number, accept?: string): Promise<KernelObjects> {
  return JSON.parse(await outputFor(program, openFiles, accept)) as KernelObjects;
}

const PIPE_BYTES = 65_536;
/** The tests' own pipes, which their programs inherit. */
const { pipeBytes: OWN_BYTES } = await countOf([]);

it("a count sees pipes that wait in nested sockets, each once", async () => {
  const counted = await countOf([
    "inner, outer = socket.socketpair(), socket.socketpair()",
    "ends = os.pipe(); give(inner[0], *ends); give(inner[0], *ends); give(outer[0], inner[1].fileno())",
    "[os.close(end) for end in ends]; inner[1].close()",
  ]);
  expect(counted).toMatchObject({ waiting: 0, pipeBytes: OWN_BYTES + PIPE_BYTES });
});

it("a count sees the unread pages in pipes, also if each has a single byte", async () => {
  const { keptPages: own } = await countOf([]);
  const counted = await countOf([
    "file, filled, empty, full = os.open('/etc/passwd', os.O_RDONLY), os.pipe(), os.pipe(), os.pipe()",
    "for _ in range(10): os.sendfile(filled[1], file, 0, 1)",
    "os.write(full[1], b'x' * 65_536)",
  ]);
  expect(counted.keptPages).toBe(own + 26);
});

it("a count sees the unread bytes in Unix sockets and the locked pages", async () => {
  const { keptPages: own } = await countOf([], undefined, "all");
  const counted = await countOf(
    [
      "import mmap, ctypes; libc = ctypes.CDLL(None)",
      "held = socket.socketpair(); held[0].send(b'x' * 7)",
      "locked = mmap.mmap(-1, 3 * 4096); start = ctypes.addressof(ctypes.c_char.from_buffer(locked))",
      "libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(3 * 4096))",
    ],
    undefined,
    "all",
  );
  expect(counted.keptPages).toBe(own + 10);
});

/** The second connection has no files. */
const CONNECT = [
  "def serve(*files):",
  "  server, clients = socket.socket(socket.AF_UNIX), [socket.socket(socket.AF_UNIX) for _ in range(2)]",
  "  server.bind(f'{sys.argv[1]}-{len(files)}'); server.listen()",
  "  for client in clients: client.connect(server.getsockname()); client.send(b'x' * 9)",
  "  give(clients[0], *files) if files else None",
  "  return server",
  "ends = os.pipe(); kept = [serve(), serve(*ends)]; [os.close(end) for end in ends]",
];
const { keptPages: OWN_PAGES } = await countOf([], undefined, "all");

it.each([
  ["none", { waiting: 2, pipeBytes: OWN_BYTES }],
  ["files", { waiting: 0, pipeBytes: OWN_BYTES + PIPE_BYTES }],
  ["all", { waiting: 0, pipeBytes: OWN_BYTES + PIPE_BYTES, keptPages: OWN_PAGES + 37 }],
])("a count that accepts connections sees what waits there: %s", async (accept, expected) => {
  expect(await countOf(CONNECT, undefined, accept)).toMatchObject(expected);
});

/** Earlier kernels allow four sockets in each other. */
const isDepthUnlimited = release().localeCompare("6.10", undefined, { numeric: true }) >= 0;

it.runIf(isDepthUnlimited)(
  "a count does not follow sockets in each other without end, and says that files wait there",
  async () => {
    const counted = await countOf([
      "held = socket.socketpair(); give(held[0], os.pipe()[0])",
      "for _ in range(40): outer = socket.socketpair(); give(outer[0], held[1].fileno()); held = outer",
    ]);
    expect(counted.waiting).toBe(1);
  },
);

it("a count sees all pipes although messages also have descriptors of their senders", async () => {
  const counted = await countOf(
    [
      "pairs = [socket.socketpair() for _ in range(4)]; file = os.open('/dev/null', os.O_RDONLY)",
      "for one, other in pairs:",
      "  other.setsockopt(socket.SOL_SOCKET, 76, 1)",
      "  for _ in range(100): give(one, file)",
      "inner, outer = socket.socketpair(), socket.socketpair(); ends = [end for _ in range(10) for end in os.pipe()]",
      "give(inner[0], *ends); give(outer[0], inner[1].fileno()); inner[1].close(); [os.close(end) for end in ends]",
    ],
    200,
  );
  expect(counted).toMatchObject({ waiting: 0, pipeBytes: OWN_BYTES + 10 * PIPE_BYTES });
});

it("a message with many copies of a large epoll cannot delay a count until it ends without a result", async () => {
  const output = await outputFor([
    "poll = select.epoll()",
    "for _ in range(250):",
    "  file, end = os.pipe(); os.close(end)",
    "  for at in range(500, 1000): os.dup2(file, at); poll.register(at, select.EPOLLIN)",
    "held = socket.socketpair(); give(held[0], *[poll.fileno()] * 253)",
  ]);
  expect(output).toBe("late");
});

it("a count sees timers, also those that a program can still start, and those that wait in sockets", async () => {
  const counted = await countOf([
    "import ctypes, struct; libc = ctypes.CDLL(None)",
    "timers = [libc.timerfd_create(1, 0) for _ in range(20)]",
    "for timer in timers[:15]: libc.timerfd_settime(timer, 0, struct.pack('4q', 0, 0, 900, 0), None)",
    "held = socket.socketpair(); give(held[0], *timers[:10]); [os.close(timer) for timer in timers[:10]]",
  ]);
  expect(counted).toMatchObject({ timers: 20, waiting: 0 });
});

it.runIf(process.getuid?.() === 0)(
  "before Linux 6.9, a count sees files in sockets of a process whose thread is listed before the first one",
  () => {
    const directory = temporaryDirectory();
    const program = join(directory, "program");
    // Such a kernel knows no descriptors of further threads.
    writeFileSync(
      program,
      readFileSync(PROGRAM, "utf8").replace("PIDFD_THREAD => 0200", "PIDFD_THREAD => 0400"),
    );
    const lines = [
      ...IMPORTS,
      "import subprocess, threading",
      "held = socket.socketpair(); end = os.pipe()[0]; give(held[0], end)",
      "for _ in range(12): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
      "open(sys.argv[-1], 'w').write(f'{os.getpid()}\\n'); subprocess.run(['perl', *sys.argv[1:]])",
    ];
    writeFileSync(join(directory, "counted.py"), lines.join("\n"));
    // The process is number 9, so a thread with number 10 comes first in the alphabet.
    const run = 'for one in 2 3 4 5 6 7 8; do /bin/true; done; python3 "$0" "$@"; exit';
    const args = [program, process.arch, "1048576", "none", join(directory, "list")];
    const output = execFileSync(
      "unshare",
      ["--pid", "--fork", "--mount-proc", "sh", "-c", run, join(directory, "counted.py"), ...args],
      { encoding: "utf8" },
    );
    expect(JSON.parse(output)).toMatchObject({ waiting: 0 });
  },
);
