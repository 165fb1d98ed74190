/** Changes outside the workspace: saved as the differences from the image, and repeated in another container. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { unfinishedName } from "../../container/sandboxd/directories.ts";
import { NODE } from "../../container/sandboxd/snapshots/image-change.ts";
import {
  type ManifestEntry,
  readManifest,
  writeManifest,
} from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import type { Index } from "../../container/sandboxd/snapshots/state.ts";
import { Base, listBase, systemID } from "../../container/sandboxd/snapshots/base.ts";
import { Scanner, chooseFiles } from "../../container/sandboxd/snapshots/scan.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let place: string;
beforeEach(() => void (place = temporaryDirectory()));

const { signal } = new AbortController();

function write(root: string, path: string, content = path): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

/** Creates the directories and files of a small system image. */
function system(name: string): string {
  const root = join(place, name);
  for (const path of ["usr/bin/tool", "usr/lib/old/1.0/info", "etc/conf", "etc/hosts", "var/log/all"])
    write(root, path);
  for (const path of ["workspace/mine", "proc/1", "opt/sandbox-mcp/ours"]) write(root, path);
  mkdirSync(join(root, "root"), { mode: 0o700 });
  symlinkSync("lib", join(root, "usr/lib64"));
  return root;
}

/** Everything below a directory, with modes, link targets, link counts and contents. */
const listTree = (root: string) =>
  execFileSync(
    "sh",
    ["-c", "find . -printf '%p %y %m %l %n\\n' | sort; find . -type f | sort | xargs sha256sum"],
    { cwd: root, encoding: "utf8" },
  );

/** A Python program that locks a file as dpkg does, until the program is killed. */
const LOCKS =
  "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked'); time.sleep(600)";

const baseOf = (root: string) => new Base(listBase(root));

async function savedOf(root: string, base: Base, index: Index = new Map()) {
  const changes = await new Scanner(root, () => base).changes(signal);
  const save = new Save("a", root, index, { max: 1e9, repack: [] }, changes, {
    image: base.id,
    node: NODE,
  });
  const pack = Buffer.concat(await Array.fromAsync(save.pack(signal)));
  const isIncomplete = [save.summary.isIncomplete, (await save.finish()).isIncomplete];
  return { manifest: await save.manifest(), pack, index: save.index, isIncomplete };
}

async function changesOf(root: string, work: () => void): Promise<{ manifest: Buffer; pack: Buffer }> {
  const base = baseOf(root);
  work();
  return await savedOf(root, base);
}

async function restore(root: string, manifest: Buffer, pack: Buffer, base = baseOf(root)): Promise<Restore> {
  const changes = await Restore.begin("a", { root, base }, manifest);
  await changes.receive(
    (async function* () {
      for (const { from, to } of changes.reads) yield pack.subarray(from, to);
    })(),
  );
  await changes.finish();
  return changes;
}

it("a saved system repeats installations, changes, links and removals elsewhere, and keeps the rest", async () => {
  const [from, to] = [system("from"), system("to")];
  const base = baseOf(to);
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "workspace/mine", "changed");
    write(from, "data/set/one");
    write(from, "root/.local/bin/new", "n".repeat(100_000));
    linkSync(join(from, "root/.local/bin/new"), join(from, "usr/bin/new"));
    write(from, "usr/bin/tool", "another");
    rmSync(join(from, "usr/lib/old"), { recursive: true });
    rmSync(join(from, "etc/conf"));
    write(from, "etc/conf/part");
    rmSync(join(from, "usr/lib64"));
    mkdirSync(join(from, "usr/lib64"));
  });
  expect(pack.length).toBeLessThan(10_000);
  await restore(to, manifest, pack, base);
  expect(listTree(to)).toBe(listTree(from));
  // Repeats the restore, as after an interruption.
  await restore(to, manifest, pack, base);
  expect(listTree(to)).toBe(listTree(from));
});

it.each([
  ["is removed", () => undefined],
  ["becomes a link to elsewhere", (path: string) => symlinkSync("/tmp/elsewhere", path)],
  ["becomes a file", (path: string) => writeFileSync(path, "")],
])("a restore keeps the server's files if the directory above them %s", async (_what, replace) => {
  const [from, to] = [system("from"), system("to")];
  for (const root of [from, to]) write(root, "opt/tool/program");
  const base = baseOf(to);
  const { manifest, pack } = await changesOf(from, () => {
    rmSync(join(from, "opt"), { recursive: true });
    replace(join(from, "opt"));
    write(from, "workspace/mine", "changed");
  });
  await restore(to, manifest, pack, base);
  expect(readFileSync(join(to, "opt/sandbox-mcp/ours"), "utf8")).toBe("opt/sandbox-mcp/ours");
  expect(readFileSync(join(to, "workspace/mine"), "utf8")).toBe("changed");
});

it.runIf(process.getuid?.() === 0)("a restore keeps owners, also those of existing files", async () => {
  const [from, to] = [system("from"), system("to")];
  const paths = ["srv/db", "srv/db/page", "srv/link", "usr/bin/tool", "var"];
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "srv/db/page");
    symlinkSync("db", join(from, "srv/link"));
    chmodSync(join(from, "usr/bin/tool"), 0o4755);
    for (const [index, path] of paths.entries()) lchownSync(join(from, path), 100 + index, 200 + index);
    chmodSync(join(from, "usr/bin/tool"), 0o4755);
  });
  const base = baseOf(to);
  chownSync(join(to, "usr"), 300, 300);
  await restore(to, manifest, pack, base);
  const owners = ["usr", ...paths].map((path) => lstatSync(join(to, path)));
  expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
    [0, 0],
    ...paths.map((_path, index) => [100 + index, 200 + index]),
  ]);
  expect(listTree(to)).toBe(listTree(from));
});

it.each([-1, 0.5, 2 ** 32 - 1])("a manifest with owner %d is refused", async (uid) => {
  const manifest = await writeManifest([{ ...directory("srv"), uid, gid: 0 }]);
  const root = system("to");
  await expect(Restore.begin("a", { root, base: baseOf(root) }, manifest)).rejects.toThrow();
});

it("a saved system contains no processes, no files of the platform and no caches", async () => {
  const root = system("from");
  const { pack } = await changesOf(root, () => {
    for (const path of "run/x proc/2 opt/sandbox-mcp/x root/.cache/pip/x home/u/.npm/_cacache/x".split(" "))
      write(root, path);
    for (const path of ["etc/hosts", "etc/ssl/certs/ca.pem", "tmp/x", "var/lib/sandbox-mcp/x"])
      write(root, path, "changed");
  });
  expect(pack.length).toBe(0);
});

it("a save during a write has the earlier content of the file, and not the unfinished new one", async () => {
  const root = system("here");
  const base = baseOf(root);
  write(root, "workspace/file", "earlier");
  write(root, `workspace/${unfinishedName(crypto.randomUUID())}`, "new conte");
  write(root, "workspace/.sandbox-mcp.d/notes", "of the user");
  const { manifest } = await savedOf(root, base);
  const { entries } = await readManifest(manifest);
  const files = entries.filter(({ type }) => type === "file").map(({ path }) => path);
  expect(files).toEqual(["workspace/file", "workspace/.sandbox-mcp.d/notes"]);
});

it("a save during an installation keeps the system's previous state and the user's current files, and says so", async () => {
  const root = system("from");
  const base = baseOf(root);
  write(root, "var/lib/dpkg/lock");
  write(root, "usr/bin/jq", "whole");
  const before = await savedOf(root, base);
  const locking = spawn("python3", ["-uc", LOCKS, join(root, "var/lib/dpkg/lock")]);
  try {
    await once(locking.stdout, "data");
    write(root, "usr/bin/jq", "half of it");
    write(root, "usr/bin/half", "half");
    write(root, "workspace/new");
    const incomplete: unknown[] = [];
    const paths = async (index: Index) => {
      const saved = await savedOf(root, base, index);
      incomplete.push(...saved.isIncomplete);
      const { entries } = await readManifest(saved.manifest);
      return entries.map((entry) => (entry.path === "usr/bin/jq" ? entry : entry.path));
    };
    const jq = (await readManifest(before.manifest)).entries.find(({ path }) => path === "usr/bin/jq");
    const during = await paths(before.index);
    expect(during).toContain("workspace/new");
    expect(during).not.toContain("usr/bin/half");
    expect(during).toContainEqual(jq);
    locking.kill();
    await once(locking, "exit");
    const after = await paths(before.index);
    expect(after).toContain("usr/bin/half");
    expect(after).not.toContainEqual(jq);
    expect(incomplete).toEqual([true, true, false, false]);
  } finally {
    locking.kill("SIGKILL");
  }
});

it("the id of a system depends on its installed packages", () => {
  const [one, other] = [system("one"), system("other")];
  expect(systemID(one)).toBe(systemID(other));
  write(other, "var/lib/dpkg/status", "more");
  expect(systemID(one)).not.toBe(systemID(other));
});

const common = { mode: 0o755, mtime: 0, uid: 0, gid: 0 };
const directory = (path: string): ManifestEntry => ({ type: "directory", path, ...common });
const file = (path: string): ManifestEntry => ({ type: "file", path, ...common, size: 0, blobs: [] });

it.each<[string, ManifestEntry[]]>([
  ["a directory of the platform", [directory("opt"), directory("opt/sandbox-mcp")]],
  [
    "the directory of the platform's state",
    [directory("var"), directory("var/lib"), file("var/lib/sandbox-mcp")],
  ],
  ["the file of host names", [directory("etc"), file("etc/hosts")]],
  ["a file outside the saved directories", [directory("proc"), file("proc/x")]],
  ["a file above the root", [file("../x")]],
  ["a directory that the platform needs", [{ type: "removed", path: "run", ...common }]],
])("a restore does not change %s", async (_what, entries) => {
  const root = system("to");
  const before = listTree(root);
  const manifest = await writeManifest(entries);
  await expect(Restore.begin("a", { root, base: baseOf(root) }, manifest)).rejects.toThrow();
  expect(listTree(root)).toBe(before);
});

it("a save with more entries than a restore accepts fails", async () => {
  const entries = Array.from({ length: 200_001 }, (_, number) => file(`f${number}`));
  await expect(writeManifest(entries)).rejects.toThrow();
});

it("a restore follows no link, and replaces nothing before everything has arrived", async () => {
  const [from, to] = [system("from"), system("to")];
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "srv/a/file", "x".repeat(10_000));
    write(from, "usr/bin/tool", "another");
  });
  const base = baseOf(to);
  mkdirSync(join(place, "outside"));
  mkdirSync(join(to, "srv"));
  symlinkSync(join(place, "outside"), join(to, "srv/a"));
  await expect(restore(to, manifest, pack.subarray(1), base)).rejects.toThrow();
  expect(readFileSync(join(to, "usr/bin/tool"), "utf8")).toBe("usr/bin/tool");
  expect(readdirSync(join(to, "usr/bin"))).toEqual(["tool"]);
  await restore(to, manifest, pack, base);
  expect(readFileSync(join(to, "srv/a/file"), "utf8")).toHaveLength(10_000);
  expect(readdirSync(join(place, "outside"))).toEqual([]);
});

it("a restore brings back files whose names look like its own temporary ones", async () => {
  const [from, to] = [system("from"), system("to")];
  const base = baseOf(to);
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "etc/conf", "changed");
    for (let number = 10; number < 30; number++) write(from, `etc/.sandbox-mcp-${number}`);
  });
  await restore(to, manifest, pack, base);
  expect(listTree(to)).toBe(listTree(from));
});

it("a restore on another image brings back the user's own files and all files without a conflict, and names the other ones", async () => {
  const [from, to] = [system("from"), system("to")];
  for (const root of [from, to]) {
    write(root, "usr/local/lib/python3.11/site.py");
    write(root, "usr/local/lib/node_modules/npm/index.js");
  }
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "workspace/mine", "changed");
    write(from, "root/.config/tool", "mine");
    write(from, "data/set");
    write(from, "usr/local/bin/prettier");
    write(from, "usr/local/bin/both", "mine");
    write(from, "usr/local/lib/python3.11/site-packages/httpx/api.py");
    write(from, "usr/local/lib/python3.9/site-packages/old.py");
    write(from, "usr/bin/jq");
    write(from, "var/lib/dpkg/info/jq.list");
    write(from, "var/lib/dpkg/status", "jq");
    write(from, "etc/jq.conf");
    rmSync(join(from, "etc/conf"));
  });
  write(to, "usr/local/bin/both", "the image's");
  write(to, "usr/bin/tool", "newer");
  const { dropped } = await restore(to, manifest, pack);
  const read = (path: string) => readFileSync(join(to, path), "utf8");
  expect(read("workspace/mine") + read("root/.config/tool") + read("data/set")).toBe("changedminedata/set");
  expect(read("usr/local/bin/prettier")).toBe("usr/local/bin/prettier");
  expect(read("usr/local/lib/python3.11/site-packages/httpx/api.py")).toContain("httpx");
  expect(read("usr/local/bin/both") + read("usr/bin/tool") + read("etc/conf")).toBe(
    "the image'sneweretc/conf",
  );
  for (const path of ["usr/bin/jq", "usr/local/lib/python3.9", "var/lib/dpkg", "etc/jq.conf"])
    expect(existsSync(join(to, path)), path).toBe(false);
  expect(dropped).toEqual([
    "apt: jq",
    "/etc/jq.conf",
    "/usr/local/bin/both",
    "/usr/local/lib/python3.9/site-packages",
  ]);
});

it("a save that would be too large leaves out regenerable directories first, and then whole libraries", async () => {
  const root = system("from");
  const base = baseOf(root);
  write(root, "workspace/node_modules/a", "x".repeat(50));
  write(root, "usr/local/lib/python3.11/site-packages/a/small", "x");
  write(root, "usr/local/lib/python3.11/site-packages/a/large", "x".repeat(100));
  write(root, "workspace/data", "x".repeat(60));
  const entries = await new Scanner(root, () => base).changes(signal);
  const pathsOf = (max: number) =>
    chooseFiles(entries, max).chosen.flatMap(({ path, type }) => (type === "file" ? path : []));
  expect(pathsOf(170).sort()).toEqual([
    "usr/local/lib/python3.11/site-packages/a/large",
    "usr/local/lib/python3.11/site-packages/a/small",
    "workspace/data",
  ]);
  expect(pathsOf(120).sort()).toEqual(["workspace/data", "workspace/node_modules/a"]);
  expect(chooseFiles(entries, 120).left).toMatchObject({
    count: 2,
    largest: [{ path: "/usr/local/lib/python3.11/site-packages", size: 101 }],
  });
});

it("a save finds installed files at once, but finds files that were overwritten in place only by a full scan", async () => {
  const root = system("from");
  const base = baseOf(root);
  const scanner = new Scanner(root, () => base);
  const pathsOf = async (isThorough: boolean) =>
    (await scanner.changes(signal, { isThorough })).map(({ path }) => path).sort();
  expect(await pathsOf(true)).toEqual([]);
  // A file that was just changed may change again and keep its modification time.
  await new Promise((done) => setTimeout(done, 150));
  expect(await pathsOf(false)).toEqual([]);
  writeFileSync(join(root, "usr/bin/tool"), "written in place");
  write(root, "usr/lib/new/module");
  rmSync(join(root, "usr/lib/old/1.0/info"));
  expect(await pathsOf(false)).toEqual(
    "usr usr/lib usr/lib/new usr/lib/new/module usr/lib/old usr/lib/old/1.0 usr/lib/old/1.0/info".split(" "),
  );
  expect(await pathsOf(true)).toContain("usr/bin/tool");
  expect(await pathsOf(false)).toContain("usr/bin/tool");
});
