/** What a set-up has installed outside of the workspace: saved as changes, and made again in another system. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Entry, writeManifest } from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { systemID, systemNow } from "../../container/sandboxd/snapshots/system.ts";

let place: string;
beforeEach(() => void (place = mkdtempSync(join(tmpdir(), "system-"))));
afterEach(() => rmSync(place, { recursive: true, force: true }));

const { signal } = new AbortController();

function write(root: string, path: string, content = path): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

/** A system as an image has it. */
function system(name: string): string {
  const root = join(place, name);
  for (const path of ["usr/bin/tool", "usr/lib/old/1.0/info", "etc/conf", "etc/hosts", "var/log/all"])
    write(root, path);
  for (const path of ["workspace/mine", "proc/1", "opt/sandbox-mcp/ours"]) write(root, path);
  mkdirSync(join(root, "root"), { mode: 0o700 });
  symlinkSync("lib", join(root, "usr/lib64"));
  return root;
}

/** All there is, with modes, times of files, links and contents. */
const look = (root: string) =>
  execFileSync(
    "sh",
    ["-c", "find . -printf '%p %y %m %l %n\\n' | sort; find . -type f | sort | xargs sha256sum"],
    { cwd: root, encoding: "utf8" },
  );

async function changesOf(root: string, work: () => void): Promise<{ manifest: Buffer; pack: Buffer }> {
  const before = await systemNow(root, signal);
  work();
  const save = await Save.plan("a", root, new Map(), { max: 1e9, repack: [] }, signal, before);
  const pack = Buffer.concat(await Array.fromAsync(save.pack(signal)));
  return { manifest: await save.manifest(), pack };
}

async function restore(root: string, manifest: Buffer, pack: Buffer): Promise<void> {
  const changes = await Restore.beginChanges("a", root, manifest);
  await changes.receive(
    (async function* () {
      yield pack;
    })(),
  );
  await changes.finish();
}

it("makes what was installed, changed, linked and removed again in another system, and leaves the rest alone", async () => {
  const [from, to] = [system("from"), system("to")];
  const { manifest, pack } = await changesOf(from, () => {
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
  await restore(to, manifest, pack);
  expect(look(to)).toBe(look(from));
  // Once more, as after a restore that broke off.
  await restore(to, manifest, pack);
  expect(look(to)).toBe(look(from));
});

it.runIf(process.getuid?.() === 0)("keeps owners, also of what was there before", async () => {
  const [from, to] = [system("from"), system("to")];
  const paths = ["srv/db", "srv/db/page", "srv/link", "usr/bin/tool", "var"];
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "srv/db/page");
    symlinkSync("db", join(from, "srv/link"));
    chmodSync(join(from, "usr/bin/tool"), 0o4755);
    for (const [index, path] of paths.entries()) lchownSync(join(from, path), 100 + index, 200 + index);
    chmodSync(join(from, "usr/bin/tool"), 0o4755);
  });
  chownSync(join(to, "usr"), 300, 300);
  await restore(to, manifest, pack);
  const owners = ["usr", ...paths].map((path) => lstatSync(join(to, path)));
  expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
    [0, 0],
    ...paths.map((_path, index) => [100 + index, 200 + index]),
  ]);
  expect(look(to)).toBe(look(from));
});

it.each([-1, 0.5, 2 ** 32 - 1])("takes no owner %d", async (uid) => {
  const manifest = await writeManifest([{ ...directory("srv"), uid, gid: 0 }]);
  await expect(Restore.beginChanges("a", system("to"), manifest)).rejects.toThrow();
});

it("holds nothing of the workspace, of the platform or of caches", async () => {
  const root = system("from");
  const { pack } = await changesOf(root, () => {
    for (const path of ["workspace/w", "proc/2", "opt/sandbox-mcp/x", "var/log/x", "root/.cache/pip/x"])
      write(root, path);
    for (const path of ["etc/hosts", "etc/ssl/certs/ca.pem", "tmp/x", "var/lib/sandbox-mcp/x"])
      write(root, path, "changed");
  });
  expect(pack.length).toBe(0);
});

it("differs by what an installation meets", () => {
  const [one, other] = [system("one"), system("other")];
  expect(systemID(one)).toBe(systemID(other));
  write(other, "var/lib/dpkg/status", "more");
  expect(systemID(one)).not.toBe(systemID(other));
});

const common = { mode: 0o755, mtime: 0 };
const directory = (path: string): Entry => ({ type: "directory", path, ...common });
const file = (path: string): Entry => ({ type: "file", path, ...common, size: 0, blobs: [] });

it.each<[string, Entry[]]>([
  ["the workspace", [directory("workspace"), file("workspace/x")]],
  ["what the platform keeps there", [directory("opt"), directory("opt/sandbox-mcp")]],
  ["a file of the platform's state", [directory("var"), directory("var/lib"), file("var/lib/sandbox-mcp")]],
  ["the host's names", [directory("etc"), file("etc/hosts")]],
  ["another directory", [directory("proc"), file("proc/x")]],
  ["what is above", [file("../x")]],
  ["what is removed elsewhere", [{ type: "removed", path: "workspace", ...common }]],
])("is not changed in %s", async (_what, entries) => {
  const root = system("to");
  const before = look(root);
  await expect(Restore.beginChanges("a", root, await writeManifest(entries))).rejects.toThrow();
  expect(look(root)).toBe(before);
});

it("follows no link on its way, and replaces nothing before all of it is there", async () => {
  const [from, to] = [system("from"), system("to")];
  const { manifest, pack } = await changesOf(from, () => {
    write(from, "srv/a/file", "x".repeat(10_000));
    write(from, "usr/bin/tool", "another");
  });
  mkdirSync(join(place, "outside"));
  mkdirSync(join(to, "srv"));
  symlinkSync(join(place, "outside"), join(to, "srv/a"));
  await expect(restore(to, manifest, pack.subarray(1))).rejects.toThrow();
  expect(readFileSync(join(to, "usr/bin/tool"), "utf8")).toBe("usr/bin/tool");
  expect(readdirSync(join(to, "usr/bin"))).toEqual(["tool"]);
  await restore(to, manifest, pack);
  expect(readFileSync(join(to, "srv/a/file"), "utf8")).toHaveLength(10_000);
  expect(readdirSync(join(place, "outside"))).toEqual([]);
});

it("is refused as the state of a workspace", async () => {
  const root = system("to");
  const manifest = await writeManifest([{ type: "removed", path: "usr", ...common }]);
  await expect(Restore.begin("a", root, manifest)).rejects.toThrow("removed");
});
