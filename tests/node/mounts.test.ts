import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { readComponents, readMounts, removeMounts, writableMountOf } from "../../cli/mount-option.ts";
import { repository } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { words } from "../setup/words.ts";

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
  it.each(
    words(`
    /etc /etc/ssl /usr/local /bin /lib /dev/shm /proc/self /sys/kernel /run /var /var/lib /var/tmp link
    link:ro link=work
  `),
  )("%s, because it belongs to the system", async (text) => {
    await expect(mount(text)).rejects.toThrow(/belongs to the system\. Mount a directory of a project/);
  });

  it.each([".ssh", ".ssh:ro", ".config/x"])("%s in a home directory", async (name) => {
    vi.stubEnv("HOME", join(directory, "home"));
    expect(homedir()).toBe(join(directory, "home"));
    await expect(mount(`home/${name}`)).rejects.toThrow(/keys and settings/);
  });
});

it.each([
  ["project=user:42:ro", "user:42", false],
  ["project=user:42:rw", "user:42", true],
  ["project=Alice@example.com", "Alice@example.com", true],
])("%s names a sandbox, and may end with :ro or :rw", async (text, sandbox, isWritable) => {
  const { forWorker, forEngine } = await mount(text);
  expect([forWorker, forEngine]).toMatchObject([[{ sandbox, readOnly: !isWritable }], [{ isWritable }]]);
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
    expect((await mount("set:ro")).forEngine).toMatchObject([{ isWritable: false }]);
  }
  // Code in a sandbox can choose names of directories, so the error escapes them.
  renameSync(join(directory, "set/deep"), join(directory, "set/deep\nnext: \u001b[2J"));
  await expect(mount("set")).rejects.toThrow(`${directory}/set/deep\\nnext: \\u001b[2J/program" has a`);
});

it("a directory in which the server cannot search for set-user-id programs is refused, because a sandbox could open it", () => {
  // Root can search all directories.
  const user = process.getuid?.() === 0 ? 54_321 : undefined;
  const project = join(directory, "closed");
  const deep = join(project, "deep");
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, "program"), "");
  const refusal = () => {
    const engine = JSON.stringify(join(repository, "local/engine/host-directories.ts"));
    const check = `(await import(${engine})).refuseSetID(${JSON.stringify(project)})`;
    const program = `await ${check}.then(() => console.log("none"), (error) => console.log(error.message))`;
    const options = { encoding: "utf8", ...(user === undefined ? {} : { uid: user, gid: user }) } as const;
    return execFileSync(process.execPath, ["--input-type=module", "-e", program], options).trim();
  };
  chmodSync(directory, 0o755);
  if (user !== undefined) for (const path of [project, deep]) chownSync(path, user, user);
  expect(refusal()).toBe("none");
  for (const mode of [0o000, 0o300, 0o600]) {
    chmodSync(deep, mode);
    expect(refusal()).toContain(`${deep} cannot be searched`);
  }
  chmodSync(deep, 0o700);
});

it("a directory inside another sandbox's writable directory, which code there could replace with a link, is refused", async () => {
  mkdirSync(join(directory, "outer/inner"), { recursive: true });
  const both = (outer: string, inner: string) => readMounts([outer, inner], directory, []);
  for (const inner of ["outer/inner", "outer/inner:ro"])
    for (const [one, other] of [
      ["outer", inner],
      [inner, "outer:rw"],
    ] as const)
      await expect(both(one, other)).rejects.toThrow(
        /outer\/inner: code in the sandbox of \S+outer could replace this directory/,
      );
  expect((await both("outer:ro", "outer/inner")).forEngine).toHaveLength(2);
  expect((await both("outer=a", "outer=b")).forEngine).toHaveLength(2);
});

it("a path through a link that a sandbox could have made is refused, also if its directory is not mounted now", async () => {
  mkdirSync(join(directory, "earlier"));
  mkdirSync(join(directory, "other/deep"), { recursive: true });
  symlinkSync("../other", join(directory, "earlier/planted"));
  symlinkSync("earlier/planted", join(directory, "home/shortcut"));
  symlinkSync("../other", join(directory, "home/own"));
  for (const path of ["earlier/planted", "earlier/planted:ro", "earlier/planted/deep=work"])
    await expect(mount(path)).rejects.toThrow(
      /earlier\/planted is a symbolic link, which code in a sandbox could have made.* --mount \S+other/,
    );
  // Nobody mounts the home directory, so its links are the user's own.
  vi.stubEnv("HOME", join(directory, "home"));
  expect((await mount("home/own")).forEngine).toMatchObject([{ from: join(directory, "other") }]);
  symlinkSync("../earlier/planted", join(directory, "home/through"));
  await expect(mount("home/through")).rejects.toThrow(/earlier\/planted is a symbolic link/);
});

describe("files that the server uses", () => {
  it("are recognised in a directory that a sandbox can write to, also behind links and before the files exist", async () => {
    mkdirSync(join(directory, "tools/bin"), { recursive: true });
    symlinkSync("tools/bin", join(directory, "programs"));
    const writable = await mount("tools");
    for (const path of ["tools", "tools/bin", "programs", "programs/python3", "tools/missing/bin"])
      expect(writableMountOf(writable, join(directory, path)), path).toBe(join(directory, "tools"));
    for (const path of ["tools2/bin", "project"])
      expect(writableMountOf(writable, join(directory, path)), path).toBeUndefined();
    expect(writableMountOf(await mount("tools:ro"), join(directory, "tools/bin"))).toBeUndefined();
  });

  it("do not come from paths to which a sandbox can write, in PATH or another variable", async () => {
    const own = join(directory, "project/node_modules/.bin");
    const environment = join(directory, "project/.venv");
    const certificates = join(directory, "project/ca.pem");
    const outside = { PIP_CONFIG_FILE: "/etc/pip.conf" };
    const variables = { SSL_CERT_FILE: certificates, VIRTUAL_ENV: environment, ...outside };
    const env: NodeJS.ProcessEnv = { PATH: `${own}:/usr/local/bin:/usr/bin`, ...variables };
    const before = { ...env };
    const cwd = join(directory, "project");
    expect(removeMounts(env, await mount("project:ro"), cwd)).toEqual([]);
    expect(env).toEqual(before);
    expect(removeMounts(env, await mount("project"), cwd)).toEqual([own, certificates, environment]);
    expect(env).toEqual({ PATH: "/usr/local/bin:/usr/bin", ...outside });
  });

  it("do not come from a directory of PATH whose program is a link into a mounted directory", async () => {
    const bin = join(directory, "home/bin");
    mkdirSync(bin, { recursive: true });
    symlinkSync("../../project/python3", join(bin, "python3"));
    const env: NodeJS.ProcessEnv = { PATH: `${bin}:/usr/bin` };
    expect(removeMounts(env, await mount("project"), directory)).toEqual([bin]);
    expect(env.PATH).toBe("/usr/bin");
  });

  it("do not come from relative entries of PATH, because the working directory may have been mounted earlier", async () => {
    const env: NodeJS.ProcessEnv = { PATH: "bin:/usr/bin:" };
    expect(removeMounts(env, { forWorker: [], forEngine: [] }, directory)).toEqual([]);
    expect(env.PATH).toBe("/usr/bin");
  });

  it("do not come from PATH when the server searches for set-user-id programs, because PATH may name a directory that was mounted earlier", async () => {
    const bin = join(directory, "earlier-bin");
    const mark = join(directory, "mark");
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, "find"), `#!/bin/sh\necho found > '${mark}'\n`, { mode: 0o755 });
    const path = process.env.PATH;
    vi.stubEnv("PATH", `${bin}:${path}`);
    onTestFinished(() => void vi.stubEnv("PATH", path));
    expect((await mount("project")).forEngine).toHaveLength(1);
    expect(existsSync(mark)).toBe(false);
  });
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
