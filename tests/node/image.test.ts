/** The image's entrypoint, without the image. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { python } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const root = new URL("../../", import.meta.url).pathname;

it.runIf(python)("the image has IPython's directory, which a kernel cannot make on a full disk", () => {
  const HOME = temporaryDirectory();
  const PATH = `${dirname(python ?? "")}:/usr/bin:/bin`;
  const [, command = "false"] =
    /^RUN (python3 .*InteractiveShell.*)$/m.exec(readFileSync(join(root, "Dockerfile"), "utf8")) ?? [];
  execFileSync("/bin/sh", ["-c", command], { env: { HOME, PATH } });
  expect(existsSync(join(HOME, ".ipython/profile_default/startup/README"))).toBe(true);
});

describe("the entrypoint", () => {
  let group: string;
  let script: string;
  beforeEach(() => {
    const directory = temporaryDirectory();
    group = join(directory, "group");
    mkdirSync(group);
    writeFileSync(join(group, "cgroup.controllers"), "memory pids\n");
    // sandboxd is not copied, because it would use its port on this machine.
    for (const name of ["entrypoint.sh", "environment", "init.pl"])
      copyFileSync(join(root, "container", name), join(directory, name));
    script = join(directory, "entrypoint.sh");
  });
  afterEach(() => rmSync(dirname(group), { recursive: true }));

  /** Runs the entrypoint with this line of bash in place of the server. At its end, the line kills the entrypoint's process. */
  const run = (line: string) =>
    spawnSync("/bin/bash", [script, "/bin/bash", "-c", `${line}; kill -9 $PPID`, "a b", "c"], {
      env: { PATH: "/usr/bin:/bin", SANDBOX_CGROUP: group, SANDBOX_MAX_PROCESSES: "300" },
      encoding: "utf8",
    }).stdout;
  const valueOf = (...path: string[]) => readFileSync(join(group, ...path), "utf8");
  const limit = (...path: string[]) => valueOf(...path, "pids.max");

  it("limits the processes of the control group and of each user, and starts the server", () => {
    writeFileSync(join(group, "pids.max"), "max\n");
    expect(run('ulimit -u; echo "$0 $1"; tr "\\0" " " </proc/$PPID/cmdline')).toMatch(
      /^300\na b c\nsbx-init *$/,
    );
    expect(limit()).toBe("300\n");
  });

  it("passes its variables to everything that it starts: the file of trusted authorities, and unbuffered output", () => {
    mkdirSync(join(group, "pids.max"));
    const variables = run("/usr/bin/env").split("\n");
    for (const name of [
      "NODE_EXTRA_CA_CERTS",
      "SSL_CERT_FILE",
      "REQUESTS_CA_BUNDLE",
      "CURL_CA_BUNDLE",
      "PIP_CERT",
      "GIT_SSL_CAINFO",
    ])
      expect(variables).toContain(`${name}=/etc/ssl/sandbox-mcp.pem`);
    expect(variables).toContain("PYTHONUNBUFFERED=1");
  });

  it("makes a control group of its own if it starts in the root group", () => {
    writeFileSync(join(group, "cgroup.subtree_control"), "");
    expect(run("echo runs")).toBe("runs\n");
    expect(limit("sandbox-mcp")).toBe("300\n");
    expect(valueOf("sandbox-mcp", "cgroup.procs")).toMatch(/^\d+\n$/);
  });

  it("leaves memory for the platform, which would end a container that has used all", () => {
    writeFileSync(join(group, "cgroup.subtree_control"), "");
    run("true");
    const total = 1024 * Number(/^MemTotal: +(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]);
    const share = Number(valueOf("sandbox-mcp", "memory.max")) / total;
    expect(share).toBeGreaterThan(0.9);
    expect(share).toBeLessThan(0.95);
  });

  it("limits the processes although no group can limit memory", () => {
    mkdirSync(join(group, "sandbox-mcp", "memory.max"), { recursive: true });
    expect(run("echo runs")).toBe("runs\n");
    expect(limit("sandbox-mcp")).toBe("300\n");
  });

  it("starts the server if no control group is writable", () => {
    mkdirSync(join(group, "pids.max"));
    expect(run("echo runs")).toBe("runs\n");
  });

  it.each<[string, () => void, string[]]>([
    [
      "the control group is not writable",
      () => mkdirSync(join(group, "pids.max")),
      ["cgroup.controllers", "pids.max"],
    ],
    [
      "control groups have version 1, whose directory holds ordinary files",
      () => rmSync(join(group, "cgroup.controllers")),
      [],
    ],
    [
      "it cannot join a control group of its own",
      () => mkdirSync(join(group, "sandbox-mcp", "cgroup.procs"), { recursive: true }),
      ["cgroup.controllers", "cgroup.subtree_control", "sandbox-mcp"],
    ],
  ])("prints one line and sets no limit if %s", (_why, prepare, files) => {
    prepare();
    const env = { PATH: "/usr/bin:/bin", SANDBOX_CGROUP: group };
    const { stderr } = spawnSync("/bin/bash", [script, "/bin/bash", "-c", "kill -9 $PPID"], {
      env,
      encoding: "utf8",
    });
    // Node may also print that there is no sandboxd here.
    const warnings = stderr.split("\n").filter((line) => line.startsWith("sandbox-mcp:"));
    const isRoot = process.getuid?.() === 0;
    expect(warnings.map((line) => line.includes("no limit of processes"))).toEqual(isRoot ? [true] : []);
    expect(readdirSync(group)).toEqual(files);
  });
});
