/**
 * Readers of image formats, which check a file from the first byte to the last. Their memory does not grow with the number
 * of pixels, as a decoder's does: 8,000 x 8,000 pixels take twice the memory of a Worker. Of PNG, the pixels are inflated
 * and all checksums compared. Of the other formats, the structure is checked: decoders show errors within the coded data
 * as wrong pixels.
 */

/** The longest side, in pixels, that providers of models accept. Larger images are not read to their end. */
export const IMAGE_SIDE = 8000;

export interface ImageHeader {
  /** Pixels. */
  width: number;
  height: number;
}

/** Bytes read one after the other. */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  take(count: number): Uint8Array {
    if (count < 0 || count > this.left) throw new Error("it is cut off");
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  text(count: number): string {
    return String.fromCharCode(...this.take(count));
  }

  u8(): number {
    this.take(1);
    return this.#view.getUint8(this.at - 1);
  }

  u16(littleEndian = false): number {
    this.take(2);
    return this.#view.getUint16(this.at - 2, littleEndian);
  }

  u24(): number {
    const [low = 0, middle = 0, high = 0] = this.take(3);
    return low | (middle << 8) | (high << 16);
  }

  u32(littleEndian = false): number {
    this.take(4);
    return this.#view.getUint32(this.at - 4, littleEndian);
  }
}

function sized(width: number, height: number): ImageHeader {
  if (width === 0 || height === 0) throw new Error("it has no pixels");
  return { width, height };
}

/** Samples of a pixel and the bits that one may have, by colour type (PNG, section 11.2.1). */
const PNG_COLOURS: Record<number, { samples: number; bits: readonly number[] }> = {
  0: { samples: 1, bits: [1, 2, 4, 8, 16] },
  2: { samples: 3, bits: [8, 16] },
  3: { samples: 1, bits: [1, 2, 4, 8] },
  4: { samples: 2, bits: [8, 16] },
  6: { samples: 4, bits: [8, 16] },
};

/** Where the seven passes of an interlaced PNG begin, and their steps: x, y, dx, dy (PNG, section 8.2). */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

export async function readPNG(bytes: Uint8Array): Promise<ImageHeader> {
  const reader = new Reader(bytes);
  if (reader.text(8) !== "\u0089PNG\r\n\u001a\n") throw new Error("its signature is not valid");
  const header = chunk(reader);
  if (header.type !== "IHDR" || header.data.length !== 13) throw new Error("it has no header");
  const fields = new Reader(header.data);
  const { width, height } = sized(fields.u32(), fields.u32());
  const [bits, colour, compression, filter, interlace] = [0, 0, 0, 0, 0].map(() => fields.u8());
  const { samples = 0, bits: allowed = [] } = PNG_COLOURS[colour ?? -1] ?? {};
  if (!allowed.includes(bits ?? 0) || compression !== 0 || filter !== 0 || (interlace ?? 2) > 1)
    throw new Error("its header is not valid");
  const pieces: Uint8Array[] = [];
  let palette = false;
  for (;;) {
    const { type, data } = chunk(reader);
    if (type === "IDAT") pieces.push(data);
    if (type === "PLTE") palette = data.length > 0 && data.length % 3 === 0;
    if (type === "IEND") break;
  }
  if (colour === 3 && !palette) throw new Error("it has no palette");
  if (Math.max(width, height) <= IMAGE_SIDE) {
    const rows = rowsOf(width, height, samples * (bits ?? 0), interlace === 1);
    await inflateRows(new Blob(pieces as Uint8Array<ArrayBuffer>[]), rows);
  }
  return { width, height };
}

/** The next chunk of a PNG, whose checksum is right. */
function chunk(reader: Reader): { type: string; data: Uint8Array } {
  const length = reader.u32();
  const checked = reader.take(4 + length);
  const type = String.fromCharCode(...checked.subarray(0, 4));
  if (crc32(checked) !== reader.u32()) throw new Error(`the checksum of ${JSON.stringify(type)} is wrong`);
  return { type, data: checked.subarray(4) };
}

/** The bytes of each row of a PNG as it is stored, its filter's byte included, with how many rows there are of that. */
function rowsOf(width: number, height: number, pixelBits: number, interlaced: boolean): [number, number][] {
  const row = (pixels: number) => 1 + Math.ceil((pixels * pixelBits) / 8);
  if (!interlaced) return [[row(width), height]];
  return ADAM7.map(([x, y, dx, dy]): [number, number] => {
    const [pixels, rows] = [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];
    return pixels > 0 && rows > 0 ? [row(pixels), rows] : [0, 0];
  }).filter(([, count]) => count > 0);
}

/** Inflates the data of these rows and discards it. */
async function inflateRows(compressed: Blob, rows: readonly [bytes: number, count: number][]): Promise<void> {
  const total = rows.reduce((sum, [size, count]) => sum + size * count, 0);
  let inflated = 0;
  let next = 0;
  let [pass, row] = [0, 0];
  const stream = compressed.stream().pipeThrough(new DecompressionStream("deflate"));
  try {
    for await (const part of stream as ReadableStream<Uint8Array>) {
      for (; next < Math.min(inflated + part.length, total); row++) {
        while (row >= (rows[pass]?.[1] ?? Infinity)) [pass, row] = [pass + 1, 0];
        if ((part[next - inflated] ?? 0) > 4) throw new Error("a row has no valid filter");
        next += rows[pass]?.[0] ?? Infinity;
      }
      inflated += part.length;
      if (inflated > total) break;
    }
  } catch (error) {
    throw error instanceof TypeError ? new Error("its pixels cannot be decompressed") : error;
  }
  if (inflated < total) throw new Error("rows are missing");
}

let table: Uint32Array | undefined;

/** CRC-32 as PNG, gzip and zip use it. */
function crc32(bytes: Uint8Array): number {
  table ??= Uint32Array.from({ length: 256 }, (_, n) => {
    let value = n;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
    return value;
  });
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (table[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** JPEG: its segments, and the coded data of its scans up to the marker of its end (ITU-T T.81, annex B). */
export function readJPEG(bytes: Uint8Array): ImageHeader {
  const reader = new Reader(bytes);
  reader.take(2);
  let header: ImageHeader | undefined;
  let scans = 0;
  for (;;) {
    const marker = nextMarker(reader);
    if (marker === 0xd9) break;
    const segment = new Reader(reader.take(reader.u16() - 2));
    // Start of frame. The other markers of the range announce tables.
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (segment.u8() !== 8) throw new Error("its samples do not have 8 bits");
      const height = segment.u16();
      header = sized(segment.u16(), height);
    }
    if (marker === 0xda) scans++;
  }
  if (!header || scans === 0) throw new Error("it has no pixels");
  return header;
}

/** The next marker of a JPEG that is not part of coded data. */
function nextMarker(reader: Reader): number {
  for (;;) {
    if (reader.u8() !== 0xff) continue;
    let marker = reader.u8();
    while (marker === 0xff) marker = reader.u8();
    // An escaped byte, a restart, or a marker without a meaning of its own.
    if (marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd7)) continue;
    return marker;
  }
}

/** GIF: its blocks up to the trailer. */
export function readGIF(bytes: Uint8Array): ImageHeader {
  const reader = new Reader(bytes);
  reader.take(6);
  const header = sized(reader.u16(true), reader.u16(true));
  const flags = reader.u8();
  reader.take(2);
  takeColours(reader, flags);
  for (let frames = 0; ;) {
    const kind = reader.u8();
    if (kind === 0x3b) {
      if (frames > 0) return header;
      throw new Error("it has no pixels");
    }
    if (kind === 0x21) reader.u8();
    else if (kind === 0x2c) {
      reader.take(8);
      takeColours(reader, reader.u8());
      reader.u8();
      frames++;
    } else throw new Error("a block has no known kind");
    for (let size = reader.u8(); size > 0; size = reader.u8()) reader.take(size);
  }
}

/** Takes the colour table that these flags announce. */
function takeColours(reader: Reader, flags: number): void {
  if (flags & 0x80) reader.take(3 * 2 ** ((flags & 7) + 1));
}

/** WebP: its chunks up to the end of its container, with the sizes of the bitstream or of the canvas. */
export function readWebP(bytes: Uint8Array): ImageHeader {
  const outer = new Reader(bytes);
  outer.take(4);
  const reader = new Reader(outer.take(outer.u32(true)));
  reader.take(4);
  let header: ImageHeader | undefined;
  let frames = 0;
  while (reader.left > 0) {
    const type = reader.text(4);
    const length = reader.u32(true);
    const data = new Reader(reader.take(length));
    // Padded to an even length.
    if (length % 2 === 1 && reader.left > 0) reader.take(1);
    if (type === "VP8X") {
      data.take(4);
      header = sized(data.u24() + 1, data.u24() + 1);
    }
    if (type === "VP8 " || type === "VP8L") {
      const frame = type === "VP8L" ? losslessSize(data) : lossySize(data);
      header ??= frame;
      frames++;
    }
    if (type === "ANMF") frames++;
  }
  if (!header || frames === 0) throw new Error("it has no pixels");
  return header;
}

/** RFC 6386, section 9.1: of a key frame. */
function lossySize(data: Reader): ImageHeader {
  data.take(3);
  if (data.text(3) !== "\u009d\u0001*") throw new Error("its first frame is no key frame");
  return sized(data.u16(true) & 0x3fff, data.u16(true) & 0x3fff);
}

function losslessSize(data: Reader): ImageHeader {
  if (data.u8() !== 0x2f) throw new Error("its lossless header is not valid");
  const sizes = data.u32(true);
  return { width: (sizes & 0x3fff) + 1, height: ((sizes >>> 14) & 0x3fff) + 1 };
}
