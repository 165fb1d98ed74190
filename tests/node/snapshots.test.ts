/** How sandboxd saves and restores files. No manifest, not even a forged one, reaches files outside the sandbox's own. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { createHash, randomBytes } from "node:crypto";
import zlib from "node:zlib";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { decompress } from "../../container/sandboxd/snapshots/codec.ts";
import {
  SNAPSHOT_BLOB_BYTES as BLOB_BYTES,
  snapshotRequests,
} from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { ManifestEntry } from "../../container/sandboxd/snapshots/manifest.ts";
import { readManifest, writeManifest } from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { repository } from "../../local/engine/own-files.ts";
import { Base } from "../../container/sandboxd/snapshots/base.ts";
import { Scanner, chooseFiles, scanNamed } from "../../container/sandboxd/snapshots/scan.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let root: string;
let outside: string;

beforeEach(() => {
  const directory = temporaryDirectory();
  root = join(directory, "root");
  outside = join(directory, "outside");
  mkdirSync(root);
  mkdirSync(outside);
});
const { signal } = new AbortController();
const base = new Base("");
const changes = (of: string) => new Scanner(of, () => base).changes(signal);
const common = { mode: 0o644, mtime: 0, uid: 0, gid: 0 };
const directory = (path: string): ManifestEntry => ({ type: "directory", path, ...common, mode: 0o755 });
const file = (path: string): ManifestEntry => ({ type: "file", path, ...common, size: 0, blobs: [] });
const link = (path: string, target: string): ManifestEntry => ({ type: "symlink", path, ...common, target });
const scannedFile = (path: string, size: number) => ({
  path,
  size,
  type: "file" as const,
  mode: 0o644,
  mtime: 0,
  changedAt: 0n,
  uid: 0,
  gid: 0,
  status: "",
});

describe("a manifest", () => {
  it.each<[string, ManifestEntry[]]>([
    ["a path above the workspace", [file("../outside/file")]],
    ["a path with .. in the middle", [directory("a"), file("a/../../outside/file")]],
    ["an absolute path", [file("/etc/passwd")]],
    ["no path", [file("")]],
    ["a path with an empty part", [directory("a"), file("a//b")]],
    ["a path that ends with a slash", [directory("a"), file("a/")]],
    ["a path with NUL", [file("a\0b")]],
    ["characters that Latin-1 would turn into slashes", [file(".į..į.")]],
    ["a file behind a symbolic link", [link("a", "../outside"), file("a/file")]],
    ["a directory behind a symbolic link", [link("a", "../outside"), directory("a/b")]],
    ["a link that takes a directory's place", [directory("a"), link("a", "../outside"), file("a/file")]],
    ["a file without its directory", [file("a/file")]],
    [
      "a hard link to a missing file",
      [{ type: "hardlink", path: "a", ...common, target: "../outside/file" }],
    ],
    [
      "a hard link to a symbolic link",
      [link("b", "/etc/passwd"), { type: "hardlink", path: "a", ...common, target: "b" }],
    ],
    ["a file that is longer than its content", [{ type: "file", path: "a", ...common, size: 1, blobs: [] }]],
    ["a mode with an unknown bit", [{ ...file("a"), mode: 0o10000 } as ManifestEntry]],
  ])("with %s is refused, and nothing is touched", async (_what, entries) => {
    writeFileSync(join(root, "before"), "there");
    const manifest = await writeManifest(entries);
    await expect(readManifest(manifest)).rejects.toThrow();
    await expect(Restore.begin("a", { root, base }, manifest)).rejects.toThrow();
    expect(readdirSync(root)).toEqual(["before"]);
    expect(readdirSync(outside)).toEqual([]);
  });

  it("that is too large to be read is not written", async () => {
    const entries = [directory("a"), file("a/file")];
    const { length } = await decompress(await writeManifest(entries), undefined, 1e6);
    await expect(writeManifest(entries, {}, length - 1)).rejects.toMatchObject({
      failure: { problem: "too_large" },
    });
    expect((await readManifest(await writeManifest(entries, {}, length))).entries).toHaveLength(2);
  });

  it("of more lines than a snapshot may have is refused before they take memory", async () => {
    // An index of all lines, with eight bytes for each, would exceed the heap of the program.
    const manifest = zlib.deflateRawSync(
      Buffer.concat([Buffer.from('{"version":1}'), Buffer.alloc(3e7, "\n")]),
    );
    const module = join(repository, "container/sandboxd/snapshots/manifest.ts");
    const program = `import { readManifest } from ${JSON.stringify(module)};
const manifest = Buffer.from(process.env.MANIFEST, "base64");
await readManifest(manifest).catch(({ message }) => console.log(message));`;
    const args = ["--max-old-space-size=128", "--input-type=module", "--eval", program];
    const env = { ...process.env, MANIFEST: manifest.toString("base64") };
    const output = execFileSync(process.execPath, args, { env, encoding: "utf8", stdio: "pipe" });
    expect(output).toBe("too many entries\n");
  });

  it("of the right form is accepted, and replaces symbolic links", async () => {
    writeFileSync(join(outside, "file"), "mine");
    symlinkSync(outside, join(root, "a"));
    symlinkSync(join(outside, "file"), join(root, "b"));
    const restore = await Restore.begin(
      "a",
      { root, base },
      await writeManifest([directory("a"), file("a/file"), file("b"), link("c", "../outside")]),
    );
    await restore.receive((async function* () {})());
    await restore.finish();
    expect(readFileSync(join(outside, "file"), "utf8")).toBe("mine");
    expect(readFileSync(join(root, "a/file"), "utf8")).toBe("");
    expect(readFileSync(join(root, "b"), "utf8")).toBe("");
  });
});

it("a save of a conversation contains its files and their directories, and nothing else of the home directory", async () => {
  for (const path of [
    "talks/work/one.jsonl",
    "talks/work/one/part.jsonl",
    "talks/work/two.jsonl",
    "one-secret",
  ]) {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), path);
  }
  const talks = await scanNamed(root, "talks", "one", signal);
  const save = new Save("a", root, new Map(), { max: 1e9, repack: [] }, talks);
  await Array.fromAsync(save.pack(signal));
  const { entries } = await readManifest(await save.manifest());
  expect(entries.map(({ path }) => path)).toEqual([
    "talks",
    "talks/work",
    "talks/work/one",
    "talks/work/one.jsonl",
    "talks/work/one/part.jsonl",
  ]);
});

describe("a restore", () => {
  async function saved(by = Save): Promise<{ manifest: Buffer; pack: Buffer }> {
    writeFileSync(join(root, "text"), "x".repeat(10_000));
    writeFileSync(join(root, "other"), "y".repeat(10_000));
    const save = new by("a", root, new Map(), { max: 1e9, repack: [] }, await changes(root));
    const parts: Buffer[] = [];
    for await (const part of save.pack(signal)) parts.push(part);
    return { manifest: await save.manifest(), pack: Buffer.concat(parts) };
  }
  const stream = async function* (bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
  };

  it("brings back the saved files, however its bytes are divided", async () => {
    const { manifest, pack } = await saved();
    mkdirSync(join(root, "workspace"));
    writeFileSync(join(root, "workspace/later"), "z");
    const restore = await Restore.begin("a", { root, base }, manifest);
    expect(restore.reads).toEqual([{ pack: "a", from: 0, to: pack.length }]);
    await restore.receive(stream(pack));
    await restore.finish();
    expect(readdirSync(join(root, "workspace"))).toEqual([]);
    expect(readFileSync(join(root, "text"), "utf8")).toBe("x".repeat(10_000));
  });

  it("works if Node has no zstd", async () => {
    vi.resetModules();
    const names = Object.keys(zlib).filter((name) => /^zstd/i.test(name));
    vi.doMock("node:zlib", () => ({
      default: { ...zlib, ...Object.fromEntries(names.map((name) => [name, undefined])) },
    }));
    const older = await import("../../container/sandboxd/snapshots/save.ts");
    vi.doUnmock("node:zlib");
    const { manifest, pack } = await saved(older.Save);
    for (const entry of (await readManifest(manifest)).entries)
      expect(entry).toMatchObject({ blobs: [{ codec: "deflate" }] });
    rmSync(join(root, "text"));
    const restore = await Restore.begin("a", { root, base }, manifest);
    await restore.receive(stream(pack));
    await restore.finish();
    expect(readFileSync(join(root, "text"), "utf8")).toBe("x".repeat(10_000));
  });

  it("of a sparse file of 10 GB transfers only its data", async () => {
    const content = Buffer.from("end");
    const size = 10 * 1024 ** 3;
    const hash = createHash("sha256")
      .update(Buffer.concat([Buffer.alloc(BLOB_BYTES - 3), content]))
      .digest("hex");
    const packed = zlib.zstdCompressSync(Buffer.concat([Buffer.alloc(BLOB_BYTES - 3), content]));
    const blob = { hash, pack: "a", offset: 0, length: packed.length, codec: "zstd" } as const;
    const blobs = [...Array<null>(size / BLOB_BYTES - 1).fill(null), blob];
    const manifest = await writeManifest([{ ...common, type: "file", path: "sparse", size, blobs }]);
    const restore = await Restore.begin("a", { root, base }, manifest);
    expect(restore.reads).toEqual([{ pack: "a", from: 0, to: packed.length }]);
    await restore.receive(stream(packed));
    await restore.finish();
    const stats = statSync(join(root, "sparse"));
    expect(stats.size).toBe(size);
    expect(stats.blocks * 512).toBeLessThanOrEqual(2 * BLOB_BYTES);
  });

  it("of ten thousand pieces with gaps between them needs fewer requests than Cloudflare allows for one restore", async () => {
    const entries = Array.from({ length: 10_000 }, (_, number): ManifestEntry => {
      const piece = {
        hash: "0".repeat(64),
        pack: "a",
        offset: number * 200_000,
        length: 10,
        codec: "raw",
      } as const;
      return { ...common, type: "file", path: String(number).padStart(5, "0"), size: 10, blobs: [piece] };
    });
    const { reads } = await Restore.begin("a", { root, base }, await writeManifest(entries));
    // The content is in objects of 4 MiB, which are requested one by one.
    const objectOf = (offset: number) => Math.floor(offset / BLOB_BYTES);
    const requests = reads.reduce((sum, { from, to }) => sum + 1 + objectOf(to - 1) - objectOf(from), 0);
    const largest = 10 * 1024 ** 3;
    expect(Math.max(requests, reads.length + largest / BLOB_BYTES)).toBeLessThan(10_000);
  });

  it.each([
    ["zstd", zlib.zstdCompressSync, 10],
    ["zstd", zlib.zstdCompressSync, 1_000_000],
    ["deflate", zlib.deflateRawSync, 10],
    ["deflate", zlib.deflateRawSync, 1_000_000],
  ] as const)(
    "unpacks no more of a decompression bomb (%s) than the file's size",
    async (codec, pack, size) => {
      const bomb = pack(Buffer.alloc(32 * 1024 * 1024));
      const unpacked = decompress(bomb, codec, size).then(({ length }) => length);
      await expect(unpacked).rejects.toMatchObject({ code: "ERR_BUFFER_TOO_LARGE" });
      const blob = { hash: "0".repeat(64), pack: "a", offset: 0, length: bomb.length, codec };
      const manifest = await writeManifest([{ ...common, type: "file", path: "bomb", size, blobs: [blob] }]);
      const restore = await Restore.begin("a", { root, base }, manifest);
      await expect(restore.receive(stream(bomb))).rejects.toMatchObject({ failure: { problem: "cut" } });
      expect(readdirSync(root)).not.toContain("bomb");
    },
  );

  it("removes no mount, even inside a directory that the saved state does not have", async () => {
    const gone = join(root, "workspace/gone");
    mkdirSync(join(gone, "deep/mount"), { recursive: true });
    writeFileSync(join(gone, "file"), "old");
    writeFileSync(join(outside, "file"), "mine");
    const module = join(repository, "container/sandboxd/snapshots/restore.ts");
    const program = `import { Base } from ${JSON.stringify(join(module, "../base.ts"))};
import { Restore } from ${JSON.stringify(module)};
const manifest = Buffer.from(process.env.MANIFEST, "base64");
const restore = await Restore.begin("a", { root: process.env.ROOT, base: new Base("") }, manifest);
await restore.receive((async function* () {})());
await restore.finish();`;
    const manifest = (await writeManifest([directory("workspace"), directory("workspace/kept")])).toString(
      "base64",
    );
    const view = ["--dev-bind", "/", "/", "--tmpfs", join(gone, "deep/mount")];
    const node = [process.execPath, "--input-type=module", "--eval", program];
    const inside = [
      "sh",
      "-c",
      'echo mine >"$MOUNTED"; "$@"; cat "$MOUNTED"; cd "$ROOT/workspace"; ls . gone',
      "sh",
      ...node,
    ];
    const output = execFileSync("bwrap", [...view, ...inside], {
      env: { ...process.env, MANIFEST: manifest, ROOT: root, MOUNTED: join(gone, "deep/mount/file") },
      encoding: "utf8",
    });
    expect(output).toBe("mine\n.:\ngone\nkept\n\ngone:\ndeep\n");
  });

  it("reports a full disk, and can be repeated when there is space", async () => {
    const [disk, source] = [join(root, "disk"), join(outside, "source")];
    for (const path of [disk, source]) mkdirSync(path);
    for (const size of [1_000_000, 1000]) writeFileSync(join(source, `of-${size}`), randomBytes(size));
    const modules = join(repository, "container/sandboxd/snapshots");
    const program = `import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { failureOf } from ${JSON.stringify(join(modules, "../file-error.ts"))};
import { Restore } from ${JSON.stringify(join(modules, "restore.ts"))};
import { Save } from ${JSON.stringify(join(modules, "save.ts"))};
import { Base } from ${JSON.stringify(join(modules, "base.ts"))};
import { Scanner } from ${JSON.stringify(join(modules, "scan.ts"))};
const base = new Base("");
const { DISK, SOURCE } = process.env;
const changes = await new Scanner(SOURCE, () => base).changes(new AbortController().signal);
const save = new Save("a", SOURCE, new Map(), { max: 1e9, repack: [] }, changes);
const pack = await Array.fromAsync(save.pack(new AbortController().signal));
const manifest = await save.manifest();
const restore = async () => {
  const begun = await Restore.begin("a", { root: DISK + "/root", base }, manifest);
  await begun.receive((async function* () { yield* pack; })());
  await begun.finish();
};
mkdirSync(DISK + "/root");
writeFileSync(DISK + "/other", Buffer.alloc(800_000));
const failure = await restore().then(() => undefined, failureOf);
rmSync(DISK + "/other");
await restore();
const isWhole = ["of-1000000", "of-1000"].every((name) =>
  readFileSync(DISK + "/root/" + name).equals(readFileSync(SOURCE + "/" + name)));
console.log(JSON.stringify({ failure, isWhole }));`;
    const view = ["--dev-bind", "/", "/", "--size", "1500000", "--tmpfs", disk];
    const output = execFileSync(
      "bwrap",
      [...view, process.execPath, "--input-type=module", "--eval", program],
      {
        env: { ...process.env, DISK: disk, SOURCE: source },
        encoding: "utf8",
      },
    );
    expect(JSON.parse(output)).toEqual({ failure: { problem: "system", code: "ENOSPC" }, isWhole: true });
  });

  it.each<[string, (pack: Buffer) => Buffer]>([
    ["ends early", (pack) => pack.subarray(0, -1)],
    ["differs in one byte", (pack) => Buffer.from(pack.map((byte, at) => (at === 20 ? byte ^ 1 : byte)))],
    ["has other content", (pack) => Buffer.alloc(pack.length)],
  ])("fails if the data %s", async (_how, change) => {
    const { manifest, pack } = await saved();
    const restore = await Restore.begin("a", { root, base }, manifest);
    await expect(restore.receive(stream(change(pack)))).rejects.toMatchObject({
      failure: { problem: "cut" },
    });
  });
});

describe("a save", () => {
  /** Empty if the link has just disappeared. */
  function readLink(path: string): string[] {
    try {
      return [readlinkSync(path)];
    } catch {
      return [];
    }
  }

  it("of a removed workspace is empty", async () => {
    const removed = join(root, "removed");
    const save = new Save("a", removed, new Map(), { max: 1e9, repack: [] }, await changes(removed));
    for await (const part of save.pack(signal)) expect(part).toBeUndefined();
    expect(await save.finish()).toMatchObject({ files: 0, bytes: 0, packs: [] });
  });

  it("counts and names the files that cannot be saved", async () => {
    execFileSync("mkfifo", [join(root, "pipe")]);
    const server = createServer().listen(join(root, "socket"));
    await once(server, "listening");
    try {
      const save = new Save("a", root, new Map(), { max: 1e9, repack: [] }, await changes(root));
      expect(save.summary.left).toMatchObject({
        count: 0,
        special: { count: 2, names: ["/pipe", "/socket"] },
      });
    } finally {
      server.close();
    }
  });

  it("counts and names the files that it cannot read, and contains the rest", () => {
    writeFileSync(join(root, "file"), "file");
    writeFileSync(join(root, "large"), "x".repeat(100_000), { mode: 0 });
    writeFileSync(join(root, "small"), "x", { mode: 0 });
    linkSync(join(root, "small"), join(root, "smaller"));
    mkdirSync(join(root, "directory"), { mode: 0 });
    chmodSync(join(root, ".."), 0o755);
    const modules = join(repository, "container/sandboxd/snapshots");
    // Root can read everything.
    const program = `import { Save } from ${JSON.stringify(join(modules, "save.ts"))};
import { Base } from ${JSON.stringify(join(modules, "base.ts"))};
import { Scanner } from ${JSON.stringify(join(modules, "scan.ts"))};
if (process.getuid() === 0) process.setuid(65534);
const { signal } = new AbortController();
const changes = await new Scanner(process.env.ROOT, () => new Base("")).changes(signal);
const save = new Save("a", process.env.ROOT, new Map(), { max: 1e9, repack: [] }, changes);
for await (const part of save.pack(signal)) process.stdout.write(part);
console.log(JSON.stringify([save.summary.left.unreadable, (await save.finish()).unreadable]));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
      env: { ...process.env, ROOT: root },
      encoding: "utf8",
    });
    expect(output.slice(0, 4)).toBe("file");
    expect(JSON.parse(output.slice(4))).toEqual([
      { count: 1, names: ["/directory"] },
      { count: 4, names: ["/directory", "/large", "/small", "/smaller"] },
    ]);
  });

  it("frees the space of a file that is deleted while the save reads it, and contains the files around it", async () => {
    for (const name of ["before", "then"]) writeFileSync(join(root, name), name);
    for (const name of ["large", "replaced"]) writeFileSync(join(root, name), randomBytes(3 * BLOB_BYTES));
    const save = new Save("a", root, new Map(), { max: 1e9, repack: [] }, await changes(root));
    let openFiles: string[] = [];
    let parts = 0;
    for await (const part of save.pack(signal)) {
      parts += part.length > 0 ? 1 : 0;
      if (parts === 2) rmSync(join(root, "large"));
      if (parts !== 4) continue;
      openFiles = readdirSync("/proc/self/fd").flatMap((number) => readLink(`/proc/self/fd/${number}`));
      writeFileSync(join(root, "new"), "new");
      renameSync(join(root, "new"), join(root, "replaced"));
    }
    expect(openFiles).toContain(join(root, "replaced"));
    expect(openFiles).not.toContain(`${join(root, "large")} (deleted)`);
    const { entries } = await readManifest(await save.manifest());
    expect(entries.map(({ path }) => path)).toEqual(["before", "replaced", "then"]);
    expect(entries[1]).toMatchObject({ size: 3 * BLOB_BYTES });
  });

  it("that is read again after its connection broke can be restored, although the first reading still runs", async () => {
    for (const name of ["a", "b", "c"]) writeFileSync(join(root, name), name.repeat(3));
    const save = new Save("a", root, new Map(), { max: 1e9, repack: [] }, await changes(root));
    const interrupted = save.pack(signal);
    await interrupted.next();
    const parts: Buffer[] = [];
    for await (const part of save.pack(signal)) {
      parts.push(part);
      await interrupted.next();
    }
    const elsewhere = join(outside, "elsewhere");
    mkdirSync(elsewhere);
    const restore = await Restore.beginIn("a", elsewhere, await save.manifest());
    await restore.receive(
      (async function* () {
        const pack = Buffer.concat(parts);
        for (const { from, to } of restore.reads) yield pack.subarray(from, to);
      })(),
    );
    await restore.finish();
    expect(readdirSync(elsewhere).map((name) => readFileSync(join(elsewhere, name), "utf8"))).toEqual([
      "aaa",
      "bbb",
      "ccc",
    ]);
    expect(await save.finish()).toMatchObject({ files: 3, packs: [{ id: "a", length: 9 }] });
  });

  it("leaves out a file whose directory is replaced by a file while the save reads it", async () => {
    mkdirSync(join(root, "dist"));
    writeFileSync(join(root, "dist/large"), randomBytes(3 * BLOB_BYTES));
    writeFileSync(join(root, "then"), "then");
    const save = new Save("a", root, new Map(), { max: 1e9, repack: [] }, await changes(root));
    let parts = 0;
    for await (const part of save.pack(signal)) {
      parts += part.length > 0 ? 1 : 0;
      if (parts !== 1) continue;
      rmSync(join(root, "dist"), { recursive: true });
      writeFileSync(join(root, "dist"), "a file");
    }
    const { entries } = await readManifest(await save.manifest());
    expect(entries.map(({ path }) => path)).toEqual(["dist", "then"]);
  });

  it("leaves out a sparse file of 10 GB without reading it, because it exceeds the limit", async () => {
    writeFileSync(join(root, "sparse"), "");
    truncateSync(join(root, "sparse"), 10 * 1024 ** 3);
    writeFileSync(join(root, "other"), "other");
    const save = new Save("a", root, new Map(), { max: 1024 ** 3, repack: [] }, await changes(root));
    expect(save.summary.left).toEqual({
      count: 1,
      bytes: 10 * 1024 ** 3,
      largest: [{ path: "/sparse", size: 10 * 1024 ** 3 }],
    });
    for await (const part of save.pack(signal)) expect(part.toString()).toBe("other");
    expect((await save.finish()).files).toBe(1);
  });

  it("of too many files leaves out regenerable directories, and names them", async () => {
    const write = (path: string, count: number) => {
      mkdirSync(join(root, path), { recursive: true });
      for (let n = 0; n < count; n++) writeFileSync(join(root, path, String(n)), "");
    };
    write("node_modules/a", 5);
    write("web/node_modules", 2);
    write("web/src", 3);
    const choose = (maxEntries: number) =>
      new Scanner(root, () => base)
        .changes(signal, { maxEntries })
        .then((entries) => chooseFiles(entries, 100));
    // Directories count too: web, web/src and both node_modules.
    const { chosen, left } = await choose(10);
    expect(chosen.map(({ path }) => path).sort()).toEqual(
      ["node_modules", "web", "web/node_modules", "web/src"]
        .concat(["web/node_modules/0", "web/node_modules/1", "web/src/0", "web/src/1", "web/src/2"])
        .sort(),
    );
    expect(left).toMatchObject({ count: 0, crowded: { count: 1, names: ["/node_modules"] } });
    expect((await choose(15)).left.crowded).toBeUndefined();
    await expect(choose(6)).rejects.toMatchObject({ failure: { problem: "too_large" } });
  });

  it("leaves out sparse files of any size, and reports sizes that the actor accepts", () => {
    const all = ["a", "b", "c"].map((path) => scannedFile(path, 2 ** 63));
    const { left } = chooseFiles([...all, scannedFile("other", 5)], 1024 ** 3);
    const { result } = snapshotRequests.plan;
    expect(result.parse({ state: "changed", files: 1, bytes: 5, left }).left).toMatchObject({ count: 3 });
  });

  it("that does not fit leaves out regenerable directories, then the largest files, and names what it leaves out", () => {
    const all = [
      scannedFile("src/main", 10),
      scannedFile("data", 60),
      scannedFile("video", 90),
      scannedFile("node_modules/a/index", 5),
      scannedFile("node_modules/b/index", 20),
    ];
    const { chosen, left } = chooseFiles(all, 80);
    expect(chosen.map(({ path }) => path)).toEqual(["src/main", "data", "node_modules/a/index"]);
    expect(left).toEqual({
      count: 2,
      bytes: 110,
      largest: [
        { path: "/video", size: 90 },
        { path: "/node_modules", size: 20 },
      ],
    });
  });
});
