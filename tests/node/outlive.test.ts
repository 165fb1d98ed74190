/** Processes in a sandbox try to outlive the sandbox and the engine. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { identify } from "../../local/engine/identity.ts";
import { createGroups, defaultLimits, findGroupParents, removeGroups } from "../../local/engine/limits.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { spawnTestEngine, startTestEngine, TestSandbox, type EngineAddress } from "../setup/engine-client.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

const groupParents = await findGroupParents();

/** Python that tries each way to change a sandbox's first process, which could keep the sandbox alive, and prints the errors. */
const TAKE_OVER = `
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
def say(way, result): print(way, "done" if result >= 0 else os.strerror(ctypes.get_errno()))
def vector(address, length): return ctypes.create_string_buffer(struct.pack("QQ", address, length))
try: open("/proc/1/mem", "rb+", buffering=0); print("mem done")
except OSError as error: print("mem", error.strerror)
buffer = ctypes.create_string_buffer(8)
# Nothing is mapped at address 1: EFAULT means that the access itself was granted.
say("process_vm_writev", libc.process_vm_writev(1, vector(ctypes.addressof(buffer), 8), 1, vector(1, 8), 1, 0))
say("pidfd_getfd", libc.syscall(438, libc.syscall(434, 1, 0), 0, 0))
say("ptrace", libc.ptrace(16, 1, None, None))
`;

/** An engine in a process that a test can kill. */
async function spawnEngine(runDir: string): Promise<EngineAddress & { child: ChildProcess }> {
  const engine = await spawnTestEngine(runDir);
  doLater(() => engine.child.kill("SIGKILL"));
  return engine;
}

it("a sandbox's first process cannot be taken over from inside", async () => {
  const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
  const { stdout, stderr } = await sandbox.python(TAKE_OVER);
  expect([...stdout.split("\n"), stderr]).toEqual([
    "mem Permission denied",
    "process_vm_writev Operation not permitted",
    "pidfd_getfd Function not implemented",
    "ptrace Operation not permitted",
    "",
  ]);
});

it("no program in a sandbox has a Unix socket of the engine, over which it could send descriptors", async () => {
  const engine = endLater(await startTestEngine());
  const sandbox = await TestSandbox.start(engine);
  const { stdout } = await sandbox.python([
    "import glob, os, re",
    "tables = ''.join(open(f'/proc/net/{name}').read() for name in ('unix', 'tcp', 'tcp6', 'udp', 'netlink'))",
    "found = set()",
    "for file in glob.glob('/proc/[0-9]*/fd/*'):",
    "  try: link = os.readlink(file)",
    "  except OSError: continue",
    "  if link.startswith('socket:'): found.add((link[8:-1], file.split('/')[2]))",
    "print(len(found) > 0, [pid for inode, pid in found if not re.search(rf'\\b{inode}\\b', tables)])",
  ]);
  expect(stdout).toBe("True []");
});

describe("processes and files that an earlier engine left behind", () => {
  const boot = randomBytes(8).toString("hex");

  function straggler() {
    const child = spawn("sleep", ["86400"], { stdio: "ignore" });
    doLater(() => child.kill("SIGKILL"));
    return { child, pid: child.pid ?? 0, exit: once(child, "exit") };
  }

  /** Creates the run directory of an engine that was killed together with the process that ends its sandbox. */
  async function leaveRunDirectory(mark: string): Promise<string> {
    const runDir = temporaryDirectory();
    await mkdir(join(runDir, boot, "sandbox"), { recursive: true });
    await writeFile(join(runDir, boot, "engine.pid"), "1 0 another-boot");
    await writeFile(join(runDir, boot, "sandbox", "sandbox.pid"), mark);
    return runDir;
  }

  it("are ended by the next one: a sandbox's first process", async () => {
    const { exit, pid } = straggler();
    const runDir = await leaveRunDirectory(identify(pid) ?? "");
    endLater(await startTestEngine({ runDir }));
    expect(await exit).toEqual([null, "SIGKILL"]);
    expect(existsSync(join(runDir, boot))).toBe(false);
  });

  it("are not confused with a process that has the same process id now", async () => {
    const { child, pid } = straggler();
    endLater(await startTestEngine({ runDir: await leaveRunDirectory(`${pid} 1 another-boot`) }));
    expect([child.exitCode, child.signalCode]).toEqual([null, null]);
  });

  describe.runIf(groupParents.length > 0)("in control groups", () => {
    /** Creates the control groups of a sandbox, with this process in them. */
    async function makeGroups(name: string, pid?: number): Promise<string[]> {
      const limits = defaultLimits({ memoryBytes: 1 << 26, processes: 10 });
      const groups = await createGroups(groupParents, `${boot}/${name}`, limits);
      doLater(() => removeGroups(groups));
      if (pid !== undefined)
        for (const group of groups) await writeFile(join(group, "cgroup.procs"), String(pid));
      return groups;
    }
    const existing = (groups: string[]) => groups.filter((group) => existsSync(group));

    it("are ended by the next one, which removes the groups", async () => {
      const runDir = await leaveRunDirectory("");
      const { exit, pid } = straggler();
      const groups = await makeGroups("sandbox", pid);
      endLater(await startTestEngine({ runDir }));
      expect(await exit).toEqual([null, "SIGKILL"]);
      expect(existing(groups)).toEqual([]);
    });

    it("are removed even if their run directory is missing: old, empty groups", async () => {
      const { child, exit, pid } = straggler();
      const [young, used, old] = [
        await makeGroups("young"),
        await makeGroups("used", pid),
        await makeGroups("old"),
      ];
      const hoursAgo = Date.now() / 1000 - 7200;
      for (const group of [...used, ...old]) await utimes(group, hoursAgo, hoursAgo);
      endLater(await startTestEngine());
      expect([existing(young), existing(used), existing(old)]).toEqual([young, used, []]);
      child.kill("SIGKILL");
      await exit;
    });
  });
});

it("an engine without free file descriptors refuses to start a sandbox, and serves the others", async () => {
  const engine = await spawnEngine(temporaryDirectory());
  const sandbox = await TestSandbox.start(engine);
  const pid = engine.child.pid ?? 0;
  const openFiles = readdirSync(`/proc/${pid}/fd`).length;
  const leaveFree = (more: number) =>
    execFileSync("prlimit", [`--pid=${pid}`, `--nofile=${openFiles + more}:`]);
  // Enough for a connection, but not for the streams of a new process.
  leaveFree(8);
  await expect(TestSandbox.start(engine)).rejects.toThrow("EMFILE");
  expect((await sandbox.run("echo during")).stdout).toBe("during");
  leaveFree(100);
  await expect(TestSandbox.start(engine)).resolves.toBeDefined();
});

describe("an engine with an error that its code did not expect", () => {
  const spawnFailing = async (signal: NodeJS.Signals) => {
    const preload = `process.on('${signal}', () => { setTimeout(() => { throw new Error('unexpected'); }); Promise.reject(1); })`;
    vi.stubEnv("NODE_OPTIONS", `--import=data:text/javascript,${encodeURIComponent(preload)}`);
    const engine = await spawnEngine(temporaryDirectory());
    vi.unstubAllEnvs();
    return engine;
  };

  it("survives, and all sandboxes with it", async () => {
    const engine = await spawnFailing("SIGUSR2");
    const sandbox = await TestSandbox.start(engine);
    engine.child.kill("SIGUSR2");
    await sleep(200);
    expect(engine.child.exitCode).toBeNull();
    expect((await sandbox.run("echo after")).stdout).toBe("after");
  });

  it("ends if it was already ending", async () => {
    const engine = await spawnFailing("SIGTERM");
    engine.child.kill("SIGTERM");
    expect(await once(engine.child, "exit")).toEqual([1, null]);
  });
});
