/** Users and owners in a sandbox. Programs run as root there, and gain no rights on the host. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { spawnTestEngine, startTestEngine, TestSandbox, type TestEngine } from "../setup/engine-client.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const isRoot = process.getuid?.() === 0;
/** A user without an entry in /etc/passwd, as in some containers. */
const ordinary = isRoot ? 54_321 : undefined;
const directory = temporaryDirectory();
chmodSync(directory, 0o755);

/** The engine for all tests without special needs. */
const common = endLater(await startTestEngine());

async function ordinaryEngine() {
  const runDir = mkdtempSync(join(directory, "ordinary-"));
  if (ordinary !== undefined) chownSync(runDir, ordinary, ordinary);
  const engine = await spawnTestEngine(runDir, ordinary);
  doLater(async () => {
    engine.child.stdin?.end();
    await once(engine.child, "exit");
  });
  return engine;
}

it.runIf(isRoot)("an engine that may not make control groups says so", async () => {
  const engine = await ordinaryEngine();
  await expect.poll(engine.log).toContain("WARNING: no control groups for memory and processors: ");
});

const unpack = [
  "import io, os, tarfile",
  "made = io.BytesIO()",
  "with tarfile.open(fileobj=made, mode='w') as archive:",
  "  for owner in (0, 1000, 70000, 1 << 21):",
  "    one = tarfile.TarInfo(str(owner)); one.uid = one.gid = owner; one.mode = 0o755; one.mtime = 1e9",
  "    archive.addfile(one)",
  "made.seek(0); tarfile.open(fileobj=made).extractall('/tmp/unpacked')",
  "for name in sorted(os.listdir('/tmp/unpacked')):",
  "  found = os.stat('/tmp/unpacked/' + name); print(oct(found.st_mode & 0o7777), int(found.st_mtime))",
].join("\n");

describe.each([
  ["the user who runs the tests", async () => common],
  ["an ordinary user", ordinaryEngine],
])("a server that runs as %s", (_, start) => {
  it("keeps modes and times of archives and copies in sandboxes", async () => {
    const sandbox = await TestSandbox.start(await start());
    expect((await sandbox.python(unpack)).stdout.split("\n")).toEqual(Array(4).fill("0o755 1000000000"));
    expect(await sandbox.run("cp -a /usr/bin/env /tmp/env && stat -c %a /tmp/env")).toMatchObject({
      exitCode: 0,
      stdout: "755",
      stderr: "",
    });
    expect(
      (await sandbox.run("cd /tmp && tar cf - env --owner=joe:1234 | tar xpf - -C /root")).exitCode,
    ).toBe(0);
    expect((await sandbox.run("touch /tmp/mine && chown 0:0 /tmp/mine && chown 5 /nowhere")).exitCode).toBe(
      1,
    );
    // A program may set its own limit of core dumps.
    expect((await sandbox.run("ulimit -c 1000 && ulimit -c 0")).exitCode).toBe(0);
  });
});

describe.runIf(isRoot)("a server that runs as root", () => {
  it("lets code in a sandbox add users and run programs as other users: su, setpriv, useradd and subprocess", async () => {
    const sandbox = await TestSandbox.start(common);
    const commands = [
      "useradd --create-home joe && su joe -c 'echo mine >~/file; id -un; stat -c %U ~/file'",
      "setpriv --reuid 33 --regid 33 --clear-groups id -u",
      "su nobody -s /bin/sh -c 'cat /root/x /run/sandbox/key' 2>&1 | grep -c 'Permission denied'",
      `python3 -c "import subprocess; print(subprocess.check_output(['id', '-un'], user='www-data', text=True))"`,
      "su nobody -s /bin/sh -c 'node -p 6*7; ls /etc/ssl/certs >/dev/null && echo readable'",
    ];
    const { stdout, stderr } = await sandbox.run(commands.join("; "));
    expect([stdout.trim().split(/\n+/), stderr]).toEqual([
      ["joe", "joe", "33", "2", "www-data", "42", "readable"],
      "",
    ]);
  });

  it("gives each sandbox its own range of user ids, which does not contain the server's", async () => {
    const engines = [common, endLater(await startTestEngine())];
    const sandboxes = await Promise.all([...engines, ...engines].map((engine) => TestSandbox.start(engine)));
    const maps = await Promise.all(
      sandboxes.map((one) => one.run("cat /proc/self/uid_map /proc/self/gid_map")),
    );
    const ranges = maps.flatMap(({ stdout }) => {
      const lines = stdout.split("\n").map((line) => line.trim().split(/\s+/).map(Number));
      expect(lines).toHaveLength(4);
      // The ranges of users and of groups, which are equal.
      expect(lines.slice(2)).toEqual(lines.slice(0, 2));
      return lines.slice(0, 2).map(([, first = 0, count = 0]) => ({ first, end: first + count }));
    });
    const sorted = ranges.toSorted((a, b) => a.first - b.first);
    expect(sorted[0]?.first).toBeGreaterThan(65_536);
    sorted
      .slice(1)
      .forEach(({ first }, index) => expect(first).toBeGreaterThanOrEqual(sorted[index]?.end ?? 0));
  });
});

/**
 * A program that prints the files that the sandbox can open for writing. It leaves out the sandbox's own file systems and
 * processes, and the devices that every user may open. Of a file system that is mounted read-only and without devices, it tries only
 * the first directory, unless another one is mounted below.
 */
const writable = [
  "import os, stat",
  "own = {os.stat(path).st_dev for path in ('/', '/dev/shm', '/var/lib/sandbox-mcp')}",
  "devices = {'/dev/' + name for name in ('full', 'null', 'ptmx', 'random', 'tty', 'urandom', 'zero', 'pts/ptmx')}",
  "places = [line.split()[4] for line in open('/proc/self/mountinfo')]",
  "sealed = os.ST_RDONLY | os.ST_NODEV",
  "def walk(path):",
  "  try: found = os.lstat(path)",
  "  except OSError: return",
  "  if stat.S_ISLNK(found.st_mode) or path in devices: return",
  "  if path.startswith('/proc/') and path.split('/')[2].isdigit(): return",
  "  if stat.S_ISDIR(found.st_mode):",
  "    if found.st_dev not in own:",
  "      try: os.mkdir(path + '/made'); os.rmdir(path + '/made'); print(path)",
  "      except OSError: pass",
  "      if os.statvfs(path).f_flag & sealed == sealed and not any(one.startswith(path + '/') for one in places): return",
  "    try: names = os.listdir(path)",
  "    except OSError: names = []",
  "    for name in names: walk(path + '/' + name if path != '/' else '/' + name)",
  "  elif found.st_dev not in own and not stat.S_ISSOCK(found.st_mode):",
  "    try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)); print(path)",
  "    except OSError: pass",
  "walk('/')",
].join("\n");

/** A program that tries to set set-id bits of files in its directory. It prints the files with such a bit, and `allowed`. */
const setIDs = [
  "import ctypes, io, os, platform, struct, subprocess, tarfile",
  "libc = ctypes.CDLL(None); here = os.open('.', os.O_RDONLY)",
  "def attempt(way):",
  "  try: way()",
  "  except OSError: pass",
  "def made(name): open(name, 'w').close(); return name",
  "def raw(number, *arguments): libc.syscall(ctypes.c_long(number), *arguments)",
  "def temporary():",
  "  fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o6755)",
  "  os.link(f'/proc/self/fd/{fd}', 'temporary', src_dir_fd=here, dst_dir_fd=here)",
  "archive = io.BytesIO()",
  "with tarfile.open(fileobj=archive, mode='w') as tar:",
  "  one = tarfile.TarInfo('unpacked'); one.mode = 0o6755; tar.addfile(one)",
  "for name in (made('by-name'), '.'): subprocess.run(['chmod', '6755', name], stderr=subprocess.DEVNULL)",
  "original = next((one for one in ('/usr/bin/su', '/bin/su', '/usr/bin/passwd') if os.path.exists(one)))",
  "subprocess.run(['cp', '-p', original, 'copied'], stderr=subprocess.DEVNULL)",
  "subprocess.run(['tar', 'xpf', '-'], input=archive.getvalue(), stderr=subprocess.DEVNULL)",
  "attempt(lambda: os.open('opened', os.O_CREAT | os.O_WRONLY, 0o4755))",
  "attempt(lambda: os.open('opened-at', os.O_CREAT | os.O_WRONLY, 0o2755, dir_fd=here))",
  "attempt(temporary)",
  "attempt(lambda: os.mknod('node', 0o104755))",
  "attempt(lambda: os.mknod('node-at', 0o102755, dir_fd=here))",
  "attempt(lambda: os.mkdir('directory', 0o6755))",
  "attempt(lambda: os.chmod(made('at'), 0o4755, dir_fd=here))",
  "attempt(lambda: os.fchmod(os.open(made('opened-first'), os.O_RDONLY), 0o4755))",
  "raw(452, here, made('fchmodat2').encode(), 0o4755, 0)",
  "raw(437, here, b'openat2', struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0), 24)",
  "if platform.machine() == 'x86_64': raw(85, b'creat', 0o4755); raw(90, made('chmod').encode(), ctypes.c_ulong(1 << 32 | 0o4755))",
  "os.chmod(made('allowed'), 0o1751); os.open('allowed', os.O_RDONLY, 0o6000)",
  "print([name for name in os.listdir('.') if os.stat(name).st_mode & 0o6000 or name == 'allowed'])",
].join("\n");

describe("a mounted directory of the machine", () => {
  const name = "mounted";
  const project = join(directory, "project");
  mkdirSync(project);
  writeFileSync(join(project, "file"), "theirs");

  const to = "/workspace/mounted";
  const mount = (from: string, isWritable = true) => ({ directories: [{ name, from, to, isWritable }] });
  const startEngine = async (...mounted: Parameters<typeof mount>) =>
    endLater(await startTestEngine(mount(...mounted)));
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startTestEngine(mount(project));
    return () => engine.close();
  });

  const startIn = (one: TestEngine) => TestSandbox.start(one, { name });

  it.each([
    ["writable", true, [to, `${to}/file`]],
    ["read-only", false, []],
  ])("is the only part of the machine that a sandbox can change: %s", async (_, isWritable, changeable) => {
    const sandbox = await startIn(isWritable ? engine : await startEngine(project, false));
    const { stdout, stderr } = await sandbox.python(writable);
    expect([stdout.split("\n").filter(Boolean), stderr]).toEqual([changeable, ""]);
    for (const file of ["sysrq-trigger", "keys", "timer_list"])
      expect((await sandbox.run(`cat /proc/${file} 2>/dev/null`)).stdout).toBe("");
  });

  it.runIf(isRoot)(
    "of root is refused on a file system that cannot map its owner, such as procfs",
    async () => {
      const from = "/proc/sys/fs";
      await expect(startIn(await startEngine(from))).rejects.toThrow(
        `${from} belongs to root, and this machine cannot map its owner`,
      );
    },
  );

  it("is never replaced by a link to another directory, even if code in another sandbox makes the link during the start", async () => {
    const [parent, secret] = ["parent", "secret"].map((each) => join(directory, each)) as [string, string];
    for (const path of [parent, secret, join(parent, "own")]) mkdirSync(path);
    writeFileSync(join(parent, "own/which"), "own");
    writeFileSync(join(secret, "which"), "secret");
    symlinkSync(secret, join(parent, "link"));
    const racing = await startEngine(join(parent, "own"));
    // Exchanges the directory and the link until its input ends.
    const exchange = `
      const { renameSync } = require("node:fs");
      let isOpen = true;
      let turns = 0;
      process.stdin.on("end", () => (isOpen = false)).resume();
      const turn = () => {
        for (const [from, to] of [["own", "kept"], ["link", "own"], ["own", "link"], ["kept", "own"]]) {
          renameSync(from, to);
          // The directory stays longer than the link, so that some sandboxes start on a busy machine too.
          const pause = { link: 30, kept: 60 }[from];
          if (pause) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, (pause * (++turns % 7)) / 7);
        }
        if (isOpen) setImmediate(turn);
      };
      turn();`;
    const child = spawn(process.execPath, ["-e", exchange], {
      cwd: parent,
      stdio: ["pipe", "ignore", "inherit"],
    });
    const seen = new Set<string>();
    // On a busy machine, the link can be in the way of every one of the first starts.
    for (let attempt = 0; attempt < 8 || (seen.size === 0 && attempt < 200); attempt++) {
      const sandbox = await startIn(racing).catch(() => undefined);
      if (sandbox === undefined) continue;
      seen.add((await sandbox.run(`cat ${to}/which`)).stdout);
      await sandbox.destroy();
    }
    child.stdin.end();
    await once(child, "exit");
    expect([...seen]).toEqual(["own"]);
  });

  it("gets new files that belong to root in the sandbox, and to the server's user on the host", async () => {
    const sandbox = await startIn(engine);
    const command = `cd ${to} && cat file; touch new; stat -c %u new; cat /proc/self/uid_map`;
    const { stdout } = await sandbox.run(command);
    expect(stdout).toMatch(/^theirs0\n\s*0\s+[1-9]/);
    expect(statSync(join(project, "new")).uid).toBe(process.getuid?.());
  });

  it("gets no set-id bit from a sandbox, but any other mode", async () => {
    const created = join(project, "made");
    const sandbox = await startIn(engine);
    const { stdout, stderr } = await sandbox.run(
      `mkdir ${to}/made && cd ${to}/made && python3 - <<'PYTHON'\n${setIDs}\nPYTHON`,
    );
    expect([stdout, stderr]).toEqual(["['allowed']", ""]);
    const entries = [".", ...readdirSync(created)];
    expect(entries).toEqual(
      expect.arrayContaining(["by-name", "copied", "directory", "fchmodat2", "unpacked"]),
    );
    expect(entries.filter((one) => (statSync(join(created, one)).mode & 0o6000) !== 0)).toEqual([]);
    expect(statSync(join(created, "allowed")).mode & 0o7777).toBe(0o1751);
    expect(
      (await sandbox.run("cd /tmp && touch own && chmod 1700 own && tar cf - own | tar xpf - -C /root"))
        .stderr,
    ).toBe("");
  });

  it("is not mounted if it contains a set-user-id program when the sandbox starts", async () => {
    const program = join(project, "deep/program");
    mkdirSync(join(project, "deep"));
    writeFileSync(program, "");
    await (await startIn(engine)).destroy();
    chmodSync(program, 0o4755);
    await expect(startIn(engine)).rejects.toThrow(`${program} has a set-user-id`);
    chmodSync(program, 0o755);
    await (await startIn(engine)).destroy();
  });

  it.runIf(isRoot).each([
    ["another user", 1000, 1000],
    ["root", 0, 0],
    ["root and another group", 0, 33],
  ])(
    "of %s can be changed, and keeps its owner on the host after chown in the sandbox",
    async (_, uid, gid) => {
      const theirs = join(directory, `of-${uid}-${gid}`);
      mkdirSync(theirs);
      writeFileSync(join(theirs, "file"), "theirs");
      for (const path of [theirs, join(theirs, "file")]) chownSync(path, uid, gid);
      const sandbox = await startIn(await startEngine(theirs));
      const { stdout, stderr } = await sandbox.run(
        `cd ${to} && echo changed >file && echo new >new && cat file new && chown www-data:www-data new .`,
      );
      expect({ stdout, stderr }).toEqual({ stdout: "changed\nnew", stderr: "" });
      const owners = [".", "file", "new"].map((each) => statSync(join(theirs, each)).uid);
      expect([...owners, statSync(join(theirs, "file")).gid]).toEqual([uid, uid, uid, gid]);
    },
  );

  it.runIf(isRoot).each([1000, 0])(
    "of user %d does not show what the machine mounts below it later, which would be writable also in a read-only directory",
    async (owner) => {
      const disk = join(directory, `disk-${owner}`);
      const later = join(disk, "theirs/later");
      mkdirSync(disk);
      const mountHere = (...words: string[]) => execFileSync("mount", words);
      // As systemd makes all mounts of a machine.
      mountHere("-t", "tmpfs", "-o", "size=1M", "none", disk);
      onTestFinished(() => void execFileSync("umount", ["--lazy", "--recursive", disk]));
      mountHere("--make-shared", disk);
      mkdirSync(later, { recursive: true });
      chownSync(dirname(later), owner, owner);
      const sandbox = await startIn(await startEngine(dirname(later), false));
      mountHere("-t", "tmpfs", "-o", "size=1M", "none", later);
      expect((await sandbox.run(`touch ${to}/later/file`)).stderr).toContain("Read-only file system");
    },
  );
});
