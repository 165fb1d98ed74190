/** A snapshot of which much has been replaced since: what is left of its packs lies in pieces. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Entry, writeManifest } from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";

let root: string;

beforeEach(() => {
  root = join(mkdtempSync(join(tmpdir(), "snapshots-")), "root");
  mkdirSync(root);
});
afterEach(() => rmSync(join(root, ".."), { recursive: true, force: true }));

/** Files of which each but the first follows so many bytes of the pack that nothing wants any more. */
function scattered(files: number, gap: number): { entries: Entry[]; pack: Buffer } {
  const pack = Buffer.alloc(files * (gap + 8), "dead");
  const entries = Array.from({ length: files }, (_, number): Entry => {
    const content = Buffer.from(String(number).padStart(8, "0"));
    const offset = number * (gap + 8);
    content.copy(pack, offset);
    const hash = createHash("sha256").update(content).digest("hex");
    const blob = { hash, pack: "a", offset, length: 8, codec: "raw" } as const;
    return { type: "file", path: `${number}`, mode: 0o644, mtime: 0, size: 8, blobs: [blob] };
  });
  return { entries, pack };
}

async function* sent(pack: Buffer, reads: Restore["reads"]): AsyncGenerator<Buffer> {
  for (const { from, to } of reads) yield pack.subarray(from, to);
}

it("asks for pieces that lie close to each other at once", async () => {
  const { entries, pack } = scattered(500, 1000);
  const restore = await Restore.begin("b", root, await writeManifest(entries));
  expect(restore.reads).toEqual([{ pack: "a", from: 0, to: 499 * 1008 + 8 }]);
  await restore.receive(sent(pack, restore.reads));
  await restore.finish();
  for (const number of [0, 1, 250, 499])
    expect(readFileSync(join(root, `${number}`), "utf8")).toBe(String(number).padStart(8, "0"));
});

it("asks for pieces that lie far from each other each for itself", async () => {
  const { entries, pack } = scattered(3, 1024 * 1024);
  const restore = await Restore.begin("b", root, await writeManifest(entries));
  expect(restore.reads).toHaveLength(3);
  await restore.receive(sent(pack, restore.reads));
  await restore.finish();
  expect(readFileSync(join(root, "2"), "utf8")).toBe("00000002");
});

it("takes pieces that overlap, and the same piece under two names", async () => {
  const pack = Buffer.from("abcdefgh");
  const file = (path: string, offset: number, length: number): Entry => {
    const hash = createHash("sha256")
      .update(pack.subarray(offset, offset + length))
      .digest("hex");
    const blob = { hash, pack: "a", offset, length, codec: "raw" } as const;
    return { type: "file", path, mode: 0o644, mtime: 0, size: length, blobs: [blob] };
  };
  const entries = [file("whole", 0, 8), file("part", 2, 3), file("again", 2, 3)];
  const restore = await Restore.begin("b", root, await writeManifest(entries));
  await restore.receive(sent(pack, restore.reads));
  await restore.finish();
  const text = (name: string) => readFileSync(join(root, name), "utf8");
  expect([text("whole"), text("part"), text("again")]).toEqual(["abcdefgh", "cde", "cde"]);
});
