/**
 * One restore: applies a manifest's changes to the image, with contents requested from packs (stored objects that hold the
 * contents of many files). It runs before any user program. So a file that is already at a path of the manifest belongs to the
 * image or to an interrupted attempt.
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
import { join } from "node:path";
import { unfinishedName } from "../directories.ts";
import { attempt, FileError, codeOf } from "../file-error.ts";
import { type Read, SNAPSHOT_BLOB_BYTES } from "./snapshot-requests.ts";
import { decompress } from "./codec.ts";
import type { Base } from "./base.ts";
import { entriesFor } from "./image-change.ts";
import { type Blob, type ManifestEntry, bytesOf, plainBytes, readManifest } from "./manifest.ts";
import { statusOf } from "./file-status.ts";
import { parentPath, isOfState, pathIn } from "./scope.ts";
import type { Index } from "./state.ts";
import { BoundedConcurrency, yieldBetweenSteps } from "../small-steps.ts";

/** How many blobs are unpacked and written concurrently. Each takes up to twice SNAPSHOT_BLOB_BYTES of memory. */
const WRITTEN_AT_ONCE = 8;
const SET_ID = 0o6000;
/** Up to this size, content is written by blocking calls: asynchronous calls cost ten times as much. */
const SMALL_BYTES = 64 * 1024;

interface BlobTarget {
  path: string;
  offset: number;
}

interface WantedBlob {
  blob: Blob;
  bytes: number;
  places: BlobTarget[];
}

export interface Place {
  root: string;
  base: Base;
  /** The path to restore; undefined for all. */
  only?: string | undefined;
}

export class Restore {
  readonly id: string;
  /** Parts that were not restored, because the image differs, or because a mount or the server's files are in their place. */
  readonly dropped: readonly string[];
  readonly #root: string;
  readonly #dev: bigint;
  readonly #entries: readonly ManifestEntry[];
  readonly #blobs: readonly WantedBlob[];
  readonly #reads: Read[];
  /** The paths under which new files are written, by target. A new file stays beside its target until all files are complete. */
  readonly #written: ReadonlyMap<string, string>;

  private constructor(
    id: string,
    root: string,
    dev: bigint,
    entries: readonly ManifestEntry[],
    written: ReadonlyMap<string, string>,
    dropped: readonly string[],
  ) {
    this.id = id;
    this.dropped = dropped;
    this.#root = root;
    this.#dev = dev;
    this.#entries = entries;
    this.#written = written;
    this.#blobs = distinctBlobs(entries);
    this.#reads = readsOf(this.#blobs);
  }

  /**
   * Removes the workspace's earlier content, except files of the image, and creates directories and empty files. If something else
   * is at a new directory's path, the directory replaces it. Outside the workspace, existing files stay until `finish` replaces them.
   * @param onChecked called when the manifest is valid, before any change
   * @throws Error for an invalid state
   */
  static async begin(
    id: string,
    { root, base, only }: Place,
    manifest: Buffer,
    onChecked: () => void = () => undefined,
  ): Promise<Restore> {
    const read = await readManifest(manifest);
    if (!read.entries.every(({ path }) => isOfState(path)))
      throw new Error("a path cannot be part of a saved state");
    const selected = read.entries.filter(
      ({ path }) => only === undefined || path === only || path.startsWith(`${only}/`),
    );
    const { entries, dropped } = entriesFor(base, read, selected);
    onChecked();
    const { dev } = lstatSync(only === undefined ? root : join(root, only), { bigint: true });
    const workspace = statsOf(root, "workspace");
    if (workspace?.dev === dev && workspace.isDirectory()) {
      const directories = new Set(entries.filter(({ type }) => type === "directory").map(({ path }) => path));
      const isKept = (path: string) => directories.has(path) || base.stateAt(path) !== undefined;
      await clear(root, "workspace", isKept, dev, yieldBetweenSteps());
    }
    return await Restore.#make(id, root, dev, entries, dropped);
  }

  /** Like `begin`, but into an empty directory. @throws Error for an invalid manifest */
  static async beginIn(id: string, root: string, manifest: Buffer): Promise<Restore> {
    const { dev } = lstatSync(root, { bigint: true });
    return await Restore.#make(id, root, dev, (await readManifest(manifest)).entries, []);
  }

  static async #make(
    id: string,
    root: string,
    dev: bigint,
    entries: readonly ManifestEntry[],
    dropped: readonly string[],
  ): Promise<Restore> {
    const restoredEntries: ManifestEntry[] = [];
    const written = new Map<string, string>();
    const notRestored = new Set<string>();
    const turn = yieldBetweenSteps();
    try {
      for (const [number, entry] of entries.entries()) {
        await turn();
        const { path, type } = entry;
        const stats = statsOf(root, path);
        const isReplaced = type !== "directory" && type !== "removed" && stats?.isDirectory();
        const stays = isReplaced ? mustStay(root, path, dev) : stats !== undefined && stats.dev !== dev;
        const isLost = type === "hardlink" && notRestored.has(entry.target);
        if (stays || isLost || notRestored.has(parentPath(path))) {
          notRestored.add(path);
          continue;
        }
        restoredEntries.push(entry);
        if (type === "directory") await makeDirectory(root, path, dev);
        if (type !== "file") continue;
        const temporaryPath = stats ? pathIn(parentPath(path), temporaryName(number)) : path;
        written.set(path, temporaryPath);
        const at = bytesOf(root, temporaryPath);
        // An interrupted attempt may have left a file here.
        if (stats) rmSync(at, { force: true });
        const file = openSync(at, NEW_FILE, 0o600);
        try {
          ftruncateSync(file, entry.size);
        } finally {
          closeSync(file);
        }
      }
    } catch (error) {
      removeFiles(root, written);
      throw error;
    }
    return new Restore(id, root, dev, restoredEntries, written, [...dropped, ...notRestored]);
  }

  #contentOf(path: string): Buffer {
    return bytesOf(this.#root, this.#written.get(path) ?? path);
  }

  #isAtTemporaryPath(path: string): boolean {
    return this.#written.get(path) !== path;
  }

  abandon(): void {
    removeFiles(this.#root, this.#written);
  }

  get reads(): Read[] {
    return this.#reads;
  }

  async receive(body: AsyncIterable<Buffer>): Promise<void> {
    const bytes = new Bytes(body);
    const writes = new BoundedConcurrency(WRITTEN_AT_ONCE);
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
      // No write continues after this function has returned.
      await writes.drain().catch(() => undefined);
      this.abandon();
      throw error;
    }
  }

  async #write({ blob, bytes, places }: WantedBlob, stored: Buffer): Promise<void> {
    const content = await decompress(stored, blob.codec, bytes).catch(() => undefined);
    if (content?.length !== bytes || createHash("sha256").update(content).digest("hex") !== blob.hash)
      throw new FileError({ problem: "cut" });
    for (const { path, offset } of places) {
      const at = this.#contentOf(path);
      if (content.length <= SMALL_BYTES) writeNow(at, content, offset);
      else await write(at, content, offset);
    }
  }

  /** Call it before `setMode`, because changing the owner clears mode bits. */
  #setOwner(at: Buffer, { uid, gid }: ManifestEntry): void {
    const now = lstatSync(at);
    if (now.uid === uid && now.gid === gid) return;
    try {
      lchownSync(at, uid, gid);
    } catch (error) {
      // A local sandbox that root did not start has only the user root.
      if (!["EINVAL", "EPERM"].includes(codeOf(error) ?? "")) throw error;
    }
  }

  async finish(): Promise<Index> {
    const index: Index = new Map();
    const turn = yieldBetweenSteps();
    for (const entry of this.#entries) {
      await turn();
      const { path, type } = entry;
      const target = bytesOf(this.#root, path);
      if (type === "directory") continue;
      // Files are replaced atomically, because a file may be the running shell, or a library in use.
      if (type !== "file") await remove(this.#root, path, this.#dev);
      else if (this.#isAtTemporaryPath(path)) await remove(this.#root, path, this.#dev, true);
      if (type === "symlink") {
        symlinkSync(Buffer.from(entry.target, "latin1"), target);
        lutimesSync(target, toSeconds(entry.mtime), toSeconds(entry.mtime));
        this.#setOwner(target, entry);
      } else if (type === "hardlink") linkSync(bytesOf(this.#root, entry.target), target);
      else if (type === "file") {
        const written = this.#contentOf(path);
        utimesSync(written, toSeconds(entry.mtime), toSeconds(entry.mtime));
        this.#setOwner(written, entry);
        setMode(written, entry.mode);
        if (this.#isAtTemporaryPath(path)) renameSync(written, target);
      }
    }
    // Directories come after their content: writing the content changes their times and may need their permissions.
    for (const entry of this.#entries.toReversed()) {
      await turn();
      if (entry.type !== "directory") continue;
      const at = bytesOf(this.#root, entry.path);
      utimesSync(at, toSeconds(entry.mtime), toSeconds(entry.mtime));
      this.#setOwner(at, entry);
      setMode(at, entry.mode);
    }
    for (const entry of this.#entries) {
      await turn();
      const stats =
        entry.type === "removed" ? undefined : lstatSync(bytesOf(this.#root, entry.path), { bigint: true });
      const accessed = stats && String(stats.atimeNs);
      index.set(entry.path, { entry, status: stats ? statusOf(stats) : "", accessed });
    }
    return index;
  }
}

/**
 * The name of the new content of the entry with this number. Saves leave files with such names out: with a name that a saved file
 * could have, the two had one content, and each restore failed.
 */
const temporaryName = (number: number) => unfinishedName(`00000000-0-0-0-${number}`);

function removeFiles(root: string, written: ReadonlyMap<string, string>): void {
  for (const path of written.values()) {
    // Fails if the file's directory is missing or was replaced.
    attempt(() => rmSync(bytesOf(root, path), { force: true }), undefined);
  }
}

/** The furthest time before or after 1970, in microseconds: about 30,000 years. */
const FURTHEST_US = 1e18;

/**
 * Converts microseconds to seconds. Adds half a microsecond, because the system rounds down. The result is text, because Node
 * treats negative numbers (times before 1970) as the current time. A time beyond the limit becomes the limit.
 */
function toSeconds(microseconds: number): string {
  const bounded = Math.max(-FURTHEST_US, Math.min(FURTHEST_US, microseconds));
  return String((bounded + 0.5) / 1e6);
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

function writeNow(path: Buffer, content: Buffer, offset: number): void {
  const file = openSync(path, IN_PLACE);
  try {
    for (let done = 0; done < content.length;)
      done += writeSync(file, content, done, content.length - done, offset + done);
  } finally {
    closeSync(file);
  }
}

/**
 * Whether a path must stay, because the path is not part of a state (a mount or a file of the server, for example), or contains
 * such a path.
 */
function mustStay(root: string, path: string, dev: bigint): boolean {
  const stats = statsOf(root, path);
  if (!stats) return false;
  if (stats.dev !== dev || !isOfState(path)) return true;
  return stats.isDirectory() && namesOf(root, path).some((name) => mustStay(root, pathIn(path, name), dev));
}

function namesOf(root: string, directory: string): string[] {
  return readdirSync(bytesOf(root, directory), { encoding: "latin1" });
}

async function clear(
  root: string,
  directory: string,
  isKept: (path: string) => boolean,
  dev: bigint,
  turn: () => Promise<void> | undefined,
): Promise<void> {
  for (const name of namesOf(root, directory)) {
    await turn();
    const path = pathIn(directory, name);
    // Excluded files belong to the image or the server.
    if (!isOfState(path)) continue;
    const pathBytes = bytesOf(root, path);
    const stats = lstatSync(pathBytes, { bigint: true });
    // A mount point.
    if (stats.dev !== dev) continue;
    if (!stats.isDirectory()) {
      if (!isKept(path)) rmSync(pathBytes, { force: true });
      continue;
    }
    chmodSync(pathBytes, 0o700);
    await clear(root, path, isKept, dev, turn);
    if (isKept(path)) continue;
    // Fails if the directory still has excluded files or a mount.
    attempt(() => rmdirSync(pathBytes), undefined);
  }
}

/** In a directory of the host, a sandbox is not allowed to set the set-id bits, so they are dropped. */
function setMode(at: Buffer, mode: number): void {
  try {
    chmodSync(at, mode);
  } catch (error) {
    if ((mode & SET_ID) === 0) throw error;
    chmodSync(at, mode & ~SET_ID);
  }
}

function statsOf(root: string, path: string) {
  return lstatSync(bytesOf(root, path), { bigint: true, throwIfNoEntry: false });
}

async function makeDirectory(root: string, path: string, dev: bigint): Promise<void> {
  if (statsOf(root, path)?.isDirectory()) return;
  await remove(root, path, dev);
  mkdirSync(bytesOf(root, path));
}

/** @param onlyDirectories whether to keep files and links, because the caller replaces them */
async function remove(root: string, path: string, dev: bigint, onlyDirectories = false): Promise<void> {
  const stats = statsOf(root, path);
  if (!stats || stats.dev !== dev || (onlyDirectories && !stats.isDirectory())) return;
  const at = bytesOf(root, path);
  if (!stats.isDirectory()) return rmSync(at);
  await clear(root, path, () => false, dev, yieldBetweenSteps());
  // Fails if the directory still has excluded files or a mount.
  attempt(() => rmdirSync(at), undefined);
}

function distinctBlobs(entries: readonly ManifestEntry[]): WantedBlob[] {
  const wantedBlobs = new Map<string, WantedBlob>();
  for (const entry of entries) {
    if (entry.type !== "file") continue;
    for (const [number, blob] of entry.blobs.entries()) {
      if (!blob) continue;
      const bytes = plainBytes(entry.size, number);
      const key = `${blob.pack} ${blob.offset} ${blob.hash} ${bytes}`;
      const wantedBlob = wantedBlobs.get(key) ?? { blob, bytes, places: [] };
      wantedBlob.places.push({ path: entry.path, offset: number * SNAPSHOT_BLOB_BYTES });
      wantedBlobs.set(key, wantedBlob);
    }
  }
  return [...wantedBlobs.values()].sort(
    ({ blob: a }, { blob: b }) => (a.pack < b.pack ? -1 : a.pack > b.pack ? 1 : 0) || a.offset - b.offset,
  );
}

/** Two ranges with a gap up to this size become one request, because another request takes longer than the gap's bytes. */
const GAP_BYTES = 64 * 1024;

/**
 * The most ranges. Each needs a request to R2, and one more for each 4 MiB. Cloudflare allows an actor 10,000 requests for one event,
 * and the server allows a restore 15 minutes.
 */
const MAX_RANGES = 5000;

/** Merges blobs into at most MAX_RANGES ranges. Larger gaps mean fewer ranges, but more unneeded bytes. */
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
    if (reads.length <= MAX_RANGES || gap > Number.MAX_SAFE_INTEGER) return reads;
  }
}

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
