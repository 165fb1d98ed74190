/** What the image runs first, as far as that shows without building it. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
const dockerfile = readFileSync(join(root, "Dockerfile"), "utf8");

describe("the Dockerfile", () => {
  const entrypoint = /^ENTRYPOINT (\[.*\])$/m.exec(dockerfile)?.[1];
  const words: string[] = JSON.parse(entrypoint ?? "[]");

  it("starts tini first, which takes in orphans, and the image's own server behind it", () => {
    expect(words.slice(0, 2)).toEqual(["/usr/bin/tini", "--"]);
    expect(words.at(-1)).toBe("/container-server/sandbox");
    expect(dockerfile).toMatch(/apt-get install -y [^&\n]*\btini\b/);
    expect(dockerfile.match(/^(ENTRYPOINT|CMD) /gm)).toEqual(["ENTRYPOINT "]);
  });

  it("names a program of ours that it copies", () => {
    expect(dockerfile).toContain("COPY --chmod=0555 container/ /opt/sandbox-mcp/");
    expect(words[2]).toBe("/opt/sandbox-mcp/entrypoint.sh");
    expect(readFileSync(join(root, "container/entrypoint.sh"), "utf8")).toMatch(/^#!\/bin\/bash\n/);
  });
});

describe("the entrypoint", () => {
  let group: string;
  beforeEach(() => {
    group = mkdtempSync(join(tmpdir(), "cgroup-"));
  });
  afterEach(() => rmSync(group, { recursive: true }));

  const run = (...command: string[]) =>
    execFileSync("/bin/bash", [join(root, "container/entrypoint.sh"), ...command], {
      env: { PATH: "/usr/bin:/bin", SANDBOX_CGROUP: group, SANDBOX_MAX_PROCESSES: "300" },
      encoding: "utf8",
    });
  const limit = (...path: string[]) => readFileSync(join(group, ...path, "pids.max"), "utf8");

  it("limits the processes of the control group, and of each user, and becomes the server", () => {
    writeFileSync(join(group, "pids.max"), "max\n");
    expect(run("/bin/bash", "-c", 'ulimit -u; echo "$0 $1"; echo $$ $PPID', "a b", "c")).toMatch(
      new RegExp(`^300\na b c\n\\d+ ${process.pid}\n$`),
    );
    expect(limit()).toBe("300\n");
  });

  it("tells everything that it starts which file has the authorities to trust", () => {
    mkdirSync(join(group, "pids.max"));
    const variables = run("/usr/bin/env").split("\n");
    for (const name of ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"])
      expect(variables).toContain(`${name}=/etc/ssl/sandbox-mcp.pem`);
  });

  it("makes a group where it is at the root of them", () => {
    writeFileSync(join(group, "cgroup.subtree_control"), "");
    expect(run("/bin/echo", "runs")).toBe("runs\n");
    expect(limit("sandbox-mcp")).toBe("300\n");
    expect(readFileSync(join(group, "sandbox-mcp", "cgroup.procs"), "utf8")).toMatch(/^\d+\n$/);
  });

  it("starts the server where no group can be written", () => {
    mkdirSync(join(group, "pids.max"));
    expect(run("/bin/echo", "runs")).toBe("runs\n");
  });

  it("says in one line where nothing bounds the processes", () => {
    mkdirSync(join(group, "pids.max"));
    const script = join(root, "container/entrypoint.sh");
    const env = { PATH: "/usr/bin:/bin", SANDBOX_CGROUP: group };
    const { stderr } = spawnSync("/bin/bash", [script, "/bin/true"], { env, encoding: "utf8" });
    const isRoot = process.getuid?.() === 0;
    expect(stderr).toMatch(isRoot ? /^sandbox-mcp: no limit of processes .*\n$/ : /^$/);
  });
});
