/** Processes in a sandbox try to outlive the sandbox and the engine. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import { identify } from "../../local/engine/identity.ts";
import { createGroups, defaultLimits, findGroupParents, removeGroups } from "../../local/engine/limits.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { spawnTestEngine, startTestEngine, TestSandbox, type EngineAddress } from "../setup/engine-client.ts";
import { outliveCommand } from "../setup/outlive.ts";
import { findProcess, processes, waitForEnd, type Process } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep, until } from "../setup/until.ts";

const groupParents = await findGroupParents();

/** Starts a background process, then runs an attack that tries to keep the sandbox alive. */
async function attack(sandbox: TestSandbox): Promise<{ output: string; left: Process[] }> {
  const command = `sleep 86400.${randomInt(1e9)}`;
  await sandbox.run(`setsid ${command} >/dev/null 2>&1 &`);
  const findSleepers = () => processes().filter((found) => found.command === command);
  await expect.poll(() => findSleepers().length).toBe(1);
  const remaining = findSleepers();
  // If the attack succeeds, only this kill ends the process.
  doLater(async () => {
    for (const { pid } of await waitForEnd(remaining, 0)) process.kill(pid, "SIGKILL");
  });
  const { stdout, stderr } = await sandbox.run(outliveCommand);
  return { output: stdout + stderr, left: remaining };
}

/** An engine in a process that a test can kill. */
async function spawnEngine(runDir: string): Promise<EngineAddress & { child: ChildProcess }> {
  const engine = await spawnTestEngine(runDir);
  doLater(() => engine.child.kill("SIGKILL"));
  return engine;
}

it("a sandbox's first process cannot be taken over from inside", async () => {
  const engine = endLater(await startTestEngine());
  const sandbox = await TestSandbox.start(engine);
  const { output } = await attack(sandbox);
  expect(output.split("\n")).toEqual([
    "mem Permission denied",
    "process_vm_writev Operation not permitted",
    "pidfd_getfd Function not implemented",
    "ptrace Operation not permitted",
  ]);
});

it("a sandbox's first process cannot be ended or limited from inside", async () => {
  const engine = endLater(await startTestEngine());
  const sandbox = await TestSandbox.start(engine);
  const attempts = [
    "import ctypes, os, platform, struct",
    "libc = ctypes.CDLL(None, use_errno=True)",
    "x = platform.machine() == 'x86_64'",
    "call = lambda number, *given: os.strerror(ctypes.get_errno()) if libc.syscall(number, *given) else 'done'",
    "limits = lambda: open('/proc/1/limits').read()",
    // The sender 0 means that the signal came from outside the sandbox's PID namespace.
    "info = ctypes.create_string_buffer(struct.pack('iiiiiI', 15, 0, -1, 0, 0, 0), 128)",
    "print(call(129 if x else 138, os.getpid(), 0, info))",
    // While the queue of signals is full, a signal with a forged sender looks like one from the platform.
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [40])",
    "while libc.sigqueue(os.getpid(), 40, ctypes.c_void_p()) == 0: pass",
    "for number in (129, 200) if x else (138, 130): print(call(number, 1, 15, info))",
    "for number in (297, 234) if x else (240, 131): print(call(number, 1, 1, 15, info))",
    "print(call(424, os.pidfd_open(1), 15, info, 0))",
    "before = limits()",
    "low = ctypes.create_string_buffer(struct.pack('QQ', 1, 1))",
    "for resource in (0, 7): print(call(302 if x else 261, 1, resource, low, None))",
    // The next call passes an address with zeros in its lower half.
    "libc.mmap.restype = ctypes.c_void_p",
    "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]",
    "at = libc.mmap(3 << 32, 4096, 3, 0x32, -1, 0)",
    "ctypes.memmove(at, low, 16)",
    "print(call(302 if x else 261, 1, 7, ctypes.c_void_p(at), None), at == 3 << 32)",
    "print(limits() == before)",
    "import resource; print(resource.prlimit(1, resource.RLIMIT_CPU)[0], resource.prlimit(0, resource.RLIMIT_CPU, (99, 99))[0])",
  ];
  await sandbox.run("touch /tmp/mark");
  const { stdout, stderr } = await sandbox.python(attempts);
  const refused = "Operation not permitted";
  expect([stdout.split("\n"), stderr]).toEqual([
    ["done", ...Array<string>(7).fill(refused), `${refused} True`, "True", "-1 -1"],
    "",
  ]);
  // After SIGTERM the server first saves the workspace, which takes some seconds.
  expect((await sandbox.run("sleep 5; ls /tmp/mark")).stdout).toBe("/tmp/mark");
});

it("a sandbox that tries to outlive its destruction ends, and another one works meanwhile", async () => {
  const engine = endLater(await startTestEngine());
  const [sandbox, other] = await Promise.all([TestSandbox.start(engine), TestSandbox.start(engine)]);
  const { left: remaining } = await attack(sandbox);
  const destroyed = sandbox.destroy();
  expect((await other.run("echo answered")).stdout).toBe("answered");
  await destroyed;
  expect(await waitForEnd(remaining, 0)).toEqual([]);
  expect(await sandbox.waitForEnd()).toMatchObject({ exitCode: 0 });
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

it("a sandbox that tries to outlive its engine ends with it", async () => {
  const engine = await spawnEngine(temporaryDirectory());
  const sandbox = await TestSandbox.start(engine);
  const { left: remaining } = await attack(sandbox);
  engine.child.kill("SIGKILL");
  expect(await waitForEnd(remaining)).toEqual([]);
});

describe("processes and files that an earlier engine left behind", () => {
  const boot = randomBytes(8).toString("hex");

  function straggler(): ChildProcess {
    const child = spawn("sleep", ["86400"], { stdio: "ignore" });
    doLater(() => child.kill("SIGKILL"));
    return child;
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
    const child = straggler();
    const exit = once(child, "exit");
    const runDir = await leaveRunDirectory(identify(child.pid ?? 0) ?? "");
    endLater(await startTestEngine({ runDir }));
    expect(await exit).toEqual([null, "SIGKILL"]);
    expect(existsSync(join(runDir, boot))).toBe(false);
  });

  it("are not confused with a process that has the same process id now", async () => {
    const child = straggler();
    endLater(await startTestEngine({ runDir: await leaveRunDirectory(`${child.pid} 1 another-boot`) }));
    expect([child.exitCode, child.signalCode]).toEqual([null, null]);
  });

  it.runIf(groupParents.length > 0)(
    "are removed by the next one: processes in its control groups",
    async () => {
      const runDir = await leaveRunDirectory("");
      const limits = defaultLimits({ memoryBytes: 1 << 26, processes: 10 });
      const groups = await createGroups(groupParents, `${boot}/sandbox`, limits);
      const child = straggler();
      const exit = once(child, "exit");
      for (const group of groups) await writeFile(join(group, "cgroup.procs"), String(child.pid));
      endLater(await startTestEngine({ runDir }));
      expect(await exit).toEqual([null, "SIGKILL"]);
      expect(groups.filter((group) => existsSync(group))).toEqual([]);
    },
  );

  it.runIf(groupParents.length > 0)(
    "are removed even if their run directory is missing: old, empty control groups",
    async () => {
      const limits = defaultLimits({ memoryBytes: 1 << 26, processes: 10 });
      const makeGroups = async (name: string) => {
        const groups = await createGroups(groupParents, `${boot}/${name}`, limits);
        doLater(() => removeGroups(groups));
        return groups;
      };
      const [young, used, old] = [
        await makeGroups("young"),
        await makeGroups("used"),
        await makeGroups("old"),
      ];
      const child = straggler();
      for (const group of used) await writeFile(join(group, "cgroup.procs"), String(child.pid));
      const hoursAgo = Date.now() / 1000 - 7200;
      for (const group of [...used, ...old]) await utimes(group, hoursAgo, hoursAgo);
      endLater(await startTestEngine());
      const existing = (groups: string[]) => groups.filter((group) => existsSync(group));
      expect([existing(young), existing(used), existing(old)]).toEqual([young, used, []]);
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  );
});

it.runIf(groupParents.length > 0)(
  "a control group is also removed if its last process ends late",
  async () => {
    const groups = await createGroups(
      groupParents,
      `${randomBytes(8).toString("hex")}/late`,
      defaultLimits(),
    );
    const child = spawn("sleep", ["86400"], { stdio: "ignore" });
    const exit = once(child, "exit");
    for (const group of groups) await writeFile(join(group, "cgroup.procs"), String(child.pid));
    await removeGroups(groups);
    const remaining = () => groups.filter((group) => existsSync(group));
    expect(remaining()).toEqual(groups);
    child.kill("SIGKILL");
    await exit;
    await expect.poll(remaining).toEqual([]);
    await removeGroups(groups.map((group) => dirname(group)));
  },
);

it("an engine that looks for control groups finds the same ones as another that looks at the same time", async () => {
  const found = await Promise.all(Array.from({ length: 5 }, findGroupParents));
  expect(found).toEqual(found.map(() => groupParents));
});

/** Limits the open files of a process to those of now and some more. */
function limiterOf(pid: number) {
  const openFiles = readdirSync(`/proc/${pid}/fd`).length;
  return (more: number) => execFileSync("prlimit", [`--pid=${pid}`, `--nofile=${openFiles + more}:`]);
}

/** The lowest number that no open file of the process has. A limit of this number leaves no free descriptor. */
function lowestFree(pid: number): number {
  const used = new Set(readdirSync(`/proc/${pid}/fd`));
  let number = 0;
  while (used.has(String(number))) number++;
  return number;
}

it("an engine without free file descriptors refuses to start a sandbox, and serves the others", async () => {
  const engine = await spawnEngine(temporaryDirectory());
  const sandbox = await TestSandbox.start(engine);
  expect((await sandbox.run("echo before")).stdout).toBe("before");
  const leaveFree = limiterOf(engine.child.pid ?? 0);
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

it.each(["GET http://8.8.8.8/", "CONNECT 8.8.8.8:443"])(
  "an engine without free file descriptors survives %s, whose address it cannot check",
  async (line) => {
    const engine = await spawnEngine(temporaryDirectory());
    const sandbox = await TestSandbox.start(engine, { policy: { internet: "none", allowHosts: [] } });
    const pid = engine.child.pid ?? 0;
    const leaveFree = limiterOf(pid);
    // During the pause, the engine loses its descriptors. It also forgets the list of its networks, which it keeps for a second.
    const mark = `connected-${randomBytes(8).toString("hex")}`;
    const script = `import signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
s = socket.create_connection(("127.0.0.1", 3128))
open("/tmp/connected", "w")
signal.sigwait([signal.SIGUSR1])
s.sendall(b"${line} HTTP/1.1\\r\\nHost: 8.8.8.8\\r\\n\\r\\n")
print(s.recv(12))`;
    const connection = sandbox.run(`python3 - ${mark} <<'PYTHON'\n${script}\nPYTHON`);
    await expect.poll(async () => (await sandbox.run("ls /tmp/connected")).stdout).toBe("/tmp/connected");
    const program = await until(() => findProcess(`python3 - ${mark}`));
    // The engine also closes files during the pause.
    const leaveNone = () => execFileSync("prlimit", [`--pid=${pid}`, `--nofile=${lowestFree(pid)}:`]);
    const repeating = setInterval(leaveNone, 200);
    doLater(() => clearInterval(repeating));
    await sleep(1500);
    process.kill(program.pid, "SIGUSR1");
    expect((await connection).stdout).toBe("b''");
    clearInterval(repeating);
    leaveFree(100);
    expect((await sandbox.run("curl -s http://8.8.8.8/")).stdout).toContain("8.8.8.8");
  },
);

const freezer = "/sys/fs/cgroup/freezer";

it.runIf(existsSync(freezer) && groupParents.some(({ version }) => version === 2))(
  "a sandbox's programs end at once, also if its first process gets no turn",
  async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const sleeper = `sleep 86400.${randomInt(1e9)}`;
    await sandbox.run(`setsid ${sleeper} >/dev/null 2>&1 &`);
    let first = (await until(() => findProcess(sleeper))).pid;
    const isFirst = () => /^NSpid:.*\t1$/m.test(readFileSync(`/proc/${first}/status`, "utf8"));
    while (!isFirst()) first = Number(procStat(first)?.[1]);
    // In version 1 of control groups, a stopped process cannot be killed.
    const group = join(freezer, `sandbox-mcp-test-${randomInt(1e9)}`);
    await mkdir(group);
    doLater(async () => await removeGroups([group]));
    await writeFile(join(group, "cgroup.procs"), String(first));
    await writeFile(join(group, "freezer.state"), "FROZEN");
    const thaw = async () => await writeFile(join(group, "freezer.state"), "THAWED");
    doLater(thaw);
    const ending = sandbox.call("DELETE", "");
    await expect.poll(() => findProcess(sleeper)).toBe(undefined);
    expect(identify(first)).toBeDefined();
    await thaw();
    await ending;
  },
);
