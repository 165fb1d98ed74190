/** One restore: makes the workspace what a manifest says, of contents that are asked for by their places in packs. */
import { createHash } from "node:crypto";
import { constants, type BigIntStats } from "node:fs";
import { chmod, link, lstat, lutimes, mkdir, open, readdir, rm, symlink, utimes } from "node:fs/promises";
import { FileError } from "../file-error.ts";
import { type Read, SNAPSHOT_BLOB_BYTES } from "../protocol.ts";
import { decompressed } from "./codec.ts";
import { type Blob, type Entry, bytesOf, plainBytes, readManifest } from "./manifest.ts";
import { statusOf } from "./scan.ts";
import type { Index } from "./state.ts";

/** Where the bytes of a blob go. */
interface Place {
  path: string;
  offset: number;
}

interface Wanted {
  blob: Blob;
  bytes: number;
  places: Place[];
}

export class Restore {
  readonly id: string;
  readonly #root: string;
  readonly #entries: readonly Entry[];
  readonly #wanted: readonly Wanted[];

  private constructor(id: string, root: string, entries: readonly Entry[]) {
    this.id = id;
    this.#root = root;
    this.#entries = entries;
    this.#wanted = wantedOf(entries);
  }

  /** Removes what is not of the snapshot, and makes its directories and empty files. */
  static async begin(id: string, root: string, manifest: Buffer): Promise<Restore> {
    const { dev } = await lstat(root, { bigint: true });
    const entries = outsideOf(await mountsIn(root, dev), await readManifest(manifest));
    const restore = new Restore(id, root, entries);
    const kept = new Set(entries.filter(({ type }) => type === "directory").map(({ path }) => path));
    await clear(root, "", kept, dev);
    for (const entry of entries) {
      const at = bytesOf(root, entry.path);
      if (entry.type === "directory") await mkdir(at, { recursive: true });
      if (entry.type !== "file") continue;
      const handle = await open(at, NEW_FILE, 0o600);
      try {
        await handle.truncate(entry.size);
      } finally {
        await handle.close();
      }
    }
    return restore;
  }

  /** What of which packs is to be sent, in this order. */
  get reads(): Read[] {
    const reads: Read[] = [];
    for (const { blob } of this.#wanted) {
      const last = reads.at(-1);
      const to = blob.offset + blob.length;
      if (last?.pack === blob.pack && last.to === blob.offset) last.to = to;
      else reads.push({ pack: blob.pack, from: blob.offset, to });
    }
    return reads;
  }

  /** Writes what was asked for. @throws {FileError} `cut` where it ends early or is not what it should be */
  async receive(body: AsyncIterable<Buffer>): Promise<void> {
    const bytes = new Bytes(body);
    for (const { blob, bytes: length, places } of this.#wanted) {
      const stored = await bytes.take(blob.length);
      const content = await decompressed(stored, blob.codec, length).catch(() => undefined);
      if (content?.length !== length || createHash("sha256").update(content).digest("hex") !== blob.hash)
        throw new FileError({ problem: "cut" });
      for (const { path, offset } of places) {
        const handle = await open(bytesOf(this.#root, path), constants.O_WRONLY | constants.O_NOFOLLOW);
        try {
          for (let at = 0; at < content.length;)
            at += (await handle.write(content, at, content.length - at, offset + at)).bytesWritten;
        } finally {
          await handle.close();
        }
      }
    }
  }

  /** Makes the links, sets modes and times, and answers the index of what there is now. */
  async finish(): Promise<Index> {
    const index: Index = new Map();
    for (const entry of this.#entries) {
      const at = bytesOf(this.#root, entry.path);
      if (entry.type === "symlink") {
        await symlink(Buffer.from(entry.target, "latin1"), at);
        await lutimes(at, seconds(entry.mtime), seconds(entry.mtime));
      } else if (entry.type === "hardlink") await link(bytesOf(this.#root, entry.target), at);
      else if (entry.type === "file") {
        await utimes(at, seconds(entry.mtime), seconds(entry.mtime));
        await chmod(at, entry.mode);
      }
    }
    // Directories after what is in them: that changes their times, and may need their permission.
    for (const entry of this.#entries.toReversed()) {
      if (entry.type !== "directory") continue;
      const at = bytesOf(this.#root, entry.path);
      await utimes(at, seconds(entry.mtime), seconds(entry.mtime));
      await chmod(at, entry.mode);
    }
    for (const entry of this.#entries) {
      const stats: BigIntStats = await lstat(bytesOf(this.#root, entry.path), { bigint: true });
      index.set(entry.path, { entry, status: statusOf(stats) });
    }
    return index;
  }
}

/** Microseconds as seconds, which the system cuts off: half of one more keeps them what they were. */
function seconds(microseconds: number): number {
  return (microseconds + 0.5) / 1e6;
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** What is mounted in a directory: the user's own, which is not saved, and must not be changed. */
async function mountsIn(root: string, dev: bigint): Promise<Set<string>> {
  const mounted = new Set<string>();
  for (const name of await readdir(root, { encoding: "latin1" }))
    if ((await lstat(bytesOf(root, name), { bigint: true })).dev !== dev) mounted.add(name);
  return mounted;
}

/** The entries that are not below these directories. */
function outsideOf(mounted: ReadonlySet<string>, entries: readonly Entry[]): Entry[] {
  const isBelow = (path: string) => mounted.has(path.split("/", 1)[0] ?? "");
  return entries.filter(
    (entry) => !isBelow(entry.path) && !(entry.type === "hardlink" && isBelow(entry.target)),
  );
}

/** Removes everything but these directories, on one file system. */
async function clear(root: string, directory: string, kept: ReadonlySet<string>, dev: bigint): Promise<void> {
  const names = await readdir(bytesOf(root, directory), { encoding: "latin1" });
  for (const name of names) {
    const path = directory === "" ? name : `${directory}/${name}`;
    const at = bytesOf(root, path);
    const stats = await lstat(at, { bigint: true });
    // A mount point.
    if (stats.dev !== dev) continue;
    if (stats.isDirectory() && kept.has(path)) {
      await chmod(at, 0o700);
      await clear(root, path, kept, dev);
    } else await rm(at, { recursive: true, force: true });
  }
}

/** Each blob once, in the order of the packs. */
function wantedOf(entries: readonly Entry[]): Wanted[] {
  const wanted = new Map<string, Wanted>();
  for (const entry of entries) {
    if (entry.type !== "file") continue;
    for (const [number, blob] of entry.blobs.entries()) {
      if (!blob) continue;
      const bytes = plainBytes(entry.size, number);
      const key = `${blob.pack} ${blob.offset} ${blob.hash} ${bytes}`;
      const one = wanted.get(key) ?? { blob, bytes, places: [] };
      one.places.push({ path: entry.path, offset: number * SNAPSHOT_BLOB_BYTES });
      wanted.set(key, one);
    }
  }
  return [...wanted.values()].sort(
    ({ blob: a }, { blob: b }) => (a.pack < b.pack ? -1 : a.pack > b.pack ? 1 : 0) || a.offset - b.offset,
  );
}

/** Takes so many bytes after the other from a stream. */
class Bytes {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(body: AsyncIterable<Buffer>) {
    this.#chunks = body[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    if (count > 2 * SNAPSHOT_BLOB_BYTES) throw new FileError({ problem: "cut" });
    const parts: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      if (this.#rest.length === 0) {
        const { value, done } = await this.#chunks.next();
        if (done) throw new FileError({ problem: "cut" });
        this.#rest = value;
      }
      const part = this.#rest.subarray(0, missing);
      this.#rest = this.#rest.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  }
}
