/** A file that a task left, as an answer of get_result. */
import { wholeText } from "../sandbox/text.ts";
import { type ToolContext, type ToolOutput, text } from "./define.ts";
import { IMAGE_BYTES, imageType } from "./images.ts";
import { ownRun } from "./own-run.ts";

/** Bytes of one answer: text, and what base64 is made of. */
const MAX_TEXT = 48 * 1024;
const MAX_BINARY = 384 * 1024;

export async function artifactOutput(
  context: ToolContext,
  id: string,
  path: string,
  cursor = 0,
): Promise<ToolOutput> {
  const read = async (maxBytes: number) => {
    const answer = await context.reading(ownRun(id), (actor, owner) =>
      actor.readArtifact(owner, id, path, cursor, maxBytes),
    );
    return answer.value;
  };
  const { size, bytes } = await read(MAX_TEXT);
  const content = wholeText(bytes, cursor + bytes.length < size);
  if (content) {
    const next = cursor + content.bytes;
    const said = `[${path}, bytes ${cursor} to ${next} of ${size}. ${next < size ? `Go on with cursor ${next}.` : "This is the end."}]`;
    return { content: [...(content.text ? [text(content.text)] : []), text(said)] };
  }
  const mimeType = cursor === 0 && size <= IMAGE_BYTES ? imageType(bytes) : undefined;
  if (mimeType) {
    const whole = await read(IMAGE_BYTES);
    return { content: [{ type: "image", data: whole.bytes.toBase64(), mimeType }] };
  }
  const part = await read(MAX_BINARY);
  const next = cursor + part.bytes.length;
  const rest = next < size ? ` Go on with cursor ${next}.` : " This is the end.";
  return {
    content: [
      text(part.bytes.toBase64()),
      text(`[${path}, bytes ${cursor} to ${next} of ${size} in base64.${rest}]`),
    ],
  };
}
