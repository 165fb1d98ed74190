import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { readComponents, readMounts } from "../../cli/mount-option.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();

beforeAll(() => {
  for (const name of ["project", "home/.ssh", "home/.config/x", "home/project/.git"])
    mkdirSync(join(directory, name), { recursive: true });
  symlinkSync("/etc/ssl", join(directory, "link"));
});
afterAll(() => {
  vi.unstubAllEnvs();
});

const mount = (text: string) => readMounts([text], directory, []);

describe("npm start --mount refuses", () => {
  it.each([
    "/etc",
    "/etc/ssl",
    "/usr/local",
    "/bin",
    "/lib",
    "/dev/shm",
    "/proc/self",
    "/sys/kernel",
    "/run",
    "/var",
    "/var/lib",
    "/var/tmp",
    "link",
    "link:ro",
    "link=work",
  ])("%s, because it belongs to the system", async (text) => {
    await expect(mount(text)).rejects.toThrow(/belongs to the system\. Mount a directory of a project/);
  });

  it.each([".ssh", ".ssh:ro", ".config/x"])("%s in a home directory", async (name) => {
    vi.stubEnv("HOME", join(directory, "home"));
    expect(homedir()).toBe(join(directory, "home"));
    await expect(mount(`home/${name}`)).rejects.toThrow(/keys and settings/);
  });
});

it("a directory with a set-user-id program, which a sandbox could rewrite, can only be mounted read-only", async () => {
  mkdirSync(join(directory, "set/deep"), { recursive: true });
  const program = join(directory, "set/deep/program");
  writeFileSync(program, "");
  chmodSync(join(directory, "set/deep"), 0o2775);
  expect((await mount("set")).forEngine).toHaveLength(1);
  for (const mode of [0o4755, 0o2755]) {
    chmodSync(program, mode);
    await expect(mount("set")).rejects.toThrow(`${program} has a set-user-id or set-group-id bit`);
    expect((await mount("set:ro")).forEngine).toMatchObject([{ writable: false }]);
  }
  // A sandbox chooses the names of directories.
  renameSync(join(directory, "set/deep"), join(directory, "set/deep\nnext: \u001b[2J"));
  await expect(mount("set")).rejects.toThrow(`${directory}/set/deep\\nnext: \\u001b[2J/program" has a`);
});

describe("the folder of COMPONENTS", () => {
  it("must contain agents or commands", () => {
    mkdirSync(join(directory, "offered/agents"), { recursive: true });
    expect(readComponents(" offered", directory)).toBe(join(directory, "offered"));
    expect(() => readComponents("project", directory)).toThrow(/project has neither agents\/ nor commands\//);
    expect(() => readComponents("none", directory)).toThrow(/COMPONENTS: the folder \S+none cannot be read/);
  });
});

describe("npm start --mount accepts", () => {
  it.each([
    ["project", false],
    ["project:rw", false],
    ["project:ro", true],
    ["home/project/.git=git", false],
  ])("%s", async (text, readOnly) => {
    vi.stubEnv("HOME", join(directory, "home"));
    expect((await mount(text)).forWorker).toEqual([expect.objectContaining({ readOnly })]);
  });

  it("a directory in /var/tmp", async () => {
    const path = mkdtempSync("/var/tmp/sandbox-mcp-mounts-");
    try {
      expect((await mount(`${path}=tmp`)).forWorker).toHaveLength(1);
    } finally {
      rmSync(path, { recursive: true });
    }
  });
});
