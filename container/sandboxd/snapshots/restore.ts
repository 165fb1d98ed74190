/**
 * One restore: makes the workspace what a manifest says, or makes the changes in the system that one says, of contents that
 * are asked for by their places in packs.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { FileError } from "../file-error.ts";
import { MAX_READS, type Read, SNAPSHOT_BLOB_BYTES } from "./calls.ts";
import { decompressed } from "./codec.ts";
import { type Blob, type Entry, bytesOf, plainBytes, readManifest } from "./manifest.ts";
import { statusOf } from "./scan.ts";
import { mayBeSystemFile } from "./system.ts";
import type { Index } from "./state.ts";
import { SideBySide, turns } from "../small-steps.ts";

/** Blobs that are unpacked and written at once. Each takes up to two SNAPSHOT_BLOB_BYTES of memory. */
const WRITTEN_AT_ONCE = 8;

/** Set-user-id and set-group-id bits. */
const SET_ID = 0o6000;

/** Bytes that are written by calls that wait for nothing: others cost ten times what such a write takes. */
const SMALL_BYTES = 64 * 1024;

/** Where the bytes of a blob go. */
interface BlobTarget {
  path: string;
  offset: number;
}

interface WantedBlob {
  blob: Blob;
  bytes: number;
  places: BlobTarget[];
}

export class Restore {
  readonly id: string;
  readonly #root: string;
  readonly #entries: readonly Entry[];
  readonly #blobs: readonly WantedBlob[];
  readonly #reads: Read[];
  /** Where the files of changes are written until all of them are whole, by path. */
  readonly #aside: ReadonlyMap<string, string>;
  readonly #isOfChanges: boolean;

  private constructor(id: string, root: string, entries: readonly Entry[], isOfChanges = false) {
    this.id = id;
    this.#root = root;
    this.#entries = entries;
    this.#isOfChanges = isOfChanges;
    this.#aside = isOfChanges ? temporaryNamesOf(entries) : new Map();
    this.#blobs = distinctBlobs(entries);
    this.#reads = readsOf(this.#blobs);
  }

  /**
   * Removes what is not of the snapshot, and makes its directories and empty files.
   * @param checked is called once the manifest is found to be one, before anything is changed
   */
  static async begin(
    id: string,
    root: string,
    manifest: Buffer,
    checked: () => void = () => undefined,
  ): Promise<Restore> {
    const { dev } = lstatSync(root, { bigint: true });
    const entries = entriesOutside(mountsIn(root, dev), await readManifest(manifest));
    const restore = new Restore(id, root, entries);
    checked();
    await restore.#clear(dev);
    await restore.#makeRoom(dev);
    return restore;
  }

  /**
   * Makes the directories of changes in the system, and empty files beside their places. Only `finish` replaces anything.
   * @throws Error for a manifest of anything else
   */
  static async beginChanges(id: string, root: string, manifest: Buffer): Promise<Restore> {
    const { dev } = lstatSync(root, { bigint: true });
    const entries = await readManifest(manifest, true);
    if (!entries.every(({ path }) => mayBeSystemFile(path))) throw new Error("a path is not of the system");
    const restore = new Restore(id, root, entries, true);
    try {
      await restore.#makeRoom(dev);
    } catch (error) {
      restore.abandon();
      throw error;
    }
    return restore;
  }

  async #clear(dev: bigint): Promise<void> {
    const kept = new Set(this.#entries.filter(({ type }) => type === "directory").map(({ path }) => path));
    await clear(this.#root, "", kept, dev, turns());
  }

  async #makeRoom(dev: bigint): Promise<void> {
    const turn = turns();
    for (const entry of this.#entries) {
      await turn();
      if (entry.type === "directory") {
        if (this.#isOfChanges) await makeDirectory(this.#root, entry.path, dev);
        else mkdirSync(bytesOf(this.#root, entry.path), { recursive: true });
      }
      if (entry.type !== "file") continue;
      const at = this.#contentOf(entry.path);
      // Of an attempt that broke off.
      if (this.#isOfChanges) rmSync(at, { force: true });
      const file = openSync(at, NEW_FILE, 0o600);
      try {
        ftruncateSync(file, entry.size);
      } finally {
        closeSync(file);
      }
    }
  }

  /** Where the content of a file is written. */
  #contentOf(path: string): Buffer {
    return bytesOf(this.#root, this.#aside.get(path) ?? path);
  }

  /** It comes to nothing: of changes nothing is left that no next attempt would replace. */
  abandon(): void {
    for (const path of this.#aside.values()) {
      try {
        rmSync(bytesOf(this.#root, path), { force: true });
      } catch {
        // Its directory is not there, or not what it was.
      }
    }
  }

  /** What of which packs is to be sent, in this order. */
  get reads(): Read[] {
    return this.#reads;
  }

  /** Writes what was asked for. @throws {FileError} `cut` where it ends early or is not what it should be */
  async receive(body: AsyncIterable<Buffer>): Promise<void> {
    const bytes = new Bytes(body);
    const writes = new SideBySide(WRITTEN_AT_ONCE);
    try {
      const reads = this.#reads.values();
      let read: Read | undefined;
      let at = 0;
      for (const { blob, bytes: length, places } of this.#blobs) {
        if (!read || blob.pack !== read.pack || blob.offset < at || blob.offset >= read.to) {
          read = reads.next().value;
          at = read?.from ?? 0;
        }
        await bytes.skip(blob.offset - at);
        at = blob.offset + blob.length;
        const stored = await bytes.take(blob.length);
        await writes.add(() => this.#write({ blob, bytes: length, places }, stored));
      }
      await writes.drain();
    } catch (error) {
      // Nothing is written any more when this has ended, however it does.
      await writes.drain().catch(() => undefined);
      this.abandon();
      throw error;
    }
  }

  async #write({ blob, bytes, places }: WantedBlob, stored: Buffer): Promise<void> {
    const content = await decompressed(stored, blob.codec, bytes).catch(() => undefined);
    if (content?.length !== bytes || createHash("sha256").update(content).digest("hex") !== blob.hash)
      throw new FileError({ problem: "cut" });
    for (const { path, offset } of places) {
      const at = this.#contentOf(path);
      if (content.length <= SMALL_BYTES) writeNow(at, content, offset);
      else await write(at, content, offset);
    }
  }

  /** Gives something to whom it belongs, before its mode is set: a change of the owner takes bits of that away. */
  #own(at: Buffer, { uid, gid }: Entry): void {
    if (!this.#isOfChanges || uid === undefined || gid === undefined) return;
    const now = lstatSync(at);
    if (now.uid === uid && now.gid === gid) return;
    try {
      lchownSync(at, uid, gid);
    } catch (error) {
      // A local sandbox that root did not start has root alone.
      if (!["EINVAL", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }

  /** Makes the links, sets modes and times, and answers the index of what there is now. */
  async finish(): Promise<Index> {
    const index: Index = new Map();
    const turn = turns();
    const { dev } = lstatSync(this.#root, { bigint: true });
    for (const entry of this.#entries) {
      await turn();
      const at = bytesOf(this.#root, entry.path);
      // A file takes the place of another at once: it may be the shell, or a library of what runs.
      if (this.#isOfChanges && entry.type !== "directory")
        await remove(this.#root, entry.path, dev, entry.type === "file");
      if (entry.type === "symlink") {
        symlinkSync(Buffer.from(entry.target, "latin1"), at);
        lutimesSync(at, seconds(entry.mtime), seconds(entry.mtime));
        this.#own(at, entry);
      } else if (entry.type === "hardlink") linkSync(bytesOf(this.#root, entry.target), at);
      else if (entry.type === "file") {
        const written = this.#contentOf(entry.path);
        utimesSync(written, seconds(entry.mtime), seconds(entry.mtime));
        this.#own(written, entry);
        setMode(written, entry.mode);
        if (this.#isOfChanges) renameSync(written, at);
      }
    }
    // Directories after what is in them: that changes their times, and may need their permission.
    for (const entry of this.#entries.toReversed()) {
      await turn();
      if (entry.type !== "directory") continue;
      const at = bytesOf(this.#root, entry.path);
      utimesSync(at, seconds(entry.mtime), seconds(entry.mtime));
      this.#own(at, entry);
      setMode(at, entry.mode);
    }
    // Nothing is compared with changes.
    if (this.#isOfChanges) return index;
    for (const entry of this.#entries) {
      await turn();
      const stats = lstatSync(bytesOf(this.#root, entry.path), { bigint: true });
      index.set(entry.path, { entry, status: statusOf(stats) });
    }
    return index;
  }
}

/** Some 30,000 years, microseconds. */
const FURTHEST_US = 1e18;

/**
 * Microseconds as seconds, which the system cuts off: half of one further from zero keeps them what they were. As text: Node takes a
 * negative number, of a time before 1970, for now. Times further away than a system takes are the furthest that it takes.
 */
function seconds(microseconds: number): string {
  const bounded = Math.max(-FURTHEST_US, Math.min(FURTHEST_US, microseconds));
  return String((bounded + (bounded < 0 ? -0.5 : 0.5)) / 1e6);
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

const IN_PLACE = constants.O_WRONLY | constants.O_NOFOLLOW;

async function write(path: Buffer, content: Buffer, offset: number): Promise<void> {
  const handle = await open(path, IN_PLACE);
  try {
    for (let done = 0; done < content.length;)
      done += (await handle.write(content, done, content.length - done, offset + done)).bytesWritten;
  } finally {
    await handle.close();
  }
}

/** As `write`, by calls that wait for nothing. */
function writeNow(path: Buffer, content: Buffer, offset: number): void {
  const file = openSync(path, IN_PLACE);
  try {
    for (let done = 0; done < content.length;)
      done += writeSync(file, content, done, content.length - done, offset + done);
  } finally {
    closeSync(file);
  }
}

/** What is mounted in a directory: the user's own, which is not saved, and must not be changed. */
function mountsIn(root: string, dev: bigint): Set<string> {
  const mounted = new Set<string>();
  for (const name of readdirSync(root, { encoding: "latin1" }))
    if (lstatSync(bytesOf(root, name), { bigint: true }).dev !== dev) mounted.add(name);
  return mounted;
}

/** The entries that are not below these directories. */
function entriesOutside(mounted: ReadonlySet<string>, entries: readonly Entry[]): Entry[] {
  const isBelow = (path: string) => mounted.has(path.split("/", 1)[0] ?? "");
  return entries.filter(
    (entry) => !isBelow(entry.path) && !(entry.type === "hardlink" && isBelow(entry.target)),
  );
}

/** Removes everything but these directories, on one file system. */
async function clear(
  root: string,
  directory: string,
  kept: ReadonlySet<string>,
  dev: bigint,
  turn: () => Promise<void> | undefined,
): Promise<void> {
  for (const name of readdirSync(bytesOf(root, directory), { encoding: "latin1" })) {
    await turn();
    const path = directory === "" ? name : `${directory}/${name}`;
    const at = bytesOf(root, path);
    const stats = lstatSync(at, { bigint: true });
    // A mount point.
    if (stats.dev !== dev) continue;
    if (!stats.isDirectory()) {
      rmSync(at, { force: true });
      continue;
    }
    chmodSync(at, 0o700);
    await clear(root, path, kept, dev, turn);
    if (kept.has(path)) continue;
    try {
      rmdirSync(at);
    } catch {
      // One in which something is mounted stays.
    }
  }
}

/** Sets a mode. A sandbox that has a directory of the machine may set no set-id bits: there it goes without them. */
function setMode(at: Buffer, mode: number): void {
  try {
    chmodSync(at, mode);
  } catch (error) {
    if ((mode & SET_ID) === 0) throw error;
    chmodSync(at, mode & ~SET_ID);
  }
}

/** A name of its own beside each file. */
function temporaryNamesOf(entries: readonly Entry[]): Map<string, string> {
  const temporaryNames = new Map<string, string>();
  for (const { type, path } of entries)
    if (type === "file")
      temporaryNames.set(
        path,
        `${path.slice(0, path.lastIndexOf("/") + 1)}.sandbox-mcp-${temporaryNames.size}`,
      );
  return temporaryNames;
}

/** What is at a path, on the file system of the root. @throws Error for something mounted */
function statsOf(root: string, path: string, dev: bigint) {
  const stats = lstatSync(bytesOf(root, path), { bigint: true, throwIfNoEntry: false });
  if (stats && stats.dev !== dev) throw new Error("something is mounted in the way");
  return stats;
}

/** Makes a directory, whose parent is one, where there is none. */
async function makeDirectory(root: string, path: string, dev: bigint): Promise<void> {
  if (statsOf(root, path, dev)?.isDirectory()) return;
  await remove(root, path, dev);
  mkdirSync(bytesOf(root, path));
}

/** Removes what is at a path. @param onlyDirectories whether other things stay, which what follows replaces */
async function remove(root: string, path: string, dev: bigint, onlyDirectories = false): Promise<void> {
  const stats = statsOf(root, path, dev);
  if (!stats || (onlyDirectories && !stats.isDirectory())) return;
  const at = bytesOf(root, path);
  if (!stats.isDirectory()) return rmSync(at);
  await clear(root, path, new Set(), dev, turns());
  rmdirSync(at);
}

/** Each blob once, in the order of the packs. */
function distinctBlobs(entries: readonly Entry[]): WantedBlob[] {
  const wanted = new Map<string, WantedBlob>();
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

/** Bytes between two blobs that are sent with them: less than another request takes. */
const GAP_BYTES = 64 * 1024;

/** The ranges that hold the blobs, in their order; the fewer, the more of what nothing wants is sent with them. */
function readsOf(wanted: readonly WantedBlob[]): Read[] {
  for (let gap = GAP_BYTES; ; gap *= 4) {
    const reads: Read[] = [];
    for (const { blob } of wanted) {
      const last = reads.at(-1);
      const to = blob.offset + blob.length;
      const isNext = last?.pack === blob.pack && last.to <= blob.offset && blob.offset - last.to <= gap;
      if (isNext) last.to = to;
      else reads.push({ pack: blob.pack, from: blob.offset, to });
    }
    if (reads.length <= MAX_READS || gap > Number.MAX_SAFE_INTEGER) return reads;
  }
}

/** Takes so many bytes after the other from a stream. */
class Bytes {
  readonly #chunks: AsyncIterator<Buffer>;
  #buffered: Buffer = Buffer.alloc(0);

  constructor(body: AsyncIterable<Buffer>) {
    this.#chunks = body[Symbol.asyncIterator]();
  }

  async skip(count: number): Promise<void> {
    for (let missing = count; missing > 0; missing -= SNAPSHOT_BLOB_BYTES)
      await this.take(Math.min(missing, SNAPSHOT_BLOB_BYTES));
  }

  async take(count: number): Promise<Buffer> {
    if (count > 2 * SNAPSHOT_BLOB_BYTES) throw new FileError({ problem: "cut" });
    const parts: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      if (this.#buffered.length === 0) {
        const { value, done } = await this.#chunks.next();
        if (done) throw new FileError({ problem: "cut" });
        this.#buffered = value;
      }
      const part = this.#buffered.subarray(0, missing);
      this.#buffered = this.#buffered.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  }
}
