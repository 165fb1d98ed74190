/**
 * Reads image files: the type, size in pixels, and whether the file is complete. It follows the structure without decoding
 * pixels, because the images come from sandboxes, which may be hostile. Only image.py decodes pixels. The data of a PNG that can be
 * shown is decompressed, because a model's API refuses the whole conversation if it cannot decode an image.
 */
import { crc32, inflateSync } from "node:zlib";
import { SHOWN_IMAGE } from "./shapes.ts";

export interface ImageHeader {
  mimeType: ImageType;
  /** Pixels as stored; EXIF may rotate the image. */
  width: number;
  height: number;
  frames: number;
}

type Size = Pick<ImageHeader, "width" | "height">;

/** Whether an image can be shown as it is. */
export function canBeShown({ width, height }: Size, { length }: Uint8Array): boolean {
  const { side, pixels, max } = SHOWN_IMAGE;
  return length <= max && Math.max(width, height) <= side && width * height <= pixels;
}

interface Format {
  signature: RegExp;
  read(bytes: Uint8Array): Size & { frames: number };
}

const FORMATS = {
  "image/png": { signature: /^\u0089PNG\r\n/, read: readPNG },
  "image/jpeg": { signature: /^\u00ff\u00d8\u00ff/, read: readJPEG },
  "image/gif": { signature: /^GIF8[79]a/, read: readGIF },
  "image/webp": { signature: /^RIFF....WEBP/s, read: readWebP },
} satisfies Record<string, Format>;

type ImageType = keyof typeof FORMATS;

export function imageType(bytes: Uint8Array): ImageType | undefined {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  const types = Object.keys(FORMATS) as ImageType[];
  return types.find((type) => FORMATS[type].signature.test(start));
}

/** @throws {Error} with a readable message, for an incomplete file */
export function imageHeader(bytes: Uint8Array, mimeType: ImageType): ImageHeader {
  const header = FORMATS[mimeType].read(bytes);
  if (header.width === 0 || header.height === 0) throw new Error("it has no pixels");
  return { mimeType, ...header };
}

/** The most parts of a file: markers and blocks. This limits the time. Photos of 8 MB have up to 100,000. */
const MAX_PARTS = 250_000;

/**
 * A chunk or segment counts as this many parts, because it takes longer to read. PNGs of 8 MB have at most some
 * thousand chunks.
 */
const PARTS_OF_A_CHUNK = 50;

/** Reads bytes in order. Copies nothing, because files have hundreds of thousands of parts. @throws {Error} at a premature end */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  #parts = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  countParts(count = 1): void {
    this.#parts += count;
    if (this.#parts > MAX_PARTS) throw new Error("it has too many parts");
  }

  /** Skips bytes. @returns where they begin */
  skip(count: number): number {
    if (count < 0 || count > this.left) throw new Error("it is cut off");
    const from = this.#at;
    this.#at += count;
    return from;
  }

  take(count: number): Uint8Array {
    const from = this.skip(count);
    return this.#bytes.subarray(from, this.#at);
  }

  seek(value: number): void {
    const found = this.#bytes.indexOf(value, this.#at);
    if (found < 0) throw new Error("it is cut off");
    this.#at = found;
  }

  text(count: number): string {
    return String.fromCharCode(...this.take(count));
  }

  u8(): number {
    return this.#view.getUint8(this.skip(1));
  }

  u16(isLittleEndian = false): number {
    return this.#view.getUint16(this.skip(2), isLittleEndian);
  }

  u24(): number {
    return this.u16(true) | (this.u8() << 16);
  }

  u32(isLittleEndian = false): number {
    return this.#view.getUint32(this.skip(4), isLittleEndian);
  }
}

/** PNG: chunks with their checksums, up to the last one (PNG, section 5). */
function readPNG(bytes: Uint8Array): Size & { frames: number } {
  const reader = new Reader(bytes);
  reader.skip(8);
  let size: Size | undefined;
  let pixelBytes = { least: 0, most: 0 };
  let frames = 1;
  const data: Uint8Array[] = [];
  for (;;) {
    reader.countParts(PARTS_OF_A_CHUNK);
    const length = reader.u32();
    const chunk = reader.take(4 + length);
    if (crc32(chunk) !== reader.u32()) throw new Error("a checksum is wrong");
    const fields = new Reader(chunk);
    const type = fields.text(4);
    if (size === undefined && (type !== "IHDR" || length !== 13)) throw new Error("it has no header");
    if (size === undefined) {
      size = { width: fields.u32(), height: fields.u32() };
      pixelBytes = pixelBytesOf(size, fields);
    }
    if (type === "acTL" && length === 8) frames = Math.max(1, fields.u32());
    if (type === "IDAT" && length > 0) data.push(chunk.subarray(4));
    if (type === "IEND") break;
  }
  if (data.length === 0) throw new Error("it has no pixels");
  if (canBeShown(size, bytes)) inflatePixels(data, pixelBytes);
  return { ...size, frames };
}

/** The channels of each colour type (PNG, section 11.2.1). */
const CHANNELS: Record<number, number> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

/** How many bytes the data of a PNG have when they are decompressed. @param fields of the header, after the size */
function pixelBytesOf({ width, height }: Size, fields: Reader): { least: number; most: number } {
  const bits = fields.u8() * (CHANNELS[fields.u8()] ?? 1);
  fields.skip(2);
  const isInterlaced = fields.u8() !== 0;
  const least = Math.ceil((width * height * bits) / 8);
  // Each row begins with a byte, and ends with a whole one. Interlaced images have up to twice as many rows.
  if (isInterlaced) return { least, most: least + 4 * (height + 8) };
  const exact = height * (1 + Math.ceil((width * bits) / 8));
  return { least: exact, most: exact };
}

/** @throws {Error} if the data of a PNG are not those of its pixels */
function inflatePixels(data: readonly Uint8Array[], { least, most }: { least: number; most: number }): void {
  const joined = new Uint8Array(data.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of data) {
    joined.set(part, at);
    at += part.length;
  }
  let found: number;
  try {
    found = inflateSync(joined, { maxOutputLength: most }).length;
  } catch {
    throw new Error("its pixels cannot be decompressed");
  }
  if (found < least) throw new Error("some of its pixels are missing");
}

/** JPEG: segments, and the coded data of scans up to the end marker (ITU-T T.81, annex B). */
function readJPEG(bytes: Uint8Array): Size & { frames: number } {
  const reader = new Reader(bytes);
  reader.skip(2);
  let size: Size | undefined;
  let hasScan = false;
  for (;;) {
    const marker = nextMarker(reader);
    if (marker === END_OF_IMAGE) break;
    reader.countParts(PARTS_OF_A_CHUNK);
    const segment = new Reader(reader.take(reader.u16() - 2));
    if (isStartOfFrame(marker)) {
      segment.skip(1);
      const height = segment.u16();
      size = { width: segment.u16(), height };
    }
    hasScan ||= marker === START_OF_SCAN;
  }
  if (!size || !hasScan) throw new Error("it has no pixels");
  return { ...size, frames: 1 };
}

const END_OF_IMAGE = 0xd9;
const START_OF_SCAN = 0xda;

/** The three excluded markers of this range do not begin a frame. */
function isStartOfFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

/** The next marker that has a segment or ends the image. Skips escaped bytes, fill bytes and restart markers. */
function nextMarker(reader: Reader): number {
  for (;;) {
    reader.countParts();
    reader.seek(0xff);
    reader.skip(1);
    const marker = reader.u8();
    const hasNoSegment = marker <= 1 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd7);
    if (!hasNoSegment) return marker;
  }
}

const GIF_TRAILER = 0x3b;
const GIF_EXTENSION = 0x21;
const GIF_IMAGE = 0x2c;

function readGIF(bytes: Uint8Array): Size & { frames: number } {
  const reader = new Reader(bytes);
  reader.skip(6);
  const size = { width: reader.u16(true), height: reader.u16(true) };
  const flags = reader.u8();
  reader.skip(2);
  skipColours(reader, flags);
  let frames = 0;
  for (;;) {
    const kind = reader.u8();
    if (kind === GIF_TRAILER) break;
    if (kind === GIF_EXTENSION) reader.u8();
    else if (kind === GIF_IMAGE) {
      reader.skip(8);
      skipColours(reader, reader.u8());
      reader.u8();
      frames++;
    } else throw new Error("a block has no known kind");
    for (let length = reader.u8(); length > 0; length = reader.u8()) {
      reader.countParts();
      reader.skip(length);
    }
    reader.countParts();
  }
  if (frames === 0) throw new Error("it has no pixels");
  return { ...size, frames };
}

function skipColours(reader: Reader, flags: number): void {
  if (flags & 0x80) reader.skip(3 * 2 ** ((flags & 7) + 1));
}

function readWebP(bytes: Uint8Array): Size & { frames: number } {
  const outer = new Reader(bytes);
  outer.skip(4);
  const reader = new Reader(outer.take(outer.u32(true)));
  reader.skip(4);
  let canvas: Size | undefined;
  let size: Size | undefined;
  let frames = 0;
  while (reader.left > 0) {
    reader.countParts(PARTS_OF_A_CHUNK);
    const type = reader.text(4);
    const length = reader.u32(true);
    const data = new Reader(reader.take(length));
    // Chunks are padded to an even length.
    if (length % 2 === 1 && reader.left > 0) reader.skip(1);
    if (type === "VP8X") {
      data.skip(4);
      canvas = { width: data.u24() + 1, height: data.u24() + 1 };
    }
    if (type === "VP8 ") size ??= lossySize(data);
    if (type === "VP8L") size ??= losslessSize(data);
    if (type === "ANMF") frames++;
  }
  const shown = canvas ?? size;
  if (!shown || (!size && frames === 0)) throw new Error("it has no pixels");
  return { ...shown, frames: Math.max(1, frames) };
}

/** A key frame's size (RFC 6386, section 9.1). */
function lossySize(data: Reader): Size {
  data.skip(6);
  return { width: data.u16(true) & 0x3fff, height: data.u16(true) & 0x3fff };
}

function losslessSize(data: Reader): Size {
  data.skip(1);
  const sizes = data.u32(true);
  return { width: (sizes & 0x3fff) + 1, height: ((sizes >>> 14) & 0x3fff) + 1 };
}
