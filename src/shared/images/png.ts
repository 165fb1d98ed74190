/**
 * PNG, from the first byte to the last: every checksum is compared and every row is inflated, one at a time, in memory
 * that does not grow with their number. No library does that: decoders hold all pixels, of which a Worker has no room
 * for more than a few millions.
 */
import { type Picture, sized } from "./picture.ts";
import { Reader } from "./reader.ts";
import { Scaler, type Size, onWhite, scaled } from "./scaler.ts";
import { pause } from "../within.ts";

interface Header extends Size {
  bits: number;
  colour: number;
  samples: number;
  interlaced: boolean;
}

/** Samples of a pixel and the bits that one may have, by colour type (PNG, section 11.2.1). */
const COLOURS: Record<number, { samples: number; bits: readonly number[] }> = {
  0: { samples: 1, bits: [1, 2, 4, 8, 16] },
  2: { samples: 3, bits: [8, 16] },
  3: { samples: 1, bits: [1, 2, 4, 8] },
  4: { samples: 2, bits: [8, 16] },
  6: { samples: 4, bits: [8, 16] },
};

interface Pass {
  /** Where its first pixel is, and the steps from one to the next. */
  x: number;
  y: number;
  dx: number;
  dy: number;
  /** Pixels of a row. */
  pixels: number;
  rows: number;
}

/** The seven passes of an interlaced PNG: x, y, dx, dy (PNG, section 8.2). */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** @throws {Error} in words, for one that is not whole */
export function readPNG(bytes: Uint8Array): Picture {
  const reader = new Reader(bytes);
  if (reader.text(8) !== "\u0089PNG\r\n\u001a\n") throw new Error("its signature is not valid");
  const first = chunk(reader);
  if (first.type !== "IHDR" || first.data.length !== 13) throw new Error("it has no header");
  const header = headerOf(new Reader(first.data));
  const pieces: Uint8Array[] = [];
  let frames = 1;
  let palette = new Uint8Array();
  let alphas = new Uint8Array();
  for (;;) {
    const { type, data } = chunk(reader);
    if (type === "IDAT") pieces.push(data);
    if (type === "PLTE") palette = data.slice(0, 3 * 256);
    if (type === "tRNS" && header.colour === 3) alphas = data.slice(0, 256);
    if (type === "acTL" && data.length === 8) frames = Math.max(1, new Reader(data).u32());
    if (type === "IEND") break;
  }
  if (header.colour === 3 && (palette.length === 0 || palette.length % 3 !== 0))
    throw new Error("it has no palette");
  const { width, height, interlaced } = header;
  const rows = () => inflatedRows(new Blob(pieces), header);
  return {
    width,
    height,
    frames,
    // Two rows as they are stored and one in RGB; of an interlaced one, whose rows come in another order, all of them.
    memory: 3 * rowBytes(header, width) + 3 * width + (interlaced ? 3 * width * height : 0),
    // A row costs something whatever its length.
    work: width * height + 100 * height,
    async check() {
      for await (const _ of rows());
    },
    decode: (to) => decode(header, rows(), toRGB(header, palette, alphas), to),
  };
}

function headerOf(fields: Reader): Header {
  const { width, height } = sized(fields.u32(), fields.u32());
  const [bits = 0, colour = 0, compression, filter, interlace = 2] = [0, 0, 0, 0, 0].map(() => fields.u8());
  const { samples = 0, bits: allowed = [] } = COLOURS[colour] ?? {};
  if (!allowed.includes(bits) || compression !== 0 || filter !== 0 || interlace > 1)
    throw new Error("its header is not valid");
  return { width, height, bits, colour, samples, interlaced: interlace === 1 };
}

/** The next chunk, whose checksum is right. */
function chunk(reader: Reader): { type: string; data: Uint8Array } {
  const length = reader.u32();
  const checked = reader.take(4 + length);
  const type = String.fromCharCode(...checked.subarray(0, 4));
  if (crc32(checked) !== reader.u32()) throw new Error(`the checksum of ${JSON.stringify(type)} is wrong`);
  return { type, data: checked.subarray(4) };
}

/** The bytes of a row of so many pixels, its filter's byte included. */
function rowBytes({ bits, samples }: Header, pixels: number): number {
  return 1 + Math.ceil((pixels * bits * samples) / 8);
}

function passesOf({ width, height, interlaced }: Header): Pass[] {
  if (!interlaced) return [{ x: 0, y: 0, dx: 1, dy: 1, pixels: width, rows: height }];
  return ADAM7.map(([x, y, dx, dy]) => ({
    x,
    y,
    dx,
    dy,
    pixels: Math.ceil((width - x) / dx),
    rows: Math.ceil((height - y) / dy),
  })).filter(({ pixels, rows }) => pixels > 0 && rows > 0);
}

interface Row {
  pass: Pass;
  /** Of the pass. */
  index: number;
  /** As it is stored, its filter's byte first; overwritten by the next one. */
  stored: Uint8Array;
}

/** What is inflated is there at once, so that nobody else's call gets the thread between two rows: after so many pixels it rests. */
const SLICE_PIXELS = 1_000_000;
const SLICE_REST_MS = 40;

/** The rows as they are stored. What follows the last is not read. @throws {Error} in words */
async function* inflatedRows(compressed: Blob, header: Header): AsyncGenerator<Row> {
  const stream: ReadableStream<Uint8Array> = compressed
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const stored = new Uint8Array(rowBytes(header, header.width));
  let part: Uint8Array = new Uint8Array();
  let pixels = 0;
  try {
    for (const pass of passesOf(header)) {
      const row = stored.subarray(0, rowBytes(header, pass.pixels));
      for (let index = 0; index < pass.rows; index++) {
        pixels += pass.pixels;
        if (pixels >= SLICE_PIXELS) {
          pixels = 0;
          await pause(SLICE_REST_MS);
        }
        for (let filled = 0; filled < row.length;) {
          if (part.length === 0) {
            const { value, done } = await reader.read();
            if (done) throw new Error("rows are missing");
            part = value;
          }
          const taken = part.subarray(0, row.length - filled);
          row.set(taken, filled);
          filled += taken.length;
          part = part.subarray(taken.length);
        }
        if (row[0]! > 4) throw new Error("a row has no valid filter");
        yield { pass, index, stored: row };
      }
    }
  } catch (error) {
    throw error instanceof TypeError ? new Error("its pixels cannot be decompressed") : error;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function decode(
  header: Header,
  rows: AsyncIterable<Row>,
  convert: (row: Uint8Array, rgb: Uint8Array) => void,
  to: Size,
): Promise<Uint8Array> {
  const pixelBytes = Math.max(1, (header.bits * header.samples) >> 3);
  const rgb = new Uint8Array(header.width * 3);
  const scaler = new Scaler(header, to);
  const whole = header.interlaced ? new Uint8Array(header.width * header.height * 3) : undefined;
  let above = new Uint8Array(rowBytes(header, header.width));
  for await (const { pass, index, stored } of rows) {
    if (index === 0) above = new Uint8Array(stored.length);
    unfilter(stored, above, pixelBytes);
    above.set(stored);
    const line = rgb.subarray(0, pass.pixels * 3);
    convert(stored.subarray(1), line);
    if (!whole) scaler.add(line);
    else
      for (let pixel = 0; pixel < pass.pixels; pixel++) {
        const target = ((pass.y + index * pass.dy) * header.width + pass.x + pixel * pass.dx) * 3;
        whole.set(line.subarray(pixel * 3, pixel * 3 + 3), target);
      }
  }
  return whole ? scaled(whole, 3, header, to) : scaler.finish();
}

/** Undoes the filter of a row in place (PNG, section 9.2). @param distance bytes from a pixel to the one before it */
function unfilter(row: Uint8Array, above: Uint8Array, distance: number): void {
  const filter = row[0];
  if (filter === 0) return;
  for (let at = 1; at < row.length; at++) {
    const left = at > distance ? row[at - distance]! : 0;
    const up = above[at]!;
    if (filter === 1) row[at]! += left;
    else if (filter === 2) row[at]! += up;
    else if (filter === 3) row[at]! += (left + up) >> 1;
    else row[at]! += paeth(left, up, at > distance ? above[at - distance]! : 0);
  }
}

function paeth(left: number, up: number, corner: number): number {
  const [fromLeft, fromUp, fromCorner] = [
    Math.abs(up - corner),
    Math.abs(left - corner),
    Math.abs(left + up - 2 * corner),
  ];
  if (fromLeft <= fromUp && fromLeft <= fromCorner) return left;
  return fromUp <= fromCorner ? up : corner;
}

/** What turns a row without its filter's byte into RGB: of 16 bits the upper 8, and what is transparent on white. */
function toRGB(
  { bits, colour, samples }: Header,
  palette: Uint8Array,
  alphas: Uint8Array,
): (row: Uint8Array, rgb: Uint8Array) => void {
  const colours = new Uint8Array(3 * 256);
  const most = 2 ** Math.min(bits, 8) - 1;
  for (let index = 0; index <= most; index++) {
    const shade = (index * 255) / most;
    const entry = palette.subarray(3 * index, 3 * index + 3);
    const rgba =
      colour === 3
        ? new Uint8Array([entry[0] ?? 0, entry[1] ?? 0, entry[2] ?? 0, alphas[index] ?? 255])
        : new Uint8Array([shade, shade, shade, 255]);
    onWhite(rgba, colours.subarray(3 * index, 3 * index + 3));
  }
  const step = bits === 16 ? 2 : 1;
  if (samples === 1)
    return (row, rgb) => {
      for (let pixel = 0; pixel * 3 < rgb.length; pixel++) {
        const bit = pixel * bits;
        const value = bits < 8 ? (row[bit >> 3]! >> (8 - bits - (bit & 7))) & most : row[pixel * step]!;
        for (let sample = 0; sample < 3; sample++) rgb[pixel * 3 + sample] = colours[value * 3 + sample]!;
      }
    };
  const [green, blue] = samples === 2 ? [0, 0] : [step, 2 * step];
  return (row, rgb) => {
    for (let to = 0, from = 0; to < rgb.length; to += 3, from += samples * step) {
      const alpha = samples === 3 ? 255 : row[from + (samples - 1) * step]!;
      const paper = 255 - alpha;
      rgb[to] = (row[from]! * alpha) / 255 + paper;
      rgb[to + 1] = (row[from + green]! * alpha) / 255 + paper;
      rgb[to + 2] = (row[from + blue]! * alpha) / 255 + paper;
    }
  };
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
