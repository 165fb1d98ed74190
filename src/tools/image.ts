/** Images as the blocks that clients show, and the words beside them. */
import { ToolError } from "../shared/errors.ts";
import { type NotShown, shownImage, tooLarge } from "../shared/images/images.ts";
import { type ToolContext, type ToolOutput, text } from "./define.ts";
import { type Download, downloadLine, withDownloads } from "./download.ts";

/** Where the original of an image is that is not shown as it is. @param path none for a result of code */
export function whereOriginal(path?: string): string {
  if (path !== undefined) return `The original is ${path}.`;
  return "To keep an original, save it to a file in the code: figure.savefig, image.save.";
}

/**
 * An image file: what is said of it, if anything, the image and, where it is not shown as it is, a link to the original.
 * @param read reads the whole file; called only when its size is within the limit
 * @param instead the call that reads its bytes
 * @param original the file itself
 * @throws {ToolError} `not_shown` for an image that clients may fail to read
 */
export async function imageBlocks(
  context: ToolContext,
  path: string,
  size: number,
  read: () => Promise<Uint8Array>,
  instead: string,
  original: () => Promise<readonly Download[]>,
): Promise<ToolOutput["content"]> {
  const refuse = async ({ problem, remedy }: NotShown): Promise<never> => {
    const lines = (await original()).flatMap((download) => downloadLine(download) ?? []);
    throw new ToolError("not_shown", `The image ${path} ${problem}`, [remedy, instead, ...lines].join(" "));
  };
  const large = tooLarge(size);
  if (large) return refuse(large);
  const image = await shownImage(await read());
  if ("problem" in image) return refuse(image);
  const said = image.change && text(`[${path} ${image.change}. ${whereOriginal(path)} ${instead}]`);
  const shown = { type: "image", data: image.bytes.toBase64(), mimeType: image.mimeType } as const;
  return said ? withDownloads(context, [said, shown], await original()) : [shown];
}
