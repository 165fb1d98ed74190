/**
 * Readers of image formats, from the first byte to the last: what a picture is and what its decoder will need, before
 * anything is decoded. Of these the structure is followed to its end; decoders show what is wrong within it as wrong
 * pixels. PNG, of which every byte is checked, has its own module.
 */
import { decodeGIF, decodeJPEG, decodeWebP } from "./codecs.ts";
import { orientationOf } from "./orientation.ts";
import { type Picture, sized } from "./picture.ts";
import { Reader } from "./reader.ts";
import type { Size } from "./scaler.ts";

/** JPEG: its segments, and the coded data of its scans up to the marker of its end (ITU-T T.81, annex B). */
export function readJPEG(bytes: Uint8Array): Picture {
  const reader = new Reader(bytes);
  reader.take(2);
  let frame: JPEGFrame | undefined;
  let scans = 0;
  let orientation = 1;
  for (;;) {
    const marker = nextMarker(reader);
    if (marker === 0xd9) break;
    const bytesOfSegment = reader.take(reader.u16() - 2);
    const segment = new Reader(bytesOfSegment);
    if (marker === 0xe1 && orientation === 1) orientation = orientationOf(bytesOfSegment);
    // Start of frame. The other markers of the range announce tables.
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      // A decoder might go by another one than this reader.
      if (frame) throw new Error("it has two headers");
      frame = frameOf(segment);
      if (marker > 0xc1) frame.isProgressive = true;
    }
    if (marker === 0xda) scans++;
  }
  if (!frame || scans === 0) throw new Error("it has no pixels");
  const { width, height, coefficients, isProgressive } = frame;
  return {
    width,
    height,
    frames: 1,
    orientation,
    // The decoder reduces while it decodes. What comes in several scans it keeps whole, two bytes for each coefficient.
    memory: JPEG_MEMORY + (isProgressive ? 2 * coefficients : 0),
    // More for a pixel than of PNG, because the decoder cannot be made to rest; each scan goes through all of them.
    work: width * height * (isProgressive ? 1.4 * (1 + scans / 8) : Math.max(2, scans)),
    decode: (to) => decodeJPEG(bytes, to),
  };
}

/** Bytes for the result of a decoder that reduces, which is up to four times as large as asked for. */
const JPEG_MEMORY = 12 * 1024 * 1024;

interface JPEGFrame extends Size {
  /** Of all components together. */
  coefficients: number;
  isProgressive?: boolean;
}

function frameOf(segment: Reader): JPEGFrame {
  if (segment.u8() !== 8) throw new Error("its samples do not have 8 bits");
  const height = segment.u16();
  const size = sized(segment.u16(), height);
  const factors = Array.from({ length: segment.u8() }, () => {
    const [, sampling = 0] = segment.take(3);
    return { across: sampling >> 4, down: sampling & 15 };
  });
  const across = Math.max(1, ...factors.map((factor) => factor.across));
  const down = Math.max(1, ...factors.map((factor) => factor.down));
  const share = factors.reduce((sum, factor) => sum + (factor.across * factor.down) / (across * down), 0);
  return { ...size, coefficients: size.width * size.height * share };
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
export function readGIF(bytes: Uint8Array): Picture {
  const reader = new Reader(bytes);
  reader.take(6);
  const size = sized(reader.u16(true), reader.u16(true));
  const flags = reader.u8();
  reader.take(2);
  takeColours(reader, flags);
  let first: Size | undefined;
  for (let frames = 0; ;) {
    const kind = reader.u8();
    if (kind === 0x3b) {
      if (!first) throw new Error("it has no pixels");
      const pixels = size.width * size.height + first.width * first.height;
      // Of the first frame its indices and its colours; the canvas; a copy.
      return {
        ...size,
        frames,
        memory: 8 * pixels,
        work: pixels,
        decode: (to) => decodeGIF(bytes, size, to),
      };
    }
    if (kind === 0x21) reader.u8();
    else if (kind === 0x2c) {
      reader.take(4);
      const frame = { width: reader.u16(true), height: reader.u16(true) };
      first ??= frame;
      takeColours(reader, reader.u8());
      reader.u8();
      frames++;
    } else throw new Error("a block has no known kind");
    for (let length = reader.u8(); length > 0; length = reader.u8()) reader.take(length);
  }
}

/** Takes the colour table that these flags announce. */
function takeColours(reader: Reader, flags: number): void {
  if (flags & 0x80) reader.take(3 * 2 ** ((flags & 7) + 1));
}

/** WebP: its chunks up to the end of its container. */
export function readWebP(bytes: Uint8Array): Picture {
  const outer = new Reader(bytes);
  outer.take(4);
  const reader = new Reader(outer.take(outer.u32(true)));
  reader.take(4);
  let canvas: Size | undefined;
  let still: Uint8Array | undefined;
  let size: Size | undefined;
  let frames = 0;
  for (const { type, data } of webPChunks(reader)) {
    const fields = new Reader(data);
    if (type === "VP8X") {
      fields.take(4);
      canvas = sized(fields.u24() + 1, fields.u24() + 1);
    }
    if (type === "VP8 " || type === "VP8L") {
      size ??= bitstreamSize(type, fields);
      still = bytes;
      frames++;
    }
    if (type === "ANMF") {
      if (frames === 0) [still, size] = stillOf(fields);
      frames++;
    }
  }
  const found = still;
  const decoded = size;
  if (!found || !decoded) throw new Error("it has no pixels");
  const pixels = Math.max(decoded.width * decoded.height, (canvas?.width ?? 0) * (canvas?.height ?? 0));
  const isSame =
    !canvas || frames > 1 || (canvas.width === decoded.width && canvas.height === decoded.height);
  return {
    ...(canvas ?? decoded),
    frames,
    // Colours, the decoder's own copy of them, and ours.
    memory: 12 * pixels,
    work: pixels,
    async decode(to) {
      if (!isSame) throw new Error("its headers disagree on its size");
      return decodeWebP(found, decoded, to);
    },
  };
}

function* webPChunks(reader: Reader): Generator<{ type: string; data: Uint8Array }> {
  while (reader.left > 0) {
    const type = reader.text(4);
    const length = reader.u32(true);
    const data = reader.take(length);
    // Padded to an even length.
    if (length % 2 === 1 && reader.left > 0) reader.take(1);
    yield { type, data };
  }
}

/** A frame of an animation as a file of its own. */
function stillOf(frame: Reader): [file: Uint8Array, size: Size] {
  frame.take(6);
  const header = sized(frame.u24() + 1, frame.u24() + 1);
  frame.take(4);
  const chunks = frame.take(frame.left);
  const names = new Set<string>();
  for (const { type, data } of webPChunks(new Reader(chunks))) {
    names.add(type);
    if (type !== "VP8 " && type !== "VP8L") continue;
    const { width, height } = bitstreamSize(type, new Reader(data));
    if (width !== header.width || height !== header.height)
      throw new Error("its headers disagree on its size");
  }
  if (!names.has("VP8 ") && !names.has("VP8L")) throw new Error("a frame has no pixels");
  const extended = new Uint8Array(names.has("ALPH") ? 18 : 0);
  if (extended.length > 0) {
    extended.set(new TextEncoder().encode("VP8X\n"));
    const fields = new DataView(extended.buffer);
    // Its length above, the flag for transparency, and the canvas, in 24 bits each.
    fields.setUint8(8, 0x10);
    fields.setUint16(12, header.width - 1, true);
    fields.setUint8(14, (header.width - 1) >> 16);
    fields.setUint16(15, header.height - 1, true);
    fields.setUint8(17, (header.height - 1) >> 16);
  }
  const file = new Uint8Array(12 + extended.length + chunks.length);
  file.set(new TextEncoder().encode("RIFF____WEBP"));
  new DataView(file.buffer).setUint32(4, file.length - 8, true);
  file.set(extended, 12);
  file.set(chunks, 12 + extended.length);
  return [file, header];
}

function bitstreamSize(type: "VP8 " | "VP8L", data: Reader): Size {
  return type === "VP8L" ? losslessSize(data) : lossySize(data);
}

/** RFC 6386, section 9.1: of a key frame. */
function lossySize(data: Reader): Size {
  data.take(3);
  if (data.text(3) !== "\u009d\u0001*") throw new Error("its first frame is no key frame");
  return sized(data.u16(true) & 0x3fff, data.u16(true) & 0x3fff);
}

function losslessSize(data: Reader): Size {
  if (data.u8() !== 0x2f) throw new Error("its lossless header is not valid");
  const sizes = data.u32(true);
  return { width: (sizes & 0x3fff) + 1, height: ((sizes >>> 14) & 0x3fff) + 1 };
}
