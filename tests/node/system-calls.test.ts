/** The system calls that code in a sandbox can make. */
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
  namespaces: [
    "EPERM",
    [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000].map(
      (flag) => `call(56, 220, ${flag} | 17, 0, 0, 0, 0)`,
    ),
  ],
  "families of sockets that ignore the network namespace, or are rarely used": [
    "EAFNOSUPPORT",
    [3, 15, 17, 21, 29, 30, 38, 40, 44].map((family) => `socket.socket(${family}, socket.SOCK_DGRAM)`),
  ],
};

it.each(Object.entries(refused))("code in a sandbox cannot use %s", async (_, [error, attempts]) => {
  expect(await results(attempts)).toEqual(Object.fromEntries(attempts.map((attempt) => [attempt, error])));
});

describe("programs in a sandbox work", () => {
  it.each([
    [
      "tar keeps owners, and continues if the file system has no attributes",
      `mkdir -p in out && echo text >in/file && chown 5:6 in/file
       python3 - <<'PYTHON'
import tarfile
def note(member): member.pax_headers["SCHILY.xattr.user.note"] = "text"; return member
with tarfile.open("in.tar", "w") as archive: archive.add("in", filter=note)
PYTHON
       tar --xattrs -xf in.tar -C out 2>/dev/null; stat -c %u:%g out/in/file`,
      "5:6",
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
      "sockets join multicast groups, and keep the options that programs set",
      `python3 - <<'PYTHON'
import os, socket, struct
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4s", bytes([224, 1, 0, 1]), bytes([127, 0, 0, 1])))
two = socket.socket(); two.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(struct.unpack("ii", two.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)))
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(len(os.sched_getaffinity(0)))
PYTHON`,
      "(1, 0)\n1",
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
