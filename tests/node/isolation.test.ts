/** Attempts to get out of a real sandbox. */
import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { chmod, rm, writeFile } from "node:fs/promises";
import { availableParallelism, homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { findGroupParents } from "../../local/engine/limits.ts";
import { repository } from "../../local/engine/own-files.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, valuesInGroups } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const canary = `canary-${randomBytes(12).toString("hex")}`;
process.env.HOST_CANARY = canary;
const readOnly = temporaryDirectory();
await writeFile(join(readOnly, "file"), "shown");
await chmod(readOnly, 0o755);
const engine = endLater(await startTestEngine({ readOnly: [{ from: readOnly, to: "/opt/shown" }] }));
const hostFiles = [homedir(), tmpdir(), engine.runDir].map((directory) => join(directory, canary));
for (const file of hostFiles) await writeFile(file, canary);
const hostProcess = spawn("sleep", ["86400"], { env: { CANARY: canary }, argv0: `sleep-${canary}` });
const [sandbox, other] = await Promise.all([TestSandbox.start(engine), TestSandbox.start(engine)]);

afterAll(async () => {
  hostProcess.kill("SIGKILL");
  for (const file of hostFiles) await rm(file);
});

const isLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("cpu"));

/** The limits of processor time, in microseconds for each period; none without limits. */
function processorLimits(pid: number, parent?: string): number[] {
  return valuesInGroups(pid, ["cpu.cfs_quota_us", "cpu.max"], parent).filter((limit) => limit > 0);
}

// Each loop writes its line at once: `print` writes the end of a line on its own, so that lines of two loops would mix.
describe.runIf(isLimited)("processors", () => {
  it("all sandboxes together leave part of the processors to the server", async () => {
    const loop = [
      "import os, sys, time",
      "begin = float(sys.argv[1])",
      "time.sleep(max(0, begin - time.time()))",
      "before = time.process_time()",
      "while time.time() < begin + 1: pass",
      'os.write(1, b"%f\\n" % (time.process_time() - before))',
    ].join("\n");
    const processors = availableParallelism();
    const start = `for i in $(seq ${processors}); do python3 -c '${loop}' $begin & done`;
    const { stdout } = await sandbox.run(
      `begin=$(($(date +%s) + 2)); ${start} | awk '{ n += $1 } END { print n }'`,
    );
    expect(Number(stdout)).toBeLessThan(processors - Math.min(1, processors / 4) / 2);
  });

  it("all sandboxes together have a limit of processors, each two thirds of it, and they compete with half of the server's weight", async () => {
    const mark = `weighed-${randomUUID()}`;
    const sleeping = sandbox.run(`exec -a ${mark} sleep 60`);
    const find = () => findProcess(mark);
    await expect.poll(find).toBeDefined();
    const pid = find()?.pid ?? 0;
    // In version 1 each thread of the server has 1,024 shares, and the group's shares are divided among the processors. In version 2
    // the group of the server has 100.
    const [weight] = [
      ...valuesInGroups(pid, ["cpu.shares", "none"], "..").map(
        (shares) => shares / availableParallelism() / 1024,
      ),
      ...valuesInGroups(pid, ["none", "cpu.weight"], "..").map((each) => each / 100),
    ];
    expect(weight).toBe(1 / 2);
    // On a machine with other work, the loops of the test above get less time even without this limit.
    const processors = availableParallelism();
    const ofAll = (processors - Math.min(1, processors / 4)) * 20_000;
    const [all = Infinity] = processorLimits(pid, "..");
    expect(all).toBeLessThanOrEqual(ofAll);
    const [own = Infinity] = processorLimits(pid);
    expect(own).toBeLessThanOrEqual(Math.round((ofAll * 2) / 3));
    await sandbox.run(`pkill -f ${mark}`);
    await sleeping;
  });

  it("share the processor equally, however many loops one runs", async () => {
    // On a busy machine the starts of all loops take many seconds.
    const begin = Date.now() / 1000 + 10;
    const loop = [
      "import os, time",
      `time.sleep(max(0, ${begin} - time.time())); n = 0`,
      `while time.time() < ${begin + 2}: n += 1`,
      'os.write(1, b"%d\\n" % n)',
    ].join("\n");
    // Without limits, the kernel would give each session the same share. So each loop runs in a session of its own.
    const loops = sandbox.run(
      `for i in $(seq 24); do setsid python3 -c '${loop}' & done | awk '{ n += $1 } END { print n / NR }'`,
    );
    const { stdout } = await other.run(`python3 -c '${loop}'`);
    // Without limits the ratio is 1. With them it is about 12, or less if another test keeps the processors busy in between.
    expect(Number(stdout) / Number((await loops).stdout)).toBeGreaterThan(2);
  });
});

describe("the host's files", () => {
  it("are not in the sandbox's root directory", async () => {
    const { stdout } = await sandbox.run("ls /");
    const known =
      "bin dev etc home lib lib32 lib64 libx32 opt proc root run sbin tmp usr var workspace".split(" ");
    expect(stdout.split("\n").filter((name) => name !== "" && !known.includes(name))).toEqual([]);
    expect((await sandbox.run("ls -A /root /workspace /tmp /opt")).stdout).not.toContain(canary);
  });

  it("are hidden in home directories, temporary directories, the engine's state and the repository", async () => {
    for (const path of [...hostFiles, join(repository, "package.json")]) {
      const { stderr, exitCode } = await sandbox.run(`cat '${path}'`);
      expect([exitCode, stderr]).toEqual([1, expect.stringContaining("No such file or directory")]);
    }
    const found = await sandbox.run(
      `find / -path /proc -prune -o -path /usr -prune -o -name '*${canary}*' -print`,
    );
    expect(found.stdout).toBe("");
  });

  it("are hidden if they are secrets of /etc, and visible in the requested extra directory", async () => {
    const { stdout } = await sandbox.run(
      "ls /etc/ssl/private /etc/ssh /etc/sudoers 2>/dev/null; cat /etc/shadow /opt/shown/file",
    );
    expect(stdout).toBe("shown");
  });

  it("are read-only if they are visible", async () => {
    const places =
      "/usr /usr/bin /opt/sandbox-runtime /opt/sandbox-runtime/bin /opt/sandbox-mcp /opt/shown /dev".split(
        " ",
      );
    for (const place of places) {
      expect((await sandbox.run(`touch ${place}/x`)).stderr).toMatch(/Read-only file system/);
    }
    for (const file of ["/etc/hosts", "/usr/bin/env", "/opt/sandbox-runtime/bin/node"]) {
      expect((await sandbox.run(`echo x >> ${file}`)).stderr).toMatch(
        /Read-only file system|Permission denied/,
      );
    }
  });
});

describe("the host's processes", () => {
  it("are not visible, nor are those of another sandbox", async () => {
    await other.run(`(exec -a other-${canary} sleep 1000) >/dev/null 2>&1 &`);
    // Some command line contains the mark that ends an output. `tr` replaces the mark's \1, so the output continues.
    const { stdout } = await sandbox.run("cat /proc/[0-9]*/cmdline | tr '\\0\\1' '\\n.'");
    expect(stdout).toContain("sbx-control");
    expect(stdout).not.toContain(canary);
  });

  it("cannot be signalled", async () => {
    const { stderr } = await sandbox.run(`kill -0 ${hostProcess.pid}; kill -9 ${process.pid}`);
    expect(stderr.match(/No such process/g)).toHaveLength(2);
    await sandbox.run("for n in $(seq 300 600); do kill -0 $n; done 2>/dev/null; true");
    expect(hostProcess.exitCode).toBeNull();
  });

  it("pass no environment, argument or open file on to a sandbox", async () => {
    const { stdout } = await sandbox.run(
      "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0\\1' '\\n.'; ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root",
    );
    expect(stdout).toContain("/proc/1/root");
    expect(stdout).not.toContain(canary);
    expect(stdout).not.toContain(engine.secret);
    expect(stdout).not.toContain(engine.runDir);
    expect(stdout).not.toContain(homedir() === "/root" ? repository : homedir());
  });

  it("cannot be reached by inherited descriptors", async () => {
    const { stdout } = await sandbox.run("ls -l /proc/1/fd /proc/$PPID/fd | awk '{print $NF}'");
    const paths = stdout.split("\n").filter((target) => target.startsWith("/") && !target.endsWith(":"));
    expect(paths).toContain("/dev/null");
    expect(
      paths.filter(
        (target) =>
          !/^\/(dev\/(null|urandom|random)|run\/sandbox\/|opt\/sandbox-|var\/lib\/sandbox-mcp\/)/.test(
            target,
          ),
      ),
    ).toEqual([]);
  });
});

describe("another sandbox", () => {
  it("has other files", async () => {
    for (const place of "/workspace /tmp /root /var/tmp /var/lib/sandbox-mcp /dev/shm /run".split(" ")) {
      await other.run(`echo theirs > ${place}/${canary}`);
      expect((await other.run(`cat ${place}/${canary}`)).stdout).toBe("theirs");
      expect((await sandbox.run(`ls -A ${place}`)).stdout).not.toContain(canary);
    }
  });

  it("has other sockets, also abstract ones, and other shared memory", async () => {
    await other.run(
      "python3 -c 'import socket,time; s=socket.socket(socket.AF_UNIX); s.bind(chr(0)+\"meet\"); s.listen(); time.sleep(600)' >/dev/null 2>&1 & " +
        "python3 -m http.server --bind 127.0.0.1 8765 >/dev/null 2>&1 & " +
        "for i in $(seq 100); do curl -s http://127.0.0.1:8765/ >/dev/null && break; sleep 0.05; done; ipcmk -M 4096",
    );
    expect((await other.run("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8765/")).stdout).toBe(
      "200",
    );
    expect((await other.run("ipcs -m | grep -c 4096")).stdout.trim()).toBe("1");
    expect((await sandbox.run("curl -sS http://127.0.0.1:8765/")).stderr).toContain("Couldn't connect");
    expect((await sandbox.run("ipcs -m | grep -c 4096")).stdout.trim()).toBe("0");
    const { stdout } = await sandbox.python(
      "import socket\ntry:\n socket.socket(socket.AF_UNIX).connect(chr(0)+'meet')\nexcept OSError as e: print(e.strerror)",
    );
    expect(stdout).toBe("Connection refused");
  });
});

describe("the kernel", () => {
  it("lets root in the sandbox mount nothing and make no namespace", async () => {
    const attempts = [
      "mount -t tmpfs none /mnt_x",
      "mount -t proc proc /tmp",
      "mount --bind /usr /tmp",
      "mount -o remount,rw /usr",
      "umount /usr",
      "unshare --mount true",
      "unshare --user --map-root-user true",
      "unshare --net true",
      "nsenter --target 1 --mount true",
      "chroot / true",
      "mknod /tmp/disk b 8 0",
      "hostname other",
      "date -s 2001-01-01",
      "bwrap --dev-bind / / true",
    ];
    for (const attempt of attempts) {
      const { exitCode } = await sandbox.run(`mkdir -p /mnt_x; ${attempt}`);
      expect([attempt, exitCode]).not.toEqual([attempt, 0]);
    }
  });

  it("hides its file locks, keys, timers, file systems and devices", async () => {
    const shown =
      "find /proc/acpi /proc/asound /proc/bus /proc/driver /proc/fs /proc/irq /proc/scsi /proc/tty -mindepth 1";
    expect((await sandbox.run(`${shown} 2>/dev/null`)).stdout).toBe("");
    const types =
      "stat -f -c '%n %T' /proc/self/stat /proc/{keys,locks,sysrq-trigger,timer_list} 2>/dev/null";
    const ofKernel = (await sandbox.run(types)).stdout.split("\n").filter((line) => line.endsWith(" proc"));
    expect(ofKernel).toEqual(["/proc/self/stat proc"]);
  });

  it("keeps its settings", async () => {
    const settings = [
      "kernel/core_pattern",
      "kernel/hostname",
      "vm/overcommit_memory",
      "kernel/modprobe",
      "net/ipv4/ip_forward",
    ];
    for (const setting of settings) {
      const { exitCode } = await sandbox.run(`cat /proc/sys/${setting} > /proc/sys/${setting}`);
      expect([setting, exitCode]).not.toEqual([setting, 0]);
    }
    expect((await sandbox.run("echo b > /proc/sysrq-trigger")).exitCode).not.toBe(0);
    expect((await sandbox.run("ls /sys 2>&1")).exitCode).not.toBe(0);
    for (const file of "/proc/kcore /proc/kmsg /dev/mem /dev/kmsg /dev/sda /dev/vda /dev/fuse /dev/kvm".split(
      " ",
    )) {
      expect([file, (await sandbox.run(`head -c1 ${file}`)).exitCode]).not.toEqual([file, 0]);
    }
  });

  it("gives root few capabilities and no new privileges", async () => {
    const { stdout } = await sandbox.run("grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status");
    const mask = Number.parseInt(/CapBnd:\s*([0-9a-f]+)/.exec(stdout)?.[1] ?? "f".repeat(10), 16);
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service
    expect(mask & ~0b100_1111_1011).toBe(0);
    expect(stdout).toMatch(/NoNewPrivs:\s*1/);
    expect(stdout).toMatch(/Seccomp:\s*2/);
  });

  it("runs the sandbox as a user without rights on the host", async () => {
    const { stdout } = await sandbox.run("id -u; cat /proc/self/uid_map");
    const [inside, map = ""] = stdout.split("\n");
    expect(inside).toBe("0");
    expect(Number(map.trim().split(/\s+/)[1])).not.toBe(0);
    expect(engine.engine.report.dropsRoot).toBe(process.getuid?.() === 0);
  });
});

it("a sandbox's disk records each access to a file, so that saves notice writes through mappings", async () => {
  const look = "cat file; stat -c %x file; sleep 0.1";
  const { stdout } = await sandbox.run(`echo x >/workspace/file; cd /workspace; ${look}; ${look}; ${look}`);
  expect(new Set(stdout.match(/:[0-9.]+/g)).size).toBeGreaterThanOrEqual(3);
});
