/** Reads one file for a save, and finds out whether the file changed meanwhile. */
import { createHash } from "node:crypto";
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { codeOf } from "../file-error.ts";
import { isGoneError, statusOf } from "./file-status.ts";
import type { FileEntry } from "./manifest.ts";
import { SNAPSHOT_BLOB_BYTES } from "./snapshot-requests.ts";

/**
 * If a file changed less than this many milliseconds before it was read, it may change again without a new time. So the next
 * save reads it again.
 */
export const RECENT_MS = 100;
const SMALL_BYTES = 64 * 1024;
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** Keeps the file's access time, which shows whether a program has used the file since: see `Mappings`. */
const UNNOTICED = READ | constants.O_NOATIME;
const ZEROS = Buffer.alloc(SNAPSHOT_BLOB_BYTES);

export const hashOf = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
export const isZero = (bytes: Buffer) => bytes.equals(ZEROS.subarray(0, bytes.length));

/** Only the owner of a file, and root, may keep its access time. */
function flagsAfter(error: unknown): number {
  if (codeOf(error) !== "EPERM") throw error;
  return READ;
}

function openUnnoticed(path: Buffer): number {
  try {
    return openSync(path, UNNOTICED);
  } catch (error) {
    return openSync(path, flagsAfter(error));
  }
}

/** Reads small files by blocking calls: asynchronous calls cost ten times as much. */
export class FileRead {
  readonly #path: Buffer;
  readonly #handle: FileHandle | undefined;
  readonly #whole: Buffer | undefined;
  /** The file's status before it was read. */
  readonly stats: BigIntStats;
  readonly #openedAt: number;
  #isClosed = false;

  private constructor(path: Buffer, source: FileHandle | Buffer, stats: BigIntStats, openedAt = Date.now()) {
    this.#path = path;
    if (Buffer.isBuffer(source)) this.#whole = source;
    else this.#handle = source;
    this.stats = stats;
    this.#openedAt = openedAt;
  }

  /** Returns undefined if the path is no longer a file. @throws errors of the system */
  static async open(path: Buffer, size: number): Promise<FileRead | undefined> {
    if (size <= SMALL_BYTES) return FileRead.#openSmall(path);
    const handle = await open(path, UNNOTICED).catch((error: unknown) => open(path, flagsAfter(error)));
    try {
      const stats = await handle.stat({ bigint: true });
      if (stats.isFile()) return new FileRead(path, handle, stats);
    } catch (error) {
      await handle.close();
      throw error;
    }
    await handle.close();
    return undefined;
  }

  static #openSmall(path: Buffer): FileRead | undefined {
    const openedAt = Date.now();
    let file: number | undefined;
    try {
      file = openUnnoticed(path);
      const stats = fstatSync(file, { bigint: true });
      if (!stats.isFile()) return undefined;
      // If the file has grown, the next save reads the added bytes.
      const bytes = Buffer.allocUnsafe(Math.min(SMALL_BYTES, Number(stats.size)));
      const filled = readSync(file, bytes, 0, bytes.length, 0);
      return new FileRead(path, bytes.subarray(0, filled), fstatSync(file, { bigint: true }), openedAt);
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }

  /** Up to `SNAPSHOT_BLOB_BYTES` bytes from an offset; fewer at the end; undefined if unreadable. */
  async next(offset: number): Promise<Buffer | undefined> {
    if (this.#handle === undefined) return this.#whole?.subarray(offset);
    const length = Math.min(SNAPSHOT_BLOB_BYTES, Number(this.stats.size) - offset);
    if (length <= 0) return Buffer.alloc(0);
    const piece = Buffer.allocUnsafe(length);
    try {
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await this.#handle.read(piece, filled, length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return piece.subarray(0, filled);
    } catch {
      return undefined;
    }
  }

  /** Whether a large file has been deleted. A replaced file does not count, because the save needs some version of the file. */
  async isDeleted(): Promise<boolean> {
    if (this.#handle === undefined || (await this.#handle.stat()).nlink > 0) return false;
    try {
      lstatSync(this.#path);
      return false;
    } catch (error) {
      return isGoneError(error);
    }
  }

  /**
   * Closes the file. Returns its status; undefined if the file changed after it was opened. Also undefined if it changed just
   * before it was opened, because its times may then not show another change.
   */
  async end(): Promise<string | undefined> {
    const stats = (await this.#handle?.stat({ bigint: true })) ?? this.stats;
    await this.close();
    const isRecent = Number(stats.ctimeNs / 1_000_000n) > this.#openedAt - RECENT_MS;
    const isWhole = this.#whole === undefined || BigInt(this.#whole.length) === stats.size;
    const status = statusOf(stats);
    return status === statusOf(this.stats) && isWhole && !isRecent ? status : undefined;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#handle?.close();
  }
}

/** Used again for each piece, because new memory costs more than reading and hashing. */
const piece = Buffer.alloc(256 * 1024);

/**
 * Compares a file with its saved content. Returns whether they are the same, and the file's status before it was read.
 * @throws errors of the system
 */
export async function compareContent(
  path: Buffer,
  { size, blobs }: FileEntry,
  turn: () => Promise<void> | undefined,
): Promise<{ isSame: boolean; stats: BigIntStats }> {
  const file = openUnnoticed(path);
  try {
    const stats = fstatSync(file, { bigint: true });
    let at = 0;
    for (const blob of blobs) {
      const end = Math.min(size, at + SNAPSHOT_BLOB_BYTES);
      const hash = createHash("sha256");
      let onlyZeros = true;
      for (let read = 1; read > 0 && at < end; at += read) {
        await turn();
        read = readSync(file, piece, 0, Math.min(piece.length, end - at), at);
        const bytes = piece.subarray(0, read);
        if (blob === null) onlyZeros &&= isZero(bytes);
        else hash.update(bytes);
      }
      if (blob === null ? !onlyZeros : hash.digest("hex") !== blob.hash) return { isSame: false, stats };
    }
    return { isSame: at === size, stats };
  } finally {
    closeSync(file);
  }
}
