/**
 * Images for clients. Some clients and model providers end a chat if an image is of a type or size that they do not support. So
 * only supported types are passed on, and large images are first scaled down in a sandbox.
 */
import {
  canBeShown,
  type ImageHeader,
  imageHeader,
  imageType,
} from "../../container/sandboxd/image-header.ts";
import { IMAGE_BYTES, IMAGE_PIXELS, type ImageOutcome } from "../../container/sandboxd/shapes.ts";
import { messageOf } from "./text.ts";

/** Why an image cannot be shown, as a sentence without its subject, and what to do. */
export interface ImageRefusal {
  problem: string;
  remedy: string;
}

export interface ShownImage extends Pick<ImageHeader, "mimeType" | "width" | "height"> {
  bytes: Uint8Array;
  /** How the image differs from the original, as a sentence without its subject. */
  change?: string | undefined;
}

/** Scales an image in a sandbox, or returns why it did not. `stopped`: the sandbox does not run. */
export type MakeSmaller = (image: Uint8Array) => Promise<Uint8Array | ImageProblem>;
type ImageProblem = Exclude<ImageOutcome, "made" | "unchanged"> | "stopped";

export function tooLarge(size: number): ImageRefusal | undefined {
  if (size <= IMAGE_BYTES) return undefined;
  return { problem: `has ${size} bytes; at most ${IMAGE_BYTES} can be shown.`, remedy: SMALLER };
}

const SMALLER =
  "Make it smaller in the sandbox, for example with PIL: image.thumbnail((1000, 1000)), or cut it into parts.";

/** A displayable image, or the reason for refusing it. Its type comes from its content, not its name. */
export async function shownImage(
  bytes: Uint8Array,
  makeSmaller: MakeSmaller,
): Promise<ShownImage | ImageRefusal> {
  const large = tooLarge(bytes.length);
  if (large) return large;
  const mimeType = imageType(bytes);
  if (!mimeType)
    return { problem: "is not a PNG, JPEG, GIF or WebP.", remedy: "Convert it to one of these first." };
  let original: ImageHeader;
  try {
    original = imageHeader(bytes, mimeType);
  } catch (error) {
    return { problem: `is corrupt (${mimeType}: ${messageOf(error)}).`, remedy: "Write it again." };
  }
  if (!canBeShown(original, bytes)) {
    const made = hasTooManyPixels(original) ? "too_large" : await makeSmaller(bytes);
    return scaledImage(original, bytes.length, made);
  }
  const { width, height, frames } = original;
  const change =
    frames > 1 ? `is animated: many clients show only the first of its ${frames} frames` : undefined;
  return { mimeType, width, height, bytes, change };
}

function hasTooManyPixels({ width, height }: ImageHeader): boolean {
  return width * height > IMAGE_PIXELS;
}

/** The scaled image, or the reason why there is none. @param size the bytes of the original */
export function scaledImage(
  original: ImageHeader,
  size: number,
  made: Uint8Array | ImageProblem,
): ShownImage | ImageRefusal {
  if (hasTooManyPixels(original))
    return {
      problem: `has ${original.width} x ${original.height} pixels; the server scales only images of at most ${IMAGE_PIXELS}.`,
      remedy: SMALLER,
    };
  const description = `${describeSize(original)}, ${size} bytes`;
  if (typeof made === "string") return refusalOf(made, description);
  const header = shownHeader(made);
  if (!header) return refusalOf("undecodable", description);
  const { mimeType, width, height } = header;
  const frame = original.frames > 1 ? `shows the first of ${original.frames} frames, and ` : "";
  const change = `${frame}was made smaller from ${describeSize(original)}`;
  return { mimeType, width, height, bytes: made, change };
}

/**
 * The header of an image that a sandbox has scaled; undefined if it cannot be shown. This is checked, because user code can
 * replace the scaling program.
 */
function shownHeader(made: Uint8Array): ImageHeader | undefined {
  const mimeType = imageType(made);
  if (mimeType !== "image/png" && mimeType !== "image/jpeg") return undefined;
  try {
    const header = imageHeader(made, mimeType);
    return canBeShown(header, made) && header.frames === 1 ? header : undefined;
  } catch {
    return undefined;
  }
}

function refusalOf(reason: ImageProblem, image: string): ImageRefusal {
  switch (reason) {
    case "no_pillow":
      return {
        problem: `is too large to be shown as it is (${image}), and Pillow, which makes images smaller, is not installed in the sandbox.`,
        remedy: 'Install it with run_command, command "pip install pillow", and try again.',
      };
    case "stopped":
      return {
        problem: `is too large to be shown as it is (${image}), and its sandbox, which would make it smaller, does not run.`,
        remedy: "",
      };
    case "too_large":
      return { problem: `takes too much time or memory to be made smaller (${image}).`, remedy: SMALLER };
    case "unreadable":
      return {
        problem: "is too large to be shown as it is, and not a complete image.",
        remedy: "Show it again.",
      };
    case "undecodable":
      return {
        problem: `is corrupt: it is too large to be shown as it is (${image}), and its pixels cannot be decoded.`,
        remedy: "Write it again.",
      };
  }
}

/** `640 x 480 pixels, PNG` */
export function describeSize(image: { width: number; height: number; mimeType: string }): string {
  const { width, height, mimeType } = image;
  return `${width} x ${height} pixels, ${mimeType.replace("image/", "").toUpperCase()}`;
}
