import * as z from "zod";
import { IMAGE_BYTES, absolute } from "../../container/sandboxd/shapes.ts";
import { imageType } from "../../container/sandboxd/image-header.ts";
import { putInFence } from "../shared/shown.ts";
import { decodeStrictly, wholeCharacters } from "../shared/text.ts";
import { BINARY_BYTES, describeBinary } from "./binary.ts";
import { fileDownloads, addDownloads } from "./download.ts";
import { imageBlocks } from "./image.ts";
import { type ToolContext, defineTool, pathField, sandboxField, text } from "./define.ts";
import { byBytesText, notText, notTextFrom, nulFrom, readBytesText, shownLinesText } from "./texts.ts";

const DEFAULT_LINES = 2000;

const DEFAULT_TEXT = 32 * 1024;
const MAX_TEXT = 64 * 1024;

interface Request {
  path: string;
  offset?: number;
  limit?: number;
  sandbox: string;
}

export const readFile = defineTool({
  name: "read_file",
  title: "Read a file",
  description: `Returns text by lines; PNG, JPEG, GIF and WebP as images, scaled down if large; other files as type, size and first bytes.`,
  input: z.strictObject({
    path: pathField().describe("Relative to /workspace, or absolute."),
    offset: z.number().int().min(0).optional().describe("First line, from 1; base64: first byte, from 0."),
    limit: z.number().int().min(1).optional().describe(`Lines (default ${DEFAULT_LINES}) or bytes.`),
    encoding: z.enum(["utf-8", "base64"]).optional(),
    sandbox: sandboxField(),
  }),
  data: z.object({
    path: z.string(),
    size: z.number(),
    lines: z.number().optional(),
    offset: z.number(),
    content: z.string(),
  }),
  hasLongAnswers: true,
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle({ encoding, ...request }, context) {
    if (encoding === "base64") return asBytes(request, context);
    const { sandbox } = request;
    const path = absolute(request.path);
    const offset = Math.max(1, request.offset ?? 1);
    const maxBytes = request.limit === undefined ? DEFAULT_TEXT : MAX_TEXT;
    const call = { path: request.path, offset, limit: request.limit ?? DEFAULT_LINES, max: maxBytes + 1 };
    const { size, lines, bytes } = await context.operate(sandbox, "readLines", call);
    const links = () => fileDownloads(context, sandbox, [{ path, size }]);
    const isCut = bytes.length > maxBytes;
    const complete = wholeCharacters(bytes.subarray(0, maxBytes), isCut ? "end" : "none");
    const content = decodeStrictly(complete);
    // Files with NUL are rarely text, so they are shown as text only on request.
    const hasNUL = content !== undefined && encoding !== "utf-8" && complete.includes(0);
    if (content === undefined || hasNUL) {
      if (encoding === "utf-8") throw notText(path);
      if (offset > 1) throw hasNUL ? nulFrom(path, offset) : notTextFrom(path, offset);
      if (imageType(bytes)) {
        const wholeFile = { path: request.path, offset: 0, limit: Math.min(size, IMAGE_BYTES) };
        const read = async () => (await context.operate(sandbox, "read", wholeFile)).bytes;
        const instead = byBytesText(BINARY_BYTES);
        return { content: await imageBlocks(context, { sandbox, path, size, read, instead, links }) };
      }
      const next = byBytesText(BINARY_BYTES, " (offset counts bytes)");
      const described = describeBinary(path, { size, start: bytes, next, hasNUL });
      return { content: addDownloads(context, [text(described)], await links()) };
    }
    const summary = shownLinesText(path, { size, lines, offset, content, cut: isCut && maxBytes });
    const shown = [text([content && putInFence(content), summary].filter(Boolean).join("\n"))];
    const structured = { path, size, lines, offset, content };
    // A caller who asked for a part knows that the file has more.
    const isTooLong = size > maxBytes && offset === 1 && request.limit === undefined;
    return { content: isTooLong ? addDownloads(context, shown, await links()) : shown, structured };
  },
});

async function asBytes({ path, offset = 0, limit = BINARY_BYTES, sandbox }: Request, context: ToolContext) {
  const call = { path, offset, limit: Math.min(limit, BINARY_BYTES) };
  const { bytes, size } = await context.operate(sandbox, "read", call);
  const end = offset + bytes.length;
  const summary = readBytesText(absolute(path), offset, end, size);
  const content = bytes.toBase64();
  return {
    content: [content, summary].filter(Boolean).map(text),
    structured: { path: absolute(path), size, offset, content },
  };
}
