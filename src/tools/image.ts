/** An image file as the block that clients show. */
import { ToolError } from "../shared/errors.ts";
import { type NotShown, examine, tooLarge } from "../shared/images.ts";
import type { ToolOutput } from "./define.ts";

/**
 * @param read reads the whole of it, once its size is known to be one that can be shown
 * @param instead the call that reads its bytes
 * @throws {ToolError} `not_shown` for one that a client could not take
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
