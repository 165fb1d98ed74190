import { IMAGE_BYTES } from "../../container/sandboxd/shapes.ts";
import type { CodeImage, CodeResult } from "../runs/code-detail.ts";
import { undefinedIfFailed } from "../shared/errors.ts";
import { imageHeader, imageType } from "../../container/sandboxd/image-header.ts";
import { type ImageRefusal, shownImage, describeSize, tooLarge } from "../shared/shown-image.ts";
import { shownName } from "../shared/shown.ts";
import { type ToolContext, type ToolOutput, text } from "./define.ts";
import { type Download, downloadLine, addDownloads } from "./download.ts";
import { RUN_IMAGES_HIDDEN, imageHiddenText, imageNotShown, imageFileText } from "./texts.ts";

interface ImageFile {
  sandbox: string;
  path: string;
  size: number;
  read: () => Promise<Uint8Array>;
  /** The call that reads the image's bytes. */
  instead: string;
  links: () => Promise<readonly Download[]>;
}

/**
 * A line about an image, the image, and a link to the file if the image was changed.
 * @throws {ToolError} `not_shown`; `quota_exceeded` if the principal's requests take too much memory
 */
export function imageBlocks(context: ToolContext, file: ImageFile): Promise<ToolOutput["content"]> {
  const work = () => readImage(context, file);
  return context.memory?.whileHoldingImage(Math.min(file.size, IMAGE_BYTES), work) ?? work();
}

async function readImage(context: ToolContext, file: ImageFile): Promise<ToolOutput["content"]> {
  const { sandbox, size, instead, links } = file;
  const name = shownName(file.path);
  const refuse = async ({ problem, remedy }: ImageRefusal): Promise<never> => {
    const lines = (await links()).flatMap((download) => downloadLine(download) ?? []);
    const hint = [remedy, instead, ...lines].filter(Boolean).join(" ");
    throw imageNotShown(name, problem, hint);
  };
  const large = tooLarge(size);
  if (large) return refuse(large);
  const bytes = await file.read();
  if (context.takesImages === false) {
    const summary = imageHiddenText(name, describeHeader(bytes), bytes.length, instead);
    return addDownloads(context, [text(summary)], await links());
  }
  const image = await shownImage(bytes, async (body) => {
    const made = await undefinedIfFailed(context.operate(sandbox, "shrink", { body }), ["not_found"]);
    if (made === undefined) return "stopped";
    return made.image === "made" ? made.bytes : made.image;
  });
  if ("problem" in image) return refuse(image);
  const shown = { type: "image", data: image.bytes.toBase64(), mimeType: image.mimeType } as const;
  if (image.change === undefined) return [text(`[${name}: ${imageLine(image)}.]`), shown];
  const summary = text(`[${name}: ${imageLine(image)}. ${instead}]`);
  return addDownloads(context, [summary, shown], await links());
}

/** Describes the image by its header; the file may be corrupt. */
function describeHeader(bytes: Uint8Array): string {
  const type = imageType(bytes);
  try {
    return type ? describeSize(imageHeader(bytes, type)) : "an image";
  } catch {
    return `a corrupt ${type}`;
  }
}

function imageLine({ width, height, mimeType, change }: Omit<CodeImage, "image">): string {
  const size = describeSize({ width, height, mimeType });
  return [size, change && `it ${change}`].filter(Boolean).join("; ");
}

export function imageLines(results: readonly CodeResult[], takesImages: boolean): string | undefined {
  const images = results.filter((result) => "image" in result);
  const lines = images.map((image, index) => {
    const name = images.length > 1 ? `Image ${index + 1}: ` : "";
    const file = imageFileText(image.original?.path, image.change !== undefined);
    return `${name}${imageLine(image)}. ${file}`;
  });
  if (images.length > 0 && !takesImages) lines.push(RUN_IMAGES_HIDDEN);
  return lines.join("\n") || undefined;
}
