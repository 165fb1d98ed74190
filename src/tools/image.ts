/** An image file as a block of content. */
import { ToolError } from "../shared/errors.ts";
import { type NotShown, examine, tooLarge } from "../shared/images.ts";
import type { ToolOutput } from "./define.ts";

/**
 * @param read reads the whole file; called only when its size is within the limit
 * @param instead the call that reads its bytes
 * @throws {ToolError} `not_shown` for an image that clients may fail to read
 */
export async function imageBlock(
  path: string,
  size: number,
  read: () => Promise<Uint8Array>,
  instead: string,
): Promise<ToolOutput["content"][number]> {
  const refuse = ({ problem, remedy }: NotShown): never => {
    throw new ToolError("not_shown", `The image ${path} ${problem}`, `${remedy} ${instead}`);
  };
  const large = tooLarge(size);
  if (large) return refuse(large);
  const bytes = await read();
  const looked = await examine(bytes);
  if ("problem" in looked) return refuse(looked);
  return { type: "image", data: bytes.toBase64(), mimeType: looked.mimeType };
}
