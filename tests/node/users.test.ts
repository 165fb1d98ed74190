/** Users and owners in a sandbox: what programs expect of a machine whose root they are, and what must stay out. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  type EngineAddress,
  spawnTestEngine,
  startTestEngine,
  TestSandbox,
  type TestEngine,
} from "../setup/engine-client.ts";

const isRoot = process.getuid?.() === 0;
/** Whoever has no entry in /etc/passwd, as users of directories and containers have none. */
const ordinary = isRoot ? 54_321 : undefined;
const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-users-"));
chmodSync(directory, 0o755);
const cleanUp: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })];
afterAll(async () => {
  for (const step of cleanUp.toReversed()) await step();
});

async function engineOf(options: Parameters<typeof startTestEngine>[0] = {}): Promise<TestEngine> {
  const engine = await startTestEngine({ startAhead: false, ...options });
  cleanUp.push(engine.close);
  return engine;
}

async function ordinaryEngine(): Promise<EngineAddress> {
  const runDir = join(directory, "ordinary");
  mkdirSync(runDir);
  if (ordinary !== undefined) chownSync(runDir, ordinary, ordinary);
  const engine = await spawnTestEngine(runDir, ordinary);
  cleanUp.push(async () => {
    engine.child.stdin?.end();
    await new Promise((resolve) => engine.child.once("exit", resolve));
  });
  return engine;
}

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
  ["the one who runs the tests", () => engineOf()],
  ["an ordinary user", () => ordinaryEngine()],
])("a server of %s", (_, start) => {
  it("has sandboxes in which archives and copies keep modes and times", async () => {
    const sandbox = await TestSandbox.start(await start());
    expect((await sandbox.run(`python3 - <<'PYTHON'\n${unpack}\nPYTHON`)).stdout.split("\n")).toEqual(
      Array(4).fill("0o755 1000000000"),
    );
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
    // A limit that is set is not always a limit that holds: no core dump leaves the sandbox.
    expect((await sandbox.run("ulimit -c 1000 && ulimit -c 0")).exitCode).toBe(0);
  });
});

describe.runIf(isRoot)("a server of root's", () => {
  it("gives a sandbox users: su, setpriv, useradd and subprocess", async () => {
    const sandbox = await TestSandbox.start(await engineOf());
    const commands = [
      "useradd --create-home joe && su joe -c 'echo mine >~/file; id -un; stat -c %U ~/file'",
      "setpriv --reuid 33 --regid 33 --clear-groups id -u",
      "su nobody -s /bin/sh -c 'cat /root/x /run/sandbox/control.sock' 2>&1 | grep -c 'Permission denied'",
      `python3 -c "import subprocess; print(subprocess.check_output(['id', '-un'], user='www-data', text=True))"`,
      "su nobody -s /bin/sh -c 'node -p 6*7; ls /etc/ssl/certs >/dev/null && echo readable'",
    ];
    const { stdout, stderr } = await sandbox.run(commands.join("; "));
    expect([stdout.trim().split(/\n+/), stderr]).toEqual([
      ["joe", "joe", "33", "2", "www-data", "42", "readable"],
      "",
    ]);
  });

  it("gives no id to two sandboxes, and none of its own to any", async () => {
    const engines = [await engineOf(), await engineOf()];
    const sandboxes = await Promise.all([...engines, ...engines].map((engine) => TestSandbox.start(engine)));
    const maps = await Promise.all(
      sandboxes.map((one) => one.run("cat /proc/self/uid_map /proc/self/gid_map")),
    );
    const ranges = maps.flatMap(({ stdout }) => {
      const lines = stdout.split("\n").map((line) => line.trim().split(/\s+/).map(Number));
      expect(lines).toHaveLength(4);
      // Users, then groups; both have the same.
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

/** What can be opened for writing outside a sandbox's own file systems and processes, but for devices that everybody may write to. */
const writable = [
  "import os, stat",
  "own = {os.stat(path).st_dev for path in ('/', '/dev/shm', '/var/lib/sandbox-mcp')}",
  "devices = {'/dev/' + name for name in ('full', 'null', 'ptmx', 'random', 'tty', 'urandom', 'zero', 'pts/ptmx')}",
  "def walk(path):",
  "  try: found = os.lstat(path)",
  "  except OSError: return",
  "  if stat.S_ISLNK(found.st_mode) or path in devices: return",
  "  if path.startswith('/proc/') and path.split('/')[2].isdigit(): return",
  "  if stat.S_ISDIR(found.st_mode):",
  "    if found.st_dev not in own:",
  "      try: os.mkdir(path + '/made'); os.rmdir(path + '/made'); print(path)",
  "      except OSError: pass",
  "    try: names = os.listdir(path)",
  "    except OSError: names = []",
  "    for name in names: walk(path + '/' + name if path != '/' else '/' + name)",
  "  elif found.st_dev not in own and not stat.S_ISSOCK(found.st_mode):",
  "    try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)); print(path)",
  "    except OSError: pass",
  "walk('/')",
].join("\n");

describe("a directory of the machine", () => {
  const name = "mounted";
  const project = join(directory, "project");
  mkdirSync(project);
  writeFileSync(join(project, "file"), "theirs");

  const mounted = async (isWritable: boolean): Promise<TestSandbox> => {
    const mount = { name, from: project, to: "/workspace/project", writable: isWritable };
    return await TestSandbox.start(await engineOf({ directories: [mount] }), { name });
  };

  it.each([
    ["none", undefined, []],
    ["one that can be read", false, []],
    ["one that can be written to", true, ["/workspace/project", "/workspace/project/file"]],
  ])("a sandbox with %s can write to nothing else of the machine", async (_, isWritable, expected) => {
    const sandbox =
      isWritable === undefined ? await TestSandbox.start(await engineOf()) : await mounted(isWritable);
    const { stdout, stderr } = await sandbox.run(`python3 - <<'PYTHON'\n${writable}\nPYTHON`);
    expect([stdout.split("\n").filter(Boolean), stderr]).toEqual([expected, ""]);
    for (const file of ["sysrq-trigger", "keys", "timer_list"])
      expect((await sandbox.run(`cat /proc/${file} 2>/dev/null`)).stdout).toBe("");
  });

  it("is the same user's inside and outside, root's too, and no sandbox is that root", async () => {
    const sandbox = await mounted(true);
    const { stdout } = await sandbox.run(
      "cat /workspace/project/file; touch /workspace/project/new; stat -c %u /workspace/project/new; cat /proc/self/uid_map",
    );
    expect(stdout).toMatch(/^theirs0\n\s*0\s+[1-9]/);
    expect(statSync(join(project, "new")).uid).toBe(process.getuid?.());
  });

  it.runIf(isRoot)("stays its owner's, whoever its sandbox gives it to", async () => {
    const theirs = join(directory, "theirs");
    mkdirSync(theirs);
    for (const owner of [1000, 0]) {
      chownSync(theirs, owner, owner);
      const mount = { name, from: theirs, to: "/workspace/theirs", writable: true };
      const sandbox = await TestSandbox.start(await engineOf({ directories: [mount] }), { name });
      const file = `of-${owner}`;
      const { stderr } = await sandbox.run(
        `cd /workspace/theirs && touch ${file} && chown www-data:www-data ${file} .`,
      );
      expect(stderr).toBe("");
      expect([statSync(join(theirs, file)).uid, statSync(theirs).uid]).toEqual([owner, owner]);
    }
  });
});
