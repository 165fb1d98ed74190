/** How a photo is to be turned to be seen upright: cameras write it into the EXIF data of a JPEG (TIFF 6.0, tag 274). */
import { Reader } from "./reader.ts";
import type { Size } from "./scaler.ts";

const EXIF = "Exif\0\0";
const ORIENTATION = 274;

/** By an orientation: where the pixel at (x, y) of what is to be seen is in a file of this size. */
const SOURCES: Record<number, (x: number, y: number, size: Size) => readonly [x: number, y: number]> = {
  2: (x, y, { width }) => [width - 1 - x, y],
  3: (x, y, { width, height }) => [width - 1 - x, height - 1 - y],
  4: (x, y, { height }) => [x, height - 1 - y],
  5: (x, y) => [y, x],
  6: (x, y, { height }) => [y, height - 1 - x],
  7: (x, y, { width, height }) => [width - 1 - y, height - 1 - x],
  8: (x, y, { width }) => [width - 1 - y, x],
};

/** The orientation in a segment APP1 of a JPEG: 1, upright, where it has none. */
export function orientationOf(segment: Uint8Array): number {
  try {
    const reader = new Reader(segment);
    if (reader.text(EXIF.length) !== EXIF) return 1;
    const start = reader.at;
    const isLittle = reader.text(2) === "II";
    reader.take(2);
    reader.at = start + reader.u32(isLittle);
    for (let left = reader.u16(isLittle); left > 0; left--) {
      const tag = reader.u16(isLittle);
      reader.take(6);
      const value = reader.u16(isLittle);
      reader.take(2);
      if (tag === ORIENTATION) return value in SOURCES ? value : 1;
    }
  } catch {
    // Not whole: the picture is shown as it lies in the file.
  }
  return 1;
}

/** The size of what is to be seen. */
export function turnedSize({ width, height }: Size, orientation: number): Size {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}

/** Turns RGBA pixels. @param size before */
export function turned(rgba: Uint8Array, size: Size, orientation: number): Uint8Array {
  const source = SOURCES[orientation];
  if (!source) return rgba;
  const { width, height } = turnedSize(size, orientation);
  const from = new Uint32Array(rgba.slice().buffer);
  const to = new Uint32Array(width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [fromX, fromY] = source(x, y, size);
      to[y * width + x] = from[fromY * size.width + fromX] ?? 0;
    }
  return new Uint8Array(to.buffer);
}
