/** Which images clients can show. Some clients and model providers end a chat over an image that they cannot read. */
import { IMAGE_SIDE, type ImageHeader, readGIF, readJPEG, readPNG, readWebP } from "./image-formats.ts";

/** The largest image in a result, in bytes. Base64 adds a third, and some clients take 1 MB at most. */
export const IMAGE_BYTES = 700 * 1024;

interface Format {
  mimeType: string;
  signature: RegExp;
  /** Reads it to its end. @throws {Error} saying what is wrong with one that is not whole */
  read(bytes: Uint8Array): ImageHeader | Promise<ImageHeader>;
}

const FORMATS: readonly Format[] = [
  { mimeType: "image/png", signature: /^\u0089PNG/, read: readPNG },
  { mimeType: "image/jpeg", signature: /^\u00ff\u00d8\u00ff/, read: readJPEG },
  { mimeType: "image/gif", signature: /^GIF8[79]a/, read: readGIF },
  { mimeType: "image/webp", signature: /^RIFF....WEBP/s, read: readWebP },
];

/** Why an image cannot be shown, as a sentence without its subject, and what to do about it. */
export interface NotShown {
  problem: string;
  remedy: string;
}

function formatOf(bytes: Uint8Array): Format | undefined {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  return FORMATS.find(({ signature }) => signature.test(start));
}

/** The type of image that starts with these bytes, or undefined. */
export function imageType(bytes: Uint8Array): string | undefined {
  return formatOf(bytes)?.mimeType;
}

/** The refusal of an image that is too large; undefined for any other. */
export function tooLarge(size: number): NotShown | undefined {
  if (size <= IMAGE_BYTES) return undefined;
  return {
    problem: `has ${size} bytes; at most ${IMAGE_BYTES} can be shown.`,
    remedy: "Make it smaller: fewer pixels (a lower dpi, or PIL's thumbnail), or JPEG.",
  };
}

/** The type of a whole image that can be shown, by its content and not by its name; or why it cannot be. */
export async function examine(bytes: Uint8Array): Promise<{ mimeType: string } | NotShown> {
  const large = tooLarge(bytes.length);
  if (large) return large;
  const format = formatOf(bytes);
  if (!format)
    return { problem: "is not a PNG, JPEG, GIF or WebP.", remedy: "Convert it to one of these first." };
  const { mimeType, read } = format;
  try {
    const { width, height } = await read(bytes);
    if (Math.max(width, height) <= IMAGE_SIDE) return { mimeType };
    return {
      problem: `has ${width} x ${height} pixels; at most ${IMAGE_SIDE} on a side can be shown.`,
      remedy: "Make it smaller, for example with PIL's thumbnail, or cut it into parts.",
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { problem: `is corrupt (${mimeType}: ${reason}).`, remedy: "Write it again." };
  }
}
