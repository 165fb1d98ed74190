import * as z from "zod";
import type { Result } from "../../container/sandboxd/operations.ts";
import { IMAGE_BYTES, absolute } from "../../container/sandboxd/shapes.ts";
import { imageType } from "../shared/image-header.ts";
import { fenced } from "../shared/shown.ts";
import { wholeText } from "../shared/text.ts";
import { BINARY_BYTES, describeBinary } from "./binary.ts";
import { fileDownloads, withDownloads } from "./download.ts";
import { imageBlocks } from "./image.ts";
import {
  type ToolContext,
  type ToolOutput,
  defineTool,
  pathField,
  sandboxField,
  sections,
  text,
} from "./define.ts";
import { byBytesText, notText, notTextFrom, readBytesText, readOnText } from "./texts.ts";

const LINES = 2000;

/** The most bytes of text in one result, about 8,000 tokens, unless the call sets a number of lines. */
const DEFAULT_TEXT = 32 * 1024;
const MAX_TEXT = 64 * 1024;

type Lines = Result<"readLines">;

interface Request {
  path: string;
  offset?: number;
  limit?: number;
  sandbox: string;
}

export const readFile = defineTool({
  name: "read_file",
  title: "Read a file",
  description: `Returns text by lines, PNG, JPEG, GIF and WebP as images (scaled down if large), and of other files type, size and first bytes.`,
  input: z.strictObject({
    path: pathField().describe("From /workspace, or absolute."),
    offset: z.number().int().min(0).optional().describe("First line, from 1; base64: first byte, from 0."),
    limit: z.number().int().min(1).optional().describe(`Lines (default ${LINES}) or bytes.`),
    encoding: z.enum(["utf-8", "base64"]).optional(),
    sandbox: sandboxField(),
  }),
  data: z.object({
    path: z.string(),
    size: z.number(),
    lines: z.number().optional(),
    offset: z.number(),
    content: z.string(),
    notice: z.string().optional(),
  }),
  hasLongAnswers: true,
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle({ encoding, ...request }, context) {
    if (encoding === "base64") return asBytes(request, context);
    const offset = Math.max(1, request.offset ?? 1);
    const limit = request.limit ?? LINES;
    const most = request.limit === undefined ? DEFAULT_TEXT : MAX_TEXT;
    const { value: range, notice } = await context.operate(request.sandbox, "readLines", {
      path: request.path,
      offset,
      limit,
      max: most + 1,
    });
    const cut = range.bytes.length > most;
    const content = wholeText(range.bytes.subarray(0, most), cut)?.text;
    if (content === undefined) {
      if (encoding === "utf-8") throw notText(absolute(request.path));
      if (offset > 1) throw notTextFrom(absolute(request.path), offset);
      if (imageType(range.bytes)) {
        const image = await asImage(request, range.size, context);
        return { content: [...blocks(sections([["notice", notice]])), ...image] };
      }
      const path = absolute(request.path);
      const described = await describeBinary(
        path,
        range.size,
        range.bytes,
        byBytesText(BINARY_BYTES, " (offset is a byte)"),
      );
      return {
        content: await linked(blocks(sections([["notice", notice]]), described), request, range, context),
      };
    }
    const path = absolute(request.path);
    const { size, lines } = range;
    const summary = readOnText(path, { size, lines, offset, content, cut: cut && most });
    const shown = blocks(
      [sections([["notice", notice]]), content && fenced(content), summary].filter(Boolean).join("\n"),
    );
    const structured = { path, size: range.size, lines: range.lines, offset, content, notice };
    // A caller who asked for a part knows that there is more.
    const isTooLong = range.size > most && offset === 1 && request.limit === undefined;
    return { content: isTooLong ? await linked(shown, request, range, context) : shown, structured };
  },
});

async function linked(
  content: ToolOutput["content"],
  { path, sandbox }: Request,
  { size }: Lines,
  context: ToolContext,
): Promise<ToolOutput["content"]> {
  const downloads = await fileDownloads(context, sandbox, [{ path: absolute(path), size }]);
  return withDownloads(context, content, downloads);
}

async function asImage(
  { path, sandbox }: Request,
  size: number,
  context: ToolContext,
): Promise<ToolOutput["content"]> {
  const read = async () => {
    const { value } = await context.operate(sandbox, "read", { path, offset: 0, limit: IMAGE_BYTES });
    return value.bytes;
  };
  const original = () => fileDownloads(context, sandbox, [{ path: absolute(path), size }]);
  const file = { sandbox, path: absolute(path), size, read, instead: byBytesText(BINARY_BYTES), original };
  return await imageBlocks(context, file);
}

async function asBytes(
  { path, offset = 0, limit = BINARY_BYTES, sandbox }: Request,
  context: ToolContext,
): Promise<ToolOutput> {
  const { value, notice } = await context.operate(sandbox, "read", {
    path,
    offset,
    limit: Math.min(limit, BINARY_BYTES),
  });
  const end = offset + value.bytes.length;
  const summary = readBytesText(absolute(path), offset, end, value.size);
  const content = value.bytes.toBase64();
  return {
    content: blocks(sections([["notice", notice]]), content, summary),
    structured: { path: absolute(path), size: value.size, offset, content, notice },
  };
}

function blocks(...texts: string[]) {
  return texts.filter(Boolean).map(text);
}
