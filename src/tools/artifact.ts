/** An artifact of a task as an answer of get_result. */
import { IMAGE_BYTES } from "../../container/sandboxd/shapes.ts";
import { imageType } from "../../container/sandboxd/image-header.ts";
import { ARTIFACTS } from "../shared/resource-uri.ts";
import { putInFence } from "../shared/shown.ts";
import { wholeText } from "../shared/text.ts";
import { BINARY_BYTES, describeBinary } from "./binary.ts";
import { runDownloads, addDownloads } from "./download.ts";
import { imageBlocks } from "./image.ts";
import { type ToolContext, text, requireSandboxOf } from "./define.ts";
import { artifactBytesText, artifactPageText } from "./texts.ts";

/** The most bytes of text in one result. */
const MAX_TEXT = 48 * 1024;

/** @param requestedCursor the first byte to read. Without it, the answer shows an image, and describes any other binary file. */
export async function artifactOutput(
  context: ToolContext,
  id: string,
  path: string,
  requestedCursor?: number,
) {
  const cursor = requestedCursor ?? 0;
  const read = (maxBytes: number) =>
    context.reading(requireSandboxOf(id), (actor, owner) =>
      actor.readArtifact(owner, id, path, cursor, maxBytes),
    );
  const linksTo = (size: number) =>
    runDownloads(context, id, [{ name: ARTIFACTS + path, size, shown: path }]);
  const { size, bytes } = await read(MAX_TEXT);
  const content = wholeText(bytes, cursor + bytes.length < size ? "end" : "none");
  if (content) {
    const next = cursor + content.bytes;
    const summary = artifactPageText(path, cursor, next, size, false);
    const downloads = requestedCursor === undefined && next < size ? await linksTo(size) : [];
    const blocks = [text([content.text && putInFence(content.text), summary].filter(Boolean).join("\n"))];
    const next_cursor = next < size ? next : undefined;
    const structured = { path, size, cursor, content: content.text, next_cursor, url: downloads[0]?.url };
    return { content: addDownloads(context, blocks, downloads), structured };
  }
  if (requestedCursor === undefined) {
    const instead = artifactBytesText(BINARY_BYTES);
    const downloads = await linksTo(size);
    const structured = { path, size, url: downloads[0]?.url };
    if (!imageType(bytes)) {
      const described = text(describeBinary(path, { size, start: bytes, next: instead, hasNUL: false }));
      return { content: addDownloads(context, [described], downloads), structured };
    }
    const readImage = async () => (await read(Math.min(size, IMAGE_BYTES))).bytes;
    const file = { sandbox: requireSandboxOf(id), path, size, instead };
    const image = { ...file, read: readImage, links: async () => downloads };
    return { content: await imageBlocks(context, image), structured };
  }
  const part = await read(BINARY_BYTES);
  const next = cursor + part.bytes.length;
  const summary = artifactPageText(path, cursor, next, size, true);
  return { content: [text(part.bytes.toBase64()), text(summary)] };
}
