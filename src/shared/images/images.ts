/**
 * Images as clients can show them: some clients, and some models' providers, end a chat over one that they cannot take.
 * What fits is passed on as it is; what is larger is made smaller, one at a time in this process, in bounded memory.
 */
import { encodeJPEG } from "./codecs.ts";
import { readGIF, readJPEG, readWebP } from "./formats.ts";
import { turned, turnedSize } from "./orientation.ts";
import type { Picture } from "./picture.ts";
import { readPNG } from "./png.ts";
import type { Size } from "./scaler.ts";
import { messageOf } from "../text.ts";
import { pause } from "../within.ts";

/** The largest image in a result, in bytes. Base64 adds a third, and some clients take 1 MB at most. */
const SHOWN_BYTES = 700 * 1024;

/** The longest side that providers of models take, and the most pixels that they do not make fewer themselves. */
const SHOWN_SIDE = 8000;
const SHOWN_PIXELS = 1_150_000;

/** The largest file that is made smaller, bytes. */
export const IMAGE_BYTES = 8 * 1024 * 1024;

/** What one image may take of the 128 MiB that a Worker has for everybody's calls: bytes for its decoder, and its work. */
const MOST_MEMORY = 48 * 1024 * 1024;
const MOST_WORK = 40_000_000;

interface Format {
  mimeType: string;
  signature: RegExp;
  /** Reads it to its end. @throws {Error} saying what is wrong with one that is not whole */
  read(bytes: Uint8Array): Picture;
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

export interface ShownImage {
  mimeType: string;
  bytes: Uint8Array;
  /** How it differs from the original, a sentence without its subject. */
  change?: string;
}

function formatOf(bytes: Uint8Array): Format | undefined {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  return FORMATS.find(({ signature }) => signature.test(start));
}

/** The type of image that starts with these bytes, or undefined. */
export function imageType(bytes: Uint8Array): string | undefined {
  return formatOf(bytes)?.mimeType;
}

/** The refusal of an image file that is too large, by its bytes; undefined for any other. */
export function tooLarge(size: number): NotShown | undefined {
  if (size <= IMAGE_BYTES) return undefined;
  return { problem: `has ${size} bytes; at most ${IMAGE_BYTES} can be shown.`, remedy: SMALLER };
}

const SMALLER =
  "Make it smaller in the sandbox, for example with PIL: image.thumbnail((1000, 1000)), or cut it into parts.";

/** A whole image as it can be shown, its type by its content and not by its name; or why it cannot be. */
export async function shownImage(bytes: Uint8Array): Promise<ShownImage | NotShown> {
  const large = tooLarge(bytes.length);
  if (large) return large;
  const format = formatOf(bytes);
  if (!format)
    return { problem: "is not a PNG, JPEG, GIF or WebP.", remedy: "Convert it to one of these first." };
  const { mimeType, read } = format;
  try {
    const picture = read(bytes);
    const to = fitting(picture);
    const isSmaller = to.width < picture.width || to.height < picture.height;
    if (!isSmaller && bytes.length <= SHOWN_BYTES) {
      await picture.check?.();
      return { mimeType, bytes, change: animated(picture) };
    }
    if (picture.memory > MOST_MEMORY || picture.work > MOST_WORK) {
      const size = `${picture.width} x ${picture.height} pixels`;
      return { problem: `has ${size}, which is more than can be made smaller here.`, remedy: SMALLER };
    }
    return await inTurn(picture.work, () => reduced(picture, to, mimeType));
  } catch (error) {
    const reason =
      error instanceof WebAssembly.RuntimeError ? "its pixels cannot be decoded" : messageOf(error);
    return { problem: `is corrupt (${mimeType}: ${reason}).`, remedy: "Write it again." };
  }
}

function animated({ frames }: Picture): string | undefined {
  return frames > 1 ? `is animated; of its ${frames} frames many clients show the first alone` : undefined;
}

/** The size at which it can be shown, its proportions kept. */
function fitting({ width, height }: Size): Size {
  const share = Math.min(1, Math.sqrt(SHOWN_PIXELS / (width * height)), SHOWN_SIDE / Math.max(width, height));
  const reduce = (side: number) => Math.max(1, Math.floor(side * share + 1e-9));
  return { width: reduce(width), height: reduce(height) };
}

/** Qualities that are tried one after the other until the result is small enough. */
const QUALITIES = [88, 70, 40];

async function reduced(picture: Picture, to: Size, mimeType: string): Promise<ShownImage | NotShown> {
  const { orientation = 1 } = picture;
  const pixels = turned(await picture.decode(to), to, orientation);
  const shown = turnedSize(to, orientation);
  for (const quality of QUALITIES) {
    const bytes = await encodeJPEG(pixels, shown, quality);
    if (bytes.length > SHOWN_BYTES) continue;
    const from = `${picture.width} x ${picture.height} pixels (${mimeType})`;
    const frame = picture.frames > 1 ? ` the first of ${picture.frames} frames` : "";
    const change = `has ${from}; shown is${frame || " it"} at ${shown.width} x ${shown.height}, as JPEG`;
    return { mimeType: "image/jpeg", bytes, change };
  }
  return { problem: "is too detailed to be shown.", remedy: SMALLER };
}

/** How long a call waits for its turn, and how often it looks, milliseconds. */
const TURN_MS = 20_000;
const LOOK_MS = 20;

/** The longest turn, milliseconds: a request that the platform cut never ends its own. */
const WORK_MS = 30_000;

/** The pause before the next turn, milliseconds for each pixel of the image: about as long as the image took. */
const REST_MS_PER_PIXEL = 40 / 1_000_000;

let busyUntil = 0;

/**
 * Does the work when no other image of this process is worked on. Afterwards the thread is free for other calls for about
 * as long. Turns end by the clock and not by a promise: the platform drops the promises of a request that it cuts, so that
 * whoever waited for one would wait for ever.
 */
async function inTurn<T>(pixels: number, work: () => Promise<T>): Promise<T | NotShown> {
  const from = Date.now();
  while (Date.now() < busyUntil) {
    if (Date.now() - from > TURN_MS)
      return {
        problem: "was not made smaller: the server is busy with other images.",
        remedy: "Try again in a minute.",
      };
    await pause(LOOK_MS);
  }
  busyUntil = Date.now() + WORK_MS;
  try {
    return await work();
  } finally {
    busyUntil = Date.now() + pixels * REST_MS_PER_PIXEL;
  }
}
