/** Reading files: ranges of bytes and of lines, listings, disk usage. */
import { createHash } from "node:crypto";
import type { Stats } from "node:fs";
import { constants, fstatSync, readSync, statSync } from "node:fs";
import { type FileHandle, lstat, open, readdir, stat } from "node:fs/promises";
import { FileError, withFileErrors, toFileError } from "./file-error.ts";
import type { Call, FileRequests } from "./operations.ts";
import { remember } from "./remember.ts";
import { RESPONSE_BYTES, type FileStat, type ListedEntry, boundedSize } from "./shapes.ts";

const CHUNK_BYTES = 256 * 1024;
const LINE_FEED = 10;

/**
 * The sandbox's own file systems. On these file systems, a blocking read of a small file takes less time than a read in a thread.
 * Other file systems may be on a network.
 */
const OWN_DEVICES = new Set(
  ["/", "/workspace", "/tmp"].map((path) => statSync(path, { throwIfNoEntry: false })?.dev),
);
const SMALL_BYTES = 64 * 1024;

interface OpenedFile {
  handle: FileHandle;
  stats: Stats;
}

/** Opens a regular file for reading. Refuses anything else: opening a pipe can block, and opening a device can have effects. */
export async function openFile(path: string): Promise<OpenedFile> {
  try {
    const found = await stat(path);
    refuseOthers(found);
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = OWN_DEVICES.has(found.dev) ? fstatSync(handle.fd) : await handle.stat();
    try {
      // Something else may have replaced the file between `stat` and `open`.
      refuseOthers(stats);
      return { handle, stats };
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (error) {
    throw error instanceof FileError ? error : toFileError(error);
  }
}

export function refuseOthers(stats: Stats): void {
  if (stats.isDirectory()) throw new FileError({ problem: "directory" });
  if (!stats.isFile()) throw new FileError({ problem: "special" });
}

async function readAt(
  { handle, stats }: OpenedFile,
  buffer: Buffer,
  length: number,
  position: number,
): Promise<number> {
  if (length <= SMALL_BYTES && OWN_DEVICES.has(stats.dev))
    return readSync(handle.fd, buffer, 0, length, position);
  return (await handle.read(buffer, 0, length, position)).bytesRead;
}

export async function readRange(opened: OpenedFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let read = 0;
  while (read < length) {
    const bytesRead = await readAt(opened, bytes.subarray(read), length - read, offset + read);
    if (bytesRead === 0) break;
    read += bytesRead;
  }
  return bytes.subarray(0, read);
}

/** The latest time of a JavaScript Date, in milliseconds since the epoch. A program can set a file's time to any value. */
const MAX_DATE_MS = 8.64e15;

export function modifiedOf({ mtimeMs }: Stats): number {
  return Math.min(MAX_DATE_MS, Math.max(-MAX_DATE_MS, Math.floor(mtimeMs)));
}

/** @param isWanted whether the client still waits for the digest */
export async function statOf(
  { path, digest }: Call<FileRequests["stat"]>,
  isWanted: () => boolean,
): Promise<FileStat> {
  const stats = await withFileErrors(stat(path));
  const modified = modifiedOf(stats);
  if (stats.isDirectory()) return { type: "directory", size: 0, modified };
  const opened = await openFile(path);
  try {
    const size = boundedSize(opened.stats.size);
    return { type: "file", size, modified, sha256: digest ? await digestOf(opened, isWanted) : undefined };
  } finally {
    await opened.handle.close();
  }
}

/** The time limit of a digest, in milliseconds: a gigabyte takes about one second. */
const DIGEST_MS = 20_000;

/** A file's SHA-256 in hexadecimal; undefined if it takes too long, or the file changes meanwhile. */
async function digestOf({ handle, stats }: OpenedFile, isWanted: () => boolean): Promise<string | undefined> {
  const deadline = performance.now() + DIGEST_MS;
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let position = 0; ;) {
    const { bytesRead } = await handle.read(buffer, 0, CHUNK_BYTES, position);
    if (bytesRead === 0) {
      const { size, mtimeMs, ctimeMs } = await handle.stat();
      const isSame = size === stats.size && mtimeMs === stats.mtimeMs && ctimeMs === stats.ctimeMs;
      return isSame ? hash.digest("hex") : undefined;
    }
    hash.update(buffer.subarray(0, bytesRead));
    position += bytesRead;
    if (performance.now() > deadline || !isWanted()) return undefined;
  }
}

/** The number of lines of files that were read lately. */
const lineCounts = new Map<string, number>();
const MAX_LINE_COUNTS = 64;

export async function readLines(
  opened: OpenedFile,
  { offset, limit, max }: Call<FileRequests["readLines"]>,
  isWanted: () => boolean,
): Promise<{ bytes: Buffer; lines: number }> {
  const { dev, ino, size, mtimeMs, ctimeMs } = opened.stats;
  // Files in /proc and /sys report size 0 whatever they contain.
  const key = size > 0 ? `${dev} ${ino} ${size} ${mtimeMs} ${ctimeMs}` : undefined;
  const known = key === undefined ? undefined : lineCounts.get(key);
  const parts: Buffer[] = [];
  let takenBytes = 0;
  let breaks = 0;
  let endsWithoutBreak = false;
  let isDone = false;
  let isComplete = false;
  // The wanted lines are between these numbers of line breaks.
  const breaksBefore = offset - 1;
  const breaksThrough = breaksBefore + limit;
  const buffer = Buffer.allocUnsafe(size > 0 ? Math.min(size, CHUNK_BYTES) : CHUNK_BYTES);
  for (let position = 0; isWanted();) {
    const bytesRead = await readAt(opened, buffer, buffer.length, position);
    isComplete = bytesRead === 0;
    if (isComplete) break;
    position += bytesRead;
    const chunk = buffer.subarray(0, bytesRead);
    let from = breaks >= breaksBefore ? 0 : bytesRead;
    let to = bytesRead;
    for (let at = chunk.indexOf(LINE_FEED); at >= 0; at = chunk.indexOf(LINE_FEED, at + 1)) {
      breaks++;
      if (breaks === breaksBefore) from = at + 1;
      if (breaks === breaksThrough) to = at + 1;
    }
    endsWithoutBreak = chunk[bytesRead - 1] !== LINE_FEED;
    if (!isDone && from < to) {
      const part = Buffer.from(chunk.subarray(from, Math.min(to, from + max - takenBytes)));
      parts.push(part);
      takenBytes += part.length;
    }
    isDone ||= breaks >= breaksThrough || takenBytes >= max;
    if (isDone && known !== undefined) return { bytes: Buffer.concat(parts), lines: known };
  }
  const lines = breaks + (endsWithoutBreak ? 1 : 0);
  // If the client has disconnected, some lines were not counted.
  if (key !== undefined && isComplete) remember(lineCounts, key, lines, MAX_LINE_COUNTS);
  return { bytes: Buffer.concat(parts), lines };
}

/** A list may have this many entries more than its limit before it is sorted and cut. */
const KEPT_ENTRIES = 20_000;

/** Lists the entries after a cursor, sorted by the bytes of their paths. Follows no links, and skips unreadable entries. */
export async function listDirectory(
  { path, depth, limit, after: cursor = "" }: Call<FileRequests["list"]>,
  isWanted: () => boolean,
): Promise<{ entries: ListedEntry[]; next?: string }> {
  if (!(await withFileErrors(stat(path))).isDirectory()) throw new FileError({ problem: "not_directory" });
  const root = bytesAsText(path);
  const after = nameOf(cursor);
  // File names are bytes. Latin-1 keeps each byte, and sorts like bytes.
  let names: string[] = [];
  /** The last name before those that were dropped. */
  let cutAfter: string | undefined;
  const directories = [{ prefix: "", depth }];
  for (let next = directories.pop(); next && isWanted(); next = directories.pop()) {
    const { prefix } = next;
    const inside = await readdir(textAsBytes(`${root}/${prefix}`), {
      encoding: "latin1",
      withFileTypes: true,
    }).catch((error: unknown) => {
      if (prefix === "") throw toFileError(error);
      return [];
    });
    for (const entry of inside) {
      const name = `${prefix}${entry.name}`;
      if (name > after) names.push(name);
      const below = `${name}/`;
      const isDone = below < after && !after.startsWith(below);
      if (next.depth > 1 && entry.isDirectory() && !isDone)
        directories.push({ prefix: below, depth: next.depth - 1 });
    }
    if (names.length > limit + KEPT_ENTRIES) {
      names = sortByBytes(names).slice(0, limit);
      cutAfter = names.at(-1);
    }
  }
  const entries: ListedEntry[] = [];
  let bytes = 0;
  let last = "";
  for (const name of sortByBytes(names)) {
    if (!isWanted() || (cutAfter !== undefined && name > cutAfter)) break;
    if (entries.length >= limit || bytes > RESPONSE_BYTES / 2) return { entries, next: cursorOf(last) };
    last = name;
    const stats = await lstat(textAsBytes(`${root}/${name}`)).catch(() => undefined);
    if (!stats) continue;
    const entry = {
      path: textAsBytes(name).toString("utf8"),
      type: typeOf(stats),
      size: boundedSize(stats.size),
      modified: Math.floor(modifiedOf(stats) / 1000) * 1000,
    };
    bytes += JSON.stringify(entry).length;
    entries.push(entry);
  }
  return cutAfter === undefined ? { entries } : { entries, next: cursorOf(cutAfter) };
}

/** Encodes bytes, because a name can be invalid UTF-8. */
function cursorOf(name: string): string {
  return name.replace(/[^A-Za-z0-9_.~/-]/g, (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function nameOf(cursor: string): string {
  return cursor.replace(/%([0-9a-f]{2})/g, (_, byte: string) => String.fromCharCode(parseInt(byte, 16)));
}

function typeOf(stats: Stats): ListedEntry["type"] {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "symlink" : "other";
}

function sortByBytes(names: string[]): string[] {
  return names.sort((a, b) => (a < b ? -1 : Number(a > b)));
}

function bytesAsText(text: string): string {
  return Buffer.from(text).toString("latin1");
}

function textAsBytes(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

const USAGE_MS = 4000;
const MAX_CONCURRENT_STATS = 64;

/** Adds up the sizes of files. Skips mounts, which are not part of the sandbox. @returns undefined if this takes too long */
export async function diskUsage(path: string): Promise<number | undefined> {
  const deadline = performance.now() + USAGE_MS;
  const { dev } = await withFileErrors(stat(path));
  const linked = new Set<number>();
  let bytes = 0;
  const directories = [bytesAsText(path)];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const directory = next;
    const names = await readdir(textAsBytes(directory), { encoding: "latin1" }).catch(() => []);
    for (let at = 0; at < names.length; at += MAX_CONCURRENT_STATS) {
      if (performance.now() > deadline) return undefined;
      const some = names.slice(at, at + MAX_CONCURRENT_STATS).map(async (name) => {
        const below = `${directory}/${name}`;
        const stats = await lstat(textAsBytes(below)).catch(() => undefined);
        if (stats?.dev !== dev) return;
        if (stats.isDirectory()) return void directories.push(below);
        if (stats.nlink > 1 && linked.has(stats.ino)) return;
        if (stats.nlink > 1) linked.add(stats.ino);
        bytes += stats.size;
      });
      await Promise.all(some);
    }
  }
  return boundedSize(bytes);
}
