/** The system calls that code in a sandbox can make. */
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";

const sandbox = await TestSandbox.start(endLater(await startTestEngine()));

const prelude = [
  "import ctypes, errno, fcntl, os, platform, socket, struct, sys",
  "libc = ctypes.CDLL(None, use_errno=True)",
  "isX64 = platform.machine() == 'x86_64'",
  "def call(x64, arm64, *given):",
  "  number = ctypes.c_long(x64 if isX64 else arm64)",
  "  values = [ctypes.c_long(one) if isinstance(one, int) else one for one in given]",
  "  if libc.syscall(number, *values) < 0: raise OSError(ctypes.get_errno(), '')",
  "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))",
  "program = struct.pack('HxxxxxxQ', 1, ctypes.addressof(code))",
  "def resultOf(attempt):",
  "  try: attempt(); return 'done'",
  "  except OSError as error: return errno.errorcode[error.errno]",
];

async function python(lines: string[]): Promise<string[]> {
  const { stdout, stderr } = await sandbox.python([...prelude, ...lines]);
  expect(stderr).toBe("");
  return stdout.split("\n");
}

/** Runs each expression, and returns the name of its error, or `done`. */
async function results(expressions: string[]): Promise<Record<string, string>> {
  const lines = expressions.map((expression) => `print(resultOf(lambda: ${expression}))`);
  const printed = await python(lines);
  return Object.fromEntries(expressions.map((expression, index) => [expression, printed[index] ?? ""]));
}

const inet = "socket.socket()";
const unix = "socket.socket(socket.AF_UNIX)";
const datagram = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)";
const six = "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)";

const refused: Record<string, [error: string, attempts: string[]]> = {
  "rarely used or privileged calls": [
    "ENOSYS",
    [
      // userfaultfd, memfd_secret, futex_waitv, landlock_create_ruleset, process_madvise, pidfd_getfd, kcmp.
      "call(323, 282, 1)",
      "call(447, 447, 0)",
      "call(449, 449, None, 0, 0, None, 0)",
      "call(444, 444, None, 0, 1)",
      "call(440, 440, -1, None, 0, 0, 0)",
      "call(438, 438, -1, 0, 0)",
      "call(312, 272, os.getpid(), os.getpid(), 0, 0, 0)",
      // mq_open, fanotify_init, io_setup, io_uring_setup, perf_event_open, bpf, vmsplice, tee, remap_file_pages.
      "call(240, 180, b'queue', os.O_CREAT | os.O_RDWR, 0o600, None)",
      "call(300, 262, 0, 0)",
      "call(206, 0, 1, struct.pack('Q', 0))",
      "call(425, 425, 8, None)",
      "call(298, 241, None, 0, -1, -1, 0)",
      "call(321, 280, 0, None, 0)",
      "call(278, 75, -1, None, 0, 0)",
      "call(276, 77, -1, -1, 0, 0)",
      "call(216, 234, None, 0, 0, 0, 0)",
      // The policies of memory: get_mempolicy, set_mempolicy, mbind, migrate_pages, move_pages, set_mempolicy_home_node.
      "call(239, 236, None, None, 0, None, 0)",
      "call(238, 237, 0, None, 0)",
      "call(237, 235, None, 0, 0, None, 0, 0)",
      "call(256, 238, 0, 0, None, None)",
      "call(279, 239, 0, 0, None, None, None, 0)",
      "call(450, 450, None, 0, 0, 0)",
      // syslog, adjtimex, name_to_handle_at, keyctl, add_key, mount, chroot, unshare, setns, fsopen.
      "call(103, 116, 10, None, 0)",
      "call(159, 171, None)",
      "call(303, 264, -100, b'/', None, None, 0)",
      "call(250, 219, 0, -3, 1)",
      "call(248, 217, b'user', b'name', b'value', 5, -3)",
      "call(165, 40, None, b'/tmp', b'tmpfs', 0, None)",
      "call(161, 51, b'/')",
      "call(272, 97, 0)",
      "call(308, 268, -1, 0)",
      "call(430, 430, b'tmpfs', 0)",
      // Flags in memory, which no filter can read: clone3, openat2, setxattrat. Newer: cachestat, mseal, open_tree_attr.
      "call(435, 435, None, 0)",
      "call(437, 437, -100, b'/', None, 0)",
      "call(463, 463, -100, b'/tmp', 0, b'user.a', None, 0)",
      "call(451, 451, 0, None, None, 0)",
      "call(462, 462, None, 0, 0)",
      "call(467, 467, -1, None, 0, None, 0)",
      // A call that no kernel has yet, and getpid of the x32 ABI.
      "call(800, 800)",
      "call(0x40000000 + 39, 0x40000000 + 39)",
    ],
  ],
  "rarely used requests of ioctl": [
    "ENOTTY",
    [
      // FIOQSIZE, FS_IOC_FSGETXATTR, FS_IOC_SETFLAGS, FS_IOC_FIEMAP, PAGEMAP_SCAN, NS_GET_USERNS.
      "fcntl.ioctl(os.open('/tmp', 0), 0x5460, bytes(8))",
      "fcntl.ioctl(os.open('/tmp', 0), 0x801c581f, bytes(28))",
      "fcntl.ioctl(os.open('/tmp', 0), 0x40086602, bytes(8))",
      "fcntl.ioctl(os.open('/tmp', 0), 0xc020660b, bytes(32))",
      "fcntl.ioctl(os.open('/proc/self/pagemap', 0), 0xc0606610, bytes(96))",
      "fcntl.ioctl(os.open('/proc/self/ns/net', 0), 0xb701)",
      // TIOCSTI, TIOCSETD, TIOCLINUX. SIOCGIFBR, SIOCETHTOOL, SIOCGIFVLAN.
      "fcntl.ioctl(os.openpty()[1], 0x5412, b'x')",
      "fcntl.ioctl(os.openpty()[1], 0x5423, struct.pack('i', 0))",
      "fcntl.ioctl(os.openpty()[1], 0x541c, bytes(1))",
      `fcntl.ioctl(${inet}, 0x8940, bytes(24))`,
      `fcntl.ioctl(${inet}, 0x8946, bytes(40))`,
      `fcntl.ioctl(${inet}, 0x8982, bytes(40))`,
    ],
  ],
  "rarely used commands and flags": [
    "EINVAL",
    [
      // fcntl: F_SETLEASE, F_NOTIFY, F_OFD_SETLK, F_SET_RW_HINT.
      "fcntl.fcntl(os.open('/workspace', 0), 1024, 2)",
      "fcntl.fcntl(os.open('/usr/lib', 0), 1026, 0x80000001)",
      "fcntl.fcntl(open('/tmp/locked', 'w'), 37, struct.pack('hhqqi4x', 1, 0, 0, 1, 0))",
      "fcntl.fcntl(open('/tmp/locked', 'w'), 1036, bytes(8))",
      // prctl: PR_SET_SECCOMP, PR_SET_MEMORY_MERGE, PR_SET_VMA, PR_SET_MM. seccomp.
      "call(157, 167, 22, 2, program)",
      "call(157, 167, 22, 2 | 1 << 32, None)",
      "call(157, 167, 67, 1, 0, 0, 0)",
      "call(157, 167, 0x53564d41, 0, 0, 0, 0)",
      "call(157, 167, 35, 1, 0, 0, 0)",
      "call(317, 277, 1, 8, program)",
      "call(317, 277, 1, 0, None)",
      // madvise: MADV_MERGEABLE, MADV_PAGEOUT, MADV_COLLAPSE. membarrier: MEMBARRIER_CMD_GLOBAL. personality: PER_BSD.
      "call(28, 233, 0, 0, 12)",
      "call(28, 233, 0, 0, 21)",
      "call(28, 233, 0, 0, 25)",
      "call(324, 283, 1, 0, 0)",
      "call(135, 92, 6)",
      // Reserved huge pages, files without the cache, a pipe for notifications of the kernel.
      "call(319, 279, b'huge', 4)",
      "os.open('/tmp', os.O_RDONLY | os.O_DIRECT)",
      "os.pipe2(os.O_EXCL)",
      // splice, and sendfile without an offset: from sockets to pipes.
      "os.splice(os.open('/dev/zero', 0), os.pipe()[1], 5)",
      "os.sendfile(os.pipe()[1], os.open('/etc/passwd', 0), None, 5)",
    ],
  ],
  namespaces: [
    "EPERM",
    [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000].map(
      (flag) => `call(56, 220, ${flag} | 17, 0, 0, 0, 0)`,
    ),
  ],
  "signal handlers that several processes share": [
    "EPERM",
    // CLONE_SIGHAND. The kernel itself would refuse this call with EINVAL, because it needs CLONE_VM, too.
    ["call(56, 220, 0x800 | 17, 0, 0, 0, 0)"],
  ],
  "socket options with memory that no limit counts, or that slow the whole machine": [
    "ENOPROTOOPT",
    [
      // Filters, timestamps of sent packets, zero copies, reserved memory.
      ...[26, 50, 51, 52].map((option) => `${inet}.setsockopt(socket.SOL_SOCKET, ${option}, program)`),
      `${unix}.setsockopt(socket.SOL_SOCKET, 26, program)`,
      `${inet}.setsockopt(socket.SOL_SOCKET, 37, 2)`,
      `${inet}.setsockopt(socket.SOL_SOCKET, 60, 1)`,
      `${inet}.setsockopt(socket.SOL_SOCKET, 73, 1)`,
      // TCP_MD5SIG, TCP_ULP, TCP_ZEROCOPY_RECEIVE.
      `${inet}.setsockopt(socket.IPPROTO_TCP, 14, struct.pack('=HH4s120xBBHIi80s', 2, 0, bytes([127, 0, 0, 1]), 0, 0, 4, 0, 0, b'keys'))`,
      `${inet}.setsockopt(socket.IPPROTO_TCP, 31, b'tls')`,
      `${inet}.getsockopt(socket.IPPROTO_TCP, 35, 64)`,
      // IP_ADD_MEMBERSHIP, IP_OPTIONS, IPV6_JOIN_GROUP, IPV6_FLOWLABEL_MGR.
      `${datagram}.setsockopt(socket.IPPROTO_IP, 35, struct.pack('=4s4si', bytes([224, 1, 0, 1]), bytes(4), 1))`,
      `${datagram}.setsockopt(socket.IPPROTO_IP, 4, bytes(4))`,
      `${six}.setsockopt(socket.IPPROTO_IPV6, 20, bytes([255, 2]) + bytes(13) + b'1' + struct.pack('I', 1))`,
      `${six}.setsockopt(socket.IPPROTO_IPV6, 32, bytes(32))`,
    ],
  ],
  "families of sockets that ignore the network namespace, and socket pairs that are not local": [
    "EAFNOSUPPORT",
    [
      ...[3, 15, 17, 21, 29, 30, 38, 40, 44].map((family) => `socket.socket(${family}, socket.SOCK_DGRAM)`),
      ...Array.from(
        { length: 31 },
        (_, index) => `socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ${index + 1})`,
      ),
      "socket.socketpair(socket.AF_INET)",
      "socket.socketpair(socket.AF_NETLINK)",
    ],
  ],
  "protocols for which the kernel loads modules": [
    "EPROTONOSUPPORT",
    ["AF_INET", "AF_INET6"].flatMap((family) =>
      ["STREAM, 17", "STREAM, 200", "STREAM, 262", "DGRAM, 6", "DGRAM, 136"].map(
        (kind) => `socket.socket(socket.${family}, socket.SOCK_${kind})`,
      ),
    ),
  ],
  "raw sockets, also without a protocol, for which the kernel loads modules": [
    "EPERM",
    ["AF_INET", "AF_INET6"].flatMap((family) =>
      [0, 1, 58, 255].map((protocol) => `socket.socket(socket.${family}, socket.SOCK_RAW, ${protocol})`),
    ),
  ],
  "types of sockets for which the kernel loads modules": [
    "ESOCKTNOSUPPORT",
    ["AF_INET", "AF_INET6"].flatMap((family) =>
      ["5, 0", "5, 132", "6, 33", "10, 0"].map((kind) => `socket.socket(socket.${family}, ${kind})`),
    ),
  ],
};

it.each(Object.entries(refused))("code in a sandbox cannot use %s", async (_, [error, attempts]) => {
  expect(await results(attempts)).toEqual(Object.fromEntries(attempts.map((attempt) => [attempt, error])));
});

it("files have no access control lists, which no limit of memory counts, and no attributes, because a file could have millions of them", async () => {
  const entry = (tag: number, id = "0xffffffff") => `struct.pack('HHI', ${tag}, 7, ${id})`;
  const base = `${entry(1)} + ${entry(4)} + ${entry(32)}`;
  const withUsers = (count: number) =>
    `${entry(1)} + ${entry(2, "1")} * ${count} + ${entry(4)} + ${entry(16)} + ${entry(32)}`;
  const lists = [base, withUsers(1), withUsers(10), withUsers(1000)];
  const attempts = ["access", "default"].flatMap((name) =>
    lists.map((list) => `os.setxattr('/tmp', 'system.posix_acl_${name}', struct.pack('I', 2) + ${list})`),
  );
  attempts.push("os.setxattr('/tmp', 'user.empty', b'')", "os.setxattr('/tmp', 'user.note', b'a' * 1000)");
  expect(await results(attempts)).toEqual(Object.fromEntries(attempts.map((one) => [one, "ENOTSUP"])));
});

it("code in a sandbox cannot queue errors of datagrams, because no limit of memory counts them", async () => {
  const receiveBy = (family: string, level: number, option: number, address: string) => [
    `one = socket.socket(socket.${family}, socket.SOCK_DGRAM)`,
    `one.setsockopt(${level}, ${option}, 1)`,
    `one.sendto(b"text", ("${address}", 9))`,
    "print(resultOf(lambda: one.recvmsg(99, 99, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)))",
  ];
  const lines = [...receiveBy("AF_INET", 0, 11, "127.0.0.1"), ...receiveBy("AF_INET6", 41, 25, "::1")];
  expect(await python(lines)).toEqual(["EAGAIN", "EAGAIN"]);
});

it("a sandbox keeps the default size of socket buffers, because limits count only a small part of a buffer's memory", async () => {
  const sizes = [
    `one = ${datagram}`,
    "for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):",
    "  before = one.getsockopt(socket.SOL_SOCKET, option)",
    "  one.setsockopt(socket.SOL_SOCKET, option, 2 * before)",
    "  print(one.getsockopt(socket.SOL_SOCKET, option) == before)",
  ];
  expect(await python(sizes)).toEqual(["True", "True"]);
});

it("closing a sandbox's connection never waits, because a thread of the kernel may do it", async () => {
  const lines = [
    `one = ${inet}`,
    "one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 60))",
    "print(struct.unpack('ii', one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0])",
  ];
  expect(await python(lines)).toEqual(["0"]);
});

it("no timer of the kernel sends packets of a sandbox's connections, because no limit counts this work", async () => {
  const lines = [
    `one = ${inet}; SO_MAX_PACING_RATE = 47`,
    "one.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 20000)",
    "print(one.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE) == 20000)",
    "one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)",
    "print(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))",
  ];
  expect(await python(lines)).toEqual(["False", "0"]);
});

it("no file of a sandbox signals programs: an event could send millions of signals in one system call", async () => {
  const lines = [
    "end, _ = os.pipe(); FIOASYNC = 0x5452; before = fcntl.fcntl(end, fcntl.F_GETFL)",
    "fcntl.fcntl(end, fcntl.F_SETOWN, -os.getpgrp())",
    "print(resultOf(lambda: fcntl.fcntl(end, fcntl.F_SETFL, before | os.O_ASYNC)))",
    // nginx does not start without this call.
    "print(resultOf(lambda: fcntl.ioctl(end, FIOASYNC, struct.pack('i', 1))))",
    "print(fcntl.fcntl(end, fcntl.F_GETFL) == before)",
    "fcntl.fcntl(end, fcntl.F_SETFL, before | os.O_NONBLOCK)",
  ];
  expect(await python(lines)).toEqual(["EINVAL", "done", "True"]);
});

it("no call of a sandbox goes through terabytes of addresses: no other program would run on the processor, and no signal would end the call", async () => {
  const lines = [
    "import mmap; MAP_NORESERVE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, long = 0x4000, 102, 103, 1 << 32",
    "memory = mmap.mmap(-1, 2 * long, mmap.MAP_PRIVATE | mmap.MAP_ANON | MAP_NORESERVE)",
    "start = ctypes.addressof(ctypes.c_char.from_buffer(memory)); nowhere = 1",
    "for size in (1 << 20, long): print(resultOf(lambda: call(27, 232, start, size, nowhere)))",
    "for advice in (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE): print(resultOf(lambda: call(28, 233, start, long, advice)))",
  ];
  expect(await python(lines)).toEqual(["EFAULT", "ENOMEM", "EINVAL", "EINVAL"]);
});

it("a call lists at most 1 MiB of a directory, because no other program runs on the processor meanwhile", async () => {
  const lines = [
    "listed = os.open('/usr/bin', os.O_RDONLY)",
    "for size in (1 << 20, (1 << 20) + 1): print(resultOf(lambda: call(217, 61, listed, bytes(size), size)))",
  ];
  expect(await python(lines)).toEqual(["done", "EINVAL"]);
});

it("a program waits for at most 1,024 files with poll and select, because no limit counts the kernel's memory for it", async () => {
  const lines = [
    "import select",
    "end, _ = os.pipe(); held = [os.dup(end) for _ in range(1000)]",
    "polled = lambda count: struct.pack('ihh', end, 0, 0) * count",
    "ready = bytes(8192)",
    "for count in (1024, 1025):",
    "  print(resultOf(lambda: call(271, 73, polled(count), count, bytes(16), None, 0)))",
    "  print(resultOf(lambda: call(270, 72, count, ready, None, None, bytes(16), None)))",
  ];
  expect(await python(lines)).toEqual(["done", "done", "EINVAL", "EINVAL"]);
});

it("a call changes at most 32 semaphores, because the kernel repeats it for each thread that waits", async () => {
  const lines = [
    "made = libc.semget(0, 1, 0o600)",
    "for count in (32, 33): print(resultOf(lambda: call(65, 193, made, bytes(6 * count), count)))",
    "libc.semctl(made, 0, 0)",
  ];
  expect(await python(lines)).toEqual(["done", "E2BIG"]);
});

it.each([
  ["queues of messages", "libc.msgget(0, 0o600)", 64],
  ["semaphores", "libc.semget(0, 32000, 0o600)", 32],
])(
  "a sandbox has few %s, because a thread of the kernel frees all of them after its end",
  async (_, call, most) => {
    const lines = ["made = 0", `while made < 100 and ${call} >= 0: made += 1`];
    const count = "print(made, errno.errorcode[ctypes.get_errno()])";
    expect(await python([...lines, count, "os.system('ipcrm --all')"])).toEqual([`${most} ENOSPC`]);
  },
);

it("a sandbox cannot pin its programs to processors, because others need these processors, too", async () => {
  const lines = ["before = os.sched_getaffinity(0)", "os.sched_setaffinity(0, [min(before)])"];
  expect(await python([...lines, "print(os.sched_getaffinity(0) == before)"])).toEqual(["True"]);
});

it.runIf(existsSync("/proc/sys/net/core/tstamp_allow_data"))(
  "code in a sandbox cannot queue sent datagrams with their timestamps, because no limit of memory counts them",
  async () => {
    const lines = [
      `one = ${datagram}`,
      "asked = [(socket.SOL_SOCKET, 37, struct.pack('I', 2))]",
      "one.sendmsg([b'text'], asked, 0, ('127.0.0.1', 9))",
      "print(os.path.exists('/proc/sys/net/core/tstamp_allow_data'))",
      "print(resultOf(lambda: one.recvmsg(99, 99, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)))",
    ];
    expect(await python(lines)).toEqual(["True", "EAGAIN"]);
  },
);

describe("programs in a sandbox work", () => {
  it.each([
    [
      "tar keeps owners, and continues without attributes",
      `mkdir -p in out && echo text >in/file && chown 5:6 in/file
       python3 - <<'PYTHON'
import tarfile
def note(member): member.pax_headers["SCHILY.xattr.user.note"] = "text"; return member
with tarfile.open("in.tar", "w") as archive: archive.add("in", filter=note)
PYTHON
       tar --xattrs -xf in.tar -C out 2>&1 | grep -o "not supported" | head -1; stat -c %u:%g out/in/file`,
      "not supported\n5:6",
    ],
    [
      "git commits and packs",
      `git init -q repository && cd repository && echo text >file && git add file
       git -c user.name=n -c user.email=e@example.com commit -qm first && git gc -q && git log --format=%s`,
      "first",
    ],
    [
      "bash controls jobs in a terminal",
      `python3 -c 'import pty; pty.spawn(["bash", "--norc", "-ic", "sleep 60 & kill %1; wait; stty size; echo done"])' | tail -n 1 | tr -d '\\r'`,
      "done",
    ],
    [
      "Python starts processes, and shares memory, sockets and a database",
      `python3 - <<'PYTHON'
import asyncio, concurrent.futures, fcntl, mmap, os, resource, signal, socket, sqlite3, tempfile
from multiprocessing import shared_memory
def main():
  with concurrent.futures.ProcessPoolExecutor(2) as pool: assert list(pool.map(abs, [-1, -2])) == [1, 2]
  shared = shared_memory.SharedMemory(create=True, size=4096); shared.close(); shared.unlink()
  database = sqlite3.connect("/tmp/base"); assert database.execute("pragma journal_mode=wal").fetchone() == ("wal",)
  database.execute("create table t (a)"); database.commit()
  listener = socket.create_server(("127.0.0.1", 0), reuse_port=True)
  one = socket.create_connection(listener.getsockname()); one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); one.settimeout(1)
  async def child():
    process = await asyncio.create_subprocess_exec("true"); return await process.wait()
  assert asyncio.run(child()) == 0
  fcntl.lockf(open("/tmp/lock", "w"), fcntl.LOCK_EX); mmap.mmap(-1, 1 << 20).madvise(mmap.MADV_HUGEPAGE)
  os.memfd_create("file"); os.pidfd_open(os.getpid()); os.sync(); signal.setitimer(signal.ITIMER_REAL, 60)
  resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.RLIM_INFINITY))
  print("done")
if __name__ == "__main__": main()
PYTHON`,
      "done",
    ],
    [
      "Node serves requests, watches files, and starts threads and processes",
      `cat >program.cjs <<'NODE'
const { Worker, isMainThread } = require("node:worker_threads");
if (!isMainThread) process.exit(0);
const once = require("node:events").once;
(async () => {
  const server = require("node:http").createServer((_, response) => response.end("done")).listen(0);
  await once(new Worker(__filename), "exit");
  require("node:fs").watch(".").close();
  const socket = require("node:dgram").createSocket({ type: "udp4", reuseAddr: true }).bind(0);
  await once(socket, "listening");
  socket.setBroadcast(true); socket.setMulticastTTL(3); socket.setRecvBufferSize(9999); socket.close();
  require("node:child_process").execFileSync("true");
  require("node:fs").copyFileSync(__filename, "copy.cjs");
  if (Object.keys(require("node:os").networkInterfaces()).join() !== "lo") throw new Error("interfaces");
  console.log(await (await fetch("http://127.0.0.1:" + server.address().port)).text());
  server.close();
})();
NODE
       node program.cjs`,
      "done",
    ],
  ])("%s", async (_, program, printed) => {
    const result = await sandbox.run(`cd $(mktemp -d)\n${program}`);
    expect(result).toMatchObject({ stdout: printed, exitCode: 0 });
  });
});
