import type { Size } from "./scaler.ts";

/** An image whose file is whole. */
export interface Picture extends Size {
  /** Of an animation; 1 of a still. */
  frames: number;
  /** How it is to be turned, as in EXIF; undefined for one that is upright. */
  orientation?: number;
  /** Bytes that decoding it takes beside its file, estimated from its header. */
  memory: number;
  /** Pixels that its decoder goes through, as a measure of time. */
  work: number;
  /** Looks at its pixels, keeping none. @throws {Error} in words, for what cannot be decoded */
  check?(): Promise<void>;
  /** Its first frame, made smaller: RGBA without transparency. @throws {Error} in words */
  decode(to: Size): Promise<Uint8Array>;
}

export function sized(width: number, height: number): Size {
  if (width === 0 || height === 0) throw new Error("it has no pixels");
  return { width, height };
}
