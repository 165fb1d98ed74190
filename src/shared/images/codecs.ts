/**
 * Decoders in WebAssembly. Each picture gets an instance of its own, which is dropped with all its memory: what a hostile
 * file does to its decoder reaches no other picture. The modules are loaded by the first picture that needs them.
 */
import { type Size, scaled } from "./scaler.ts";

/** What the modules of imagescript share: memory that is asked for by its size, and the length of the last result. */
interface Wasm {
  memory: WebAssembly.Memory;
  walloc(bytes: number): number;
  wlen(): number;
}

interface JPEGWasm extends Wasm {
  /**
   * Reduces to the smallest of 1/8, 1/4, 1/2 and 1/1 that is as large as asked for on one side, whichever it is.
   * @returns 0 or 1 for what cannot be decoded
   */
  decode(at: number, bytes: number, width: number, height: number): number;
  decode_width(picture: number): number;
  decode_height(picture: number): number;
  /** 0: grey, 1: RGB, 2: CMYK. */
  decode_format(picture: number): number;
  decode_buffer(picture: number): number;
  encode(rgba: number, width: number, height: number, quality: number): number;
}

interface GIFWasm extends Wasm {
  decoder_new(at: number, bytes: number, limit: number): number;
  /** @returns 0 for what cannot be decoded, 1 behind the last */
  decoder_frame(decoder: number): number;
  decoder_frame_x(frame: number): number;
  decoder_frame_y(frame: number): number;
  decoder_frame_width(frame: number): number;
  decoder_frame_height(frame: number): number;
  decoder_frame_buffer(frame: number): number;
}

function instance<T extends Wasm>(module: WebAssembly.Module): T {
  const unused = { env: { push_to_stream: () => undefined } };
  return new WebAssembly.Instance(module, unused).exports as unknown as T;
}

/** Copies bytes into an instance. @returns where they are */
function put(wasm: Wasm, bytes: Uint8Array): number {
  const at = wasm.walloc(bytes.length);
  new Uint8Array(wasm.memory.buffer, at, bytes.length).set(bytes);
  return at;
}

/** The result that an instance has just made, in its memory. */
function made(wasm: Wasm, at: number): Uint8Array {
  return new Uint8Array(wasm.memory.buffer, at, wasm.wlen());
}

async function jpeg(): Promise<JPEGWasm> {
  return instance((await import("imagescript/wasm/any/jpeg.wasm")).default);
}

/** The longest side of a JPEG, pixels. */
const JPEG_SIDE = 65_535;

export async function decodeJPEG(bytes: Uint8Array, to: Size): Promise<Uint8Array> {
  const wasm = await jpeg();
  // The longer side decides: a side of one pixel is as large as asked for however far it is reduced.
  const isHigh = to.height > to.width;
  const picture = wasm.decode(
    put(wasm, bytes),
    bytes.length,
    isHigh ? JPEG_SIDE : to.width,
    isHigh ? to.height : JPEG_SIDE,
  );
  if (picture <= 1) throw new Error("its pixels cannot be decoded");
  const from = { width: wasm.decode_width(picture), height: wasm.decode_height(picture) };
  if (from.width < to.width || from.height < to.height) throw new Error("its pixels cannot be decoded");
  const pixels = made(wasm, wasm.decode_buffer(picture));
  const format = wasm.decode_format(picture);
  if (format !== 2) return scaled(pixels, format === 0 ? 1 : 3, from, to);
  for (let at = 0; at < pixels.length; at += 4) {
    const light = 1 - pixels[at + 3]! / 255;
    for (let sample = at; sample < at + 3; sample++) pixels[sample] = (255 - pixels[sample]!) * light;
    pixels[at + 3] = 255;
  }
  return scaled(pixels, 4, from, to);
}

/** @param quality 1 to 100 */
export async function encodeJPEG(
  rgba: Uint8Array,
  { width, height }: Size,
  quality: number,
): Promise<Uint8Array> {
  const wasm = await jpeg();
  return made(wasm, wasm.encode(put(wasm, rgba), width, height, quality)).slice();
}

/** The first frame. */
export async function decodeGIF(bytes: Uint8Array, from: Size, to: Size): Promise<Uint8Array> {
  const wasm = instance<GIFWasm>((await import("imagescript/wasm/any/gif.wasm")).default);
  const decoder = wasm.decoder_new(put(wasm, bytes), bytes.length, 0);
  const frame = decoder === 0 ? 0 : wasm.decoder_frame(decoder);
  if (frame <= 1) throw new Error("its pixels cannot be decoded");
  const size = { width: wasm.decoder_frame_width(frame), height: wasm.decoder_frame_height(frame) };
  const [left, top] = [wasm.decoder_frame_x(frame), wasm.decoder_frame_y(frame)];
  const pixels = made(wasm, wasm.decoder_frame_buffer(frame));
  if (size.width === from.width && size.height === from.height) return scaled(pixels, 4, from, to);
  const canvas = new Uint8Array(from.width * from.height * 4);
  for (let y = 0; y < size.height && top + y < from.height; y++) {
    const row = pixels.subarray(
      y * size.width * 4,
      (y * size.width + Math.min(size.width, from.width - left)) * 4,
    );
    canvas.set(row, ((top + y) * from.width + left) * 4);
  }
  return scaled(canvas, 4, from, to);
}

/** @param bytes of a still of the size `from` */
export async function decodeWebP(bytes: Uint8Array, from: Size, to: Size): Promise<Uint8Array> {
  const [{ default: factory }, { initEmscriptenModule }, { default: module }] = await Promise.all([
    import("@jsquash/webp/codec/dec/webp_dec.js"),
    import("@jsquash/webp/utils.js"),
    import("@jsquash/webp/codec/dec/webp_dec.wasm"),
  ]);
  const decoder = await initEmscriptenModule(factory, module);
  const picture = decoder.decode(bytes);
  if (picture?.width !== from.width || picture.height !== from.height)
    throw new Error("its pixels cannot be decoded");
  const { buffer, byteOffset, length } = picture.data;
  return scaled(new Uint8Array(buffer, byteOffset, length), 4, from, to);
}
