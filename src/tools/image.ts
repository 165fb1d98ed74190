/** Images as the blocks that clients show, and the words beside them. */
import { ToolError } from "../shared/errors.ts";
import { type NotShown, shownImage, tooLarge } from "../shared/images/images.ts";
import { type ToolOutput, text } from "./define.ts";

/** Where the original of an image is that is not shown as it is. @param path none for a result of code */
export function whereOriginal(path?: string): string {
  if (path !== undefined) return `The original is ${path}.`;
  return "To keep an original, save it to a file in the code: figure.savefig, image.save.";
}

/**
 * An image file: what is said of it, if anything, and the image.
 * @param read reads the whole file; called only when its size is within the limit
 * @param instead the call that reads its bytes
 * @throws {ToolError} `not_shown` for an image that clients may fail to read
 */
export async function imageBlocks(
  path: string,
  size: number,
  read: () => Promise<Uint8Array>,
  instead: string,
): Promise<ToolOutput["content"]> {
  const refuse = ({ problem, remedy }: NotShown): never => {
    throw new ToolError("not_shown", `The image ${path} ${problem}`, `${remedy} ${instead}`);
  };
  const large = tooLarge(size);
  if (large) return refuse(large);
  const image = await shownImage(await read());
  if ("problem" in image) return refuse(image);
  const said = image.change && text(`[${path} ${image.change}. ${whereOriginal(path)} ${instead}]`);
  return [...(said ? [said] : []), { type: "image", data: image.bytes.toBase64(), mimeType: image.mimeType }];
}
