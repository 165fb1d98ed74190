/** Saved states as sandboxd reads and writes them: whoever made a manifest, nothing of it leads out of the workspace. */
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Entry } from "../../container/sandboxd/snapshots/manifest.ts";
import { readManifest, writeManifest } from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { choose } from "../../container/sandboxd/snapshots/scan.ts";

let root: string;
let outside: string;

beforeEach(() => {
  // On the file system of `/`, as a workspace is.
  const directory = mkdtempSync(join(tmpdir(), "snapshots-"));
  root = join(directory, "root");
  outside = join(directory, "outside");
  mkdirSync(root);
  mkdirSync(outside);
});
afterEach(() => rmSync(join(root, ".."), { recursive: true, force: true }));

const { signal } = new AbortController();
const common = { mode: 0o644, mtime: 0 };
const directory = (path: string): Entry => ({ type: "directory", path, ...common, mode: 0o755 });
const file = (path: string): Entry => ({ type: "file", path, ...common, size: 0, blobs: [] });
const link = (path: string, target: string): Entry => ({ type: "symlink", path, ...common, target });

describe("a manifest", () => {
  it.each<[string, Entry[]]>([
    ["a path above the workspace", [file("../outside/file")]],
    ["a path that goes up on the way", [directory("a"), file("a/../../outside/file")]],
    ["an absolute path", [file("/etc/passwd")]],
    ["no path", [file("")]],
    ["a path with an empty part", [directory("a"), file("a//b")]],
    ["a path that ends with a slash", [directory("a"), file("a/")]],
    ["a path with NUL", [file("a\0b")]],
    ["characters of which Latin-1 would make slashes", [file(".į..į.")]],
    ["a file behind a symbolic link", [link("a", "../outside"), file("a/file")]],
    ["a directory behind a symbolic link", [link("a", "../outside"), directory("a/b")]],
    ["a link that takes a directory's place", [directory("a"), link("a", "../outside"), file("a/file")]],
    ["a file without its directory", [file("a/file")]],
    [
      "a hard link to what is not there",
      [{ type: "hardlink", path: "a", ...common, target: "../outside/file" }],
    ],
    [
      "a hard link to a symbolic link",
      [link("b", "/etc/passwd"), { type: "hardlink", path: "a", ...common, target: "b" }],
    ],
    ["a file that is longer than its content", [{ type: "file", path: "a", ...common, size: 1, blobs: [] }]],
    ["a mode beyond the bits there are", [{ ...file("a"), mode: 0o10000 } as Entry]],
  ])("with %s is refused, and nothing is touched", async (_what, entries) => {
    writeFileSync(join(root, "before"), "there");
    const manifest = await writeManifest(entries);
    await expect(readManifest(manifest)).rejects.toThrow();
    await expect(Restore.begin("a", root, manifest)).rejects.toThrow();
    expect(readdirSync(root)).toEqual(["before"]);
    expect(readdirSync(outside)).toEqual([]);
  });

  it("of the right form is taken, over symbolic links that were in the way before", async () => {
    writeFileSync(join(outside, "file"), "mine");
    symlinkSync(outside, join(root, "a"));
    symlinkSync(join(outside, "file"), join(root, "b"));
    const restore = await Restore.begin(
      "a",
      root,
      await writeManifest([directory("a"), file("a/file"), file("b"), link("c", "../outside")]),
    );
    await restore.receive((async function* () {})());
    await restore.finish();
    expect(readFileSync(join(outside, "file"), "utf8")).toBe("mine");
    expect(readFileSync(join(root, "a/file"), "utf8")).toBe("");
    expect(readFileSync(join(root, "b"), "utf8")).toBe("");
  });
});

describe("a restore", () => {
  async function saved(): Promise<{ manifest: Buffer; pack: Buffer }> {
    writeFileSync(join(root, "text"), "x".repeat(10_000));
    writeFileSync(join(root, "other"), "y".repeat(10_000));
    const save = await Save.plan("a", root, new Map(), { max: 1e9, repack: [] }, signal);
    const parts: Buffer[] = [];
    for await (const part of save.pack(signal)) parts.push(part);
    return { manifest: await save.manifest(), pack: Buffer.concat(parts) };
  }
  const stream = async function* (bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
  };

  it("has what was saved, however its bytes come", async () => {
    const { manifest, pack } = await saved();
    writeFileSync(join(root, "later"), "z");
    const restore = await Restore.begin("a", root, manifest);
    expect(restore.reads).toEqual([{ pack: "a", from: 0, to: pack.length }]);
    await restore.receive(stream(pack));
    await restore.finish();
    expect(readdirSync(root).sort()).toEqual(["other", "text"]);
    expect(readFileSync(join(root, "text"), "utf8")).toBe("x".repeat(10_000));
  });

  it.each<[string, (pack: Buffer) => Buffer]>([
    ["breaks off", (pack) => pack.subarray(0, -1)],
    ["is changed by a byte", (pack) => Buffer.from(pack.map((byte, at) => (at === 20 ? byte ^ 1 : byte)))],
    ["is something else", (pack) => Buffer.alloc(pack.length)],
  ])("fails where what comes %s", async (_how, change) => {
    const { manifest, pack } = await saved();
    const restore = await Restore.begin("a", root, manifest);
    await expect(restore.receive(stream(change(pack)))).rejects.toMatchObject({
      failure: { problem: "cut" },
    });
  });
});

describe("a save", () => {
  it("that does not fit leaves out what can be made again, then the largest, and says so", () => {
    const found = (path: string, size: number) => ({
      path,
      size,
      type: "file" as const,
      mode: 0o644,
      mtime: 0,
      status: "",
    });
    const all = [
      found("src/main", 10),
      found("data", 60),
      found("video", 90),
      found("node_modules/a/index", 5),
      found("node_modules/b/index", 20),
    ];
    const { chosen, left } = choose(all, 80);
    expect(chosen.map(({ path }) => path)).toEqual(["src/main", "data", "node_modules/a/index"]);
    expect(left).toEqual({
      count: 2,
      bytes: 110,
      largest: [
        { path: "video", size: 90 },
        { path: "node_modules", size: 20 },
      ],
    });
  });
});
