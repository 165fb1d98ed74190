/**
 * Packs a directory as a ZIP archive while sending it (PKWARE's APPNOTE 6.3). Modes, times and symbolic links are stored as by
 * Info-ZIP on Unix. Memory holds one piece of a file, and about a hundred bytes per file for the central directory; libraries
 * hold a dozen times as much, and search all of it for each file.
 */
import type { Stats } from "node:fs";
import { lstat, readlink } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { crc32, createDeflateRaw, deflateRaw, deflateRawSync } from "node:zlib";
import { FileError, codeOf } from "./file-error.ts";
import { type ListedFile, type OpenedFile, openFile, readRange, textAsBytes, walk } from "./reading.ts";

const PIECE_BYTES = 512 * 1024;
/** Files up to this size are deflated directly: a thread takes longer, and more memory. */
const SMALL_BYTES = 16 * 1024;
/** zlib's smallest output buffer. */
const MIN_CHUNK_BYTES = 64;
/** How many files are opened and read ahead, so that disks cause no waits. */
const AHEAD = 16;
/** The file size from which sizes take eight bytes: deflating makes some files slightly larger. */
const LARGE_BYTES = 0xff00_0000;
const MAX_32 = 0xffff_ffff;
const MAX_16 = 0xffff;
/** Flag bits: sizes follow the data; the name is UTF-8. */
const SIZES_FOLLOW = 1 << 3;
const NAME_IS_UTF8 = 1 << 11;
/** "Made on Unix, by version 6.3", and the version needed to extract. */
const MADE_BY = (3 << 8) | 63;
const NEEDED = 20;
const NEEDED_FOR_LARGE = 45;
/** Set-user-id and set-group-id bits, which would apply to the user who unpacks the archive, perhaps root. */
const SET_ID = 0o6000;
const STORED = 0;
const DEFLATED = 8;
const deflateInThread = promisify(deflateRaw);

interface Entry {
  name: Buffer;
  flags: number;
  method: number;
  stats: Stats;
  offset: number;
  crc: number;
  packed: number;
  size: number;
  isLarge: boolean;
}

interface Ready {
  name: string;
  stats: Stats;
  content?: Buffer;
  deflated?: Buffer;
  opened?: OpenedFile;
}

export async function* zipped(
  root: string,
  signal: AbortSignal,
  largeBytes = LARGE_BYTES,
): AsyncGenerator<Buffer> {
  const archive = new Archive(largeBytes);
  const ahead: Promise<Ready | undefined>[] = [];
  try {
    for await (const found of walk(root, signal)) {
      const ready = prepare(found);
      // It is awaited in its turn, and may fail before that.
      ready.catch(() => undefined);
      ahead.push(ready);
      if (ahead.length === AHEAD) yield* archive.add(await ahead.shift());
    }
    for (let next = ahead.shift(); next; next = ahead.shift()) yield* archive.add(await next);
    yield* archive.end();
  } finally {
    for (const ready of ahead) await ready.then((it) => it?.opened?.handle.close()).catch(() => undefined);
  }
}

async function prepare({ name, path, isFile }: ListedFile): Promise<Ready | undefined> {
  try {
    if (isFile) return await prepareFile(name, await openFile(path));
    const stats = await lstat(path);
    if (stats.isDirectory()) return { name: `${name}/`, stats, content: Buffer.alloc(0) };
    return { name, stats, content: await readlink(path, { encoding: "buffer" }) };
  } catch (error) {
    const isGone = error instanceof FileError && error.failure.problem === "missing";
    if (isGone || codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Parts of a name that leave the directory on systems with backslash separators: a parent, a root, a drive. */
const LEADS_OUT = /(^|[\\/])\.\.([\\/]|$)|^\\|^[A-Za-z]:/;

/** Keeps a name below the target directory, also on Windows. */
function confined(name: string): string {
  return LEADS_OUT.test(name) ? name.replaceAll(/[\\:]/g, "_") : name;
}

async function prepareFile(name: string, opened: OpenedFile): Promise<Ready> {
  const { handle, stats } = opened;
  if (stats.size > PIECE_BYTES) return { name, stats, opened };
  try {
    const content = await readRange(opened, 0, stats.size);
    return { name, stats, content, deflated: await deflate(content) };
  } finally {
    await handle.close();
  }
}

async function deflate(content: Buffer): Promise<Buffer | undefined> {
  const options = { chunkSize: Math.max(MIN_CHUNK_BYTES, content.length) };
  const bytes =
    content.length < SMALL_BYTES ? deflateRawSync(content, options) : await deflateInThread(content, options);
  return bytes.length < content.length ? bytes : undefined;
}

class Archive {
  readonly #largeBytes: number;
  #records: Buffer[] = [];
  #count = 0;
  #offset = 0;

  constructor(largeBytes: number) {
    this.#largeBytes = largeBytes;
  }

  async *add(ready: Ready | undefined): AsyncGenerator<Buffer> {
    if (ready?.opened) yield* this.#addOpened(ready.name, ready.opened);
    else if (ready) yield this.#addWhole(ready);
  }

  #addWhole({ name, stats, content = Buffer.alloc(0), deflated }: Ready): Buffer {
    const data = deflated ?? content;
    const entry = this.#entry(name, stats, deflated ? DEFLATED : STORED);
    Object.assign(entry, { crc: crc32(content), packed: data.length, size: content.length });
    const bytes = this.#sent(Buffer.concat([headerOf(entry), data]));
    this.#record(entry);
    return bytes;
  }

  async *#addOpened(name: string, opened: OpenedFile): AsyncGenerator<Buffer> {
    const { handle, stats } = opened;
    try {
      const isSmaller = (await deflate(await readRange(opened, 0, PIECE_BYTES))) !== undefined;
      const entry = this.#entry(name, stats, isSmaller ? DEFLATED : STORED);
      entry.flags |= SIZES_FOLLOW;
      entry.isLarge = stats.size >= this.#largeBytes;
      yield this.#sent(headerOf(entry));
      // A growing file is packed up to its initial size.
      const source = handle.createReadStream({
        start: 0,
        end: stats.size - 1,
        highWaterMark: PIECE_BYTES,
        autoClose: false,
      });
      const content = counted(source, entry);
      for await (const chunk of isSmaller ? deflatedStream(content) : content) {
        entry.packed += chunk.length;
        yield this.#sent(chunk);
      }
      yield this.#sent(sizesOf(entry));
      this.#record(entry);
    } finally {
      await handle.close();
    }
  }

  *end(): Generator<Buffer> {
    const start = this.#offset;
    for (const record of this.#records) yield this.#sent(record);
    yield endOf(this.#count, start, this.#offset);
  }

  #entry(name: string, stats: Stats, method: number): Entry {
    const bytes = textAsBytes(confined(name));
    const flags = isUTF8(bytes) ? NAME_IS_UTF8 : 0;
    const unknown = { crc: 0, packed: 0, size: 0, isLarge: false };
    return { name: bytes, flags, method, stats, offset: this.#offset, ...unknown };
  }

  #sent(bytes: Buffer): Buffer {
    this.#offset += bytes.length;
    return bytes;
  }

  #record(entry: Entry): void {
    this.#count++;
    this.#records.push(recordOf(entry));
  }
}

async function* counted(content: AsyncIterable<Buffer>, entry: Entry): AsyncGenerator<Buffer> {
  for await (const chunk of content) {
    entry.crc = crc32(chunk, entry.crc);
    entry.size += chunk.length;
    yield chunk;
  }
}

async function* deflatedStream(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const packer = createDeflateRaw({ chunkSize: PIECE_BYTES / 4 });
  // If this fails, so does reading the packer.
  pipeline(content, packer).catch(() => undefined);
  yield* packer;
}

function headerOf(entry: Entry): Buffer {
  // The sizes follow the data; they are unknown here.
  const extra = entry.isLarge ? extraOf(1, [0, 0]) : Buffer.alloc(0);
  const header = describe(new Fields(30).u32(0x04034b50), entry, entry.isLarge, extra);
  return Buffer.concat([header.bytes, entry.name, extra]);
}

function describe(fields: Fields, entry: Entry, isLong: boolean, extra: Buffer): Fields {
  const { name, flags, method, stats, crc, packed, size, isLarge } = entry;
  return fields
    .u16(isLong ? NEEDED_FOR_LARGE : NEEDED)
    .u16(flags)
    .u16(method)
    .u32(dosTime(stats.mtime))
    .u32(crc)
    .u32(isLarge ? MAX_32 : packed)
    .u32(isLarge ? MAX_32 : size)
    .u16(name.length)
    .u16(extra.length);
}

function sizesOf({ crc, packed, size, isLarge }: Entry): Buffer {
  const fields = new Fields(isLarge ? 24 : 16).u32(0x08074b50).u32(crc);
  return isLarge ? fields.u64(packed).u64(size).bytes : fields.u32(packed).u32(size).bytes;
}

function recordOf(entry: Entry): Buffer {
  const { name, stats, offset, packed, size, isLarge } = entry;
  const long = [...(isLarge ? [size, packed] : []), ...(offset >= MAX_32 ? [offset] : [])];
  const extra = Buffer.concat([timeExtra(stats.mtime), long.length > 0 ? extraOf(1, long) : Buffer.alloc(0)]);
  const record = describe(new Fields(46).u32(0x02014b50).u16(MADE_BY), entry, long.length > 0, extra)
    // Comment, disk and internal attributes: none.
    .u16(0)
    .u16(0)
    .u16(0)
    .u16(0)
    .u16(stats.mode & MAX_16 & ~SET_ID)
    .u32(Math.min(offset, MAX_32));
  return Buffer.concat([record.bytes, name, extra]);
}

function endOf(count: number, start: number, end: number): Buffer {
  const isLarge = count >= MAX_16 || end >= MAX_32;
  const large = new Fields(76)
    .u32(0x06064b50)
    .u64(44)
    .u16(MADE_BY)
    .u16(NEEDED_FOR_LARGE)
    .u32(0)
    .u32(0)
    .u64(count)
    .u64(count)
    .u64(end - start)
    .u64(start)
    .u32(0x07064b50)
    .u32(0)
    .u64(end)
    .u32(1);
  const plain = new Fields(22)
    .u32(0x06054b50)
    .u16(0)
    .u16(0)
    .u16(Math.min(count, MAX_16))
    .u16(Math.min(count, MAX_16))
    .u32(Math.min(end - start, MAX_32))
    .u32(Math.min(start, MAX_32))
    .u16(0);
  return isLarge ? Buffer.concat([large.bytes, plain.bytes]) : plain.bytes;
}

function extraOf(id: number, numbers: readonly number[]): Buffer {
  const fields = new Fields(4 + 8 * numbers.length).u16(id).u16(8 * numbers.length);
  for (const number of numbers) fields.u64(number);
  return fields.bytes;
}

/** Always UTC; the MS-DOS time has no time zone. */
function timeExtra(time: Date): Buffer {
  const seconds = Math.floor(time.getTime() / 1000);
  const bounded = Math.min(Math.max(seconds, -(2 ** 31)), 2 ** 31 - 1);
  return new Fields(9)
    .u16(0x5455)
    .u16(5)
    .u8(1)
    .u32(bounded >>> 0).bytes;
}

/** The MS-DOS time, from 1980 in steps of two seconds; here in UTC. */
function dosTime(time: Date): number {
  const year = time.getUTCFullYear() - 1980;
  if (!(year >= 0)) return (1 << 21) | (1 << 16);
  if (year > 127) return ((127 << 25) | (12 << 21) | (31 << 16)) >>> 0;
  const date = (year << 9) | ((time.getUTCMonth() + 1) << 5) | time.getUTCDate();
  const clock =
    (time.getUTCHours() << 11) | (time.getUTCMinutes() << 5) | Math.floor(time.getUTCSeconds() / 2);
  return ((date << 16) | clock) >>> 0;
}

function isUTF8(bytes: Buffer): boolean {
  return Buffer.from(bytes.toString("utf8")).equals(bytes);
}

class Fields {
  readonly bytes: Buffer;
  #at = 0;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
  }

  u8(value: number): this {
    this.#at = this.bytes.writeUInt8(value, this.#at);
    return this;
  }

  u16(value: number): this {
    this.#at = this.bytes.writeUInt16LE(value, this.#at);
    return this;
  }

  u32(value: number): this {
    this.#at = this.bytes.writeUInt32LE(value, this.#at);
    return this;
  }

  u64(value: number): this {
    this.#at = this.bytes.writeBigUInt64LE(BigInt(value), this.#at);
    return this;
  }
}
