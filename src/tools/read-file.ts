import { z } from "zod";
import type { Result } from "../../container/sandboxd/operations.ts";
import { ToolError } from "../shared/errors.ts";
import { IMAGE_BYTES, absolute } from "../../container/sandboxd/shapes.ts";
import { imageType } from "../shared/image-header.ts";
import { fenced, shownName } from "../shared/shown.ts";
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

/** The default number of lines in one result. */
const LINES = 2000;

/** The most bytes of text in one result: about 8,000 tokens of a model unless it says how many lines it wants. */
const DEFAULT_TEXT = 32 * 1024;
const MAX_TEXT = 64 * 1024;

/** How to get at bytes that are not shown. */
const BY_BYTES = `file_link gives the user a URL of it. To read its bytes, call read_file with encoding base64, ${BINARY_BYTES} bytes at a time`;

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
  description: `Reads a file. Text comes by lines, and says where to go on; images (PNG, JPEG, GIF, WebP) come as images, scaled down if large; for others, type, size and first bytes. base64 reads bytes, up to ${BINARY_BYTES} a call.`,
  input: z.strictObject({
    path: pathField(),
    offset: z
      .number()
      .int()
      .min(0)
      .optional()
      .describe("First line, from 1; with base64 first byte, from 0."),
    limit: z.number().int().min(1).optional().describe(`Lines (default ${LINES}) or bytes.`),
    encoding: z.enum(["utf-8", "base64"]).optional().describe("utf-8 insists on text."),
    sandbox: sandboxField(),
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
      if (encoding === "utf-8")
        throw new ToolError(
          "invalid_argument",
          `${absolute(request.path)} is not UTF-8 text.`,
          "Read it with encoding base64, or leave encoding out.",
        );
      if (offset > 1)
        throw new ToolError(
          "invalid_argument",
          `${absolute(request.path)} is not UTF-8 text from line ${offset} on.`,
          "Read it with encoding base64, whose offset counts bytes.",
        );
      if (imageType(range.bytes)) {
        const image = await asImage(request, range.size, context);
        return { content: [...blocks(sections([["notice", notice]])), ...image] };
      }
      const path = absolute(request.path);
      const described = await describeBinary(
        path,
        range.size,
        range.bytes,
        `${BY_BYTES} (offset is a byte).`,
      );
      return {
        content: await linked(blocks(sections([["notice", notice]]), described), request, range, context),
      };
    }
    const summary = howToReadOn(content, cut && most, offset, range, request.path);
    const shown = blocks(
      [sections([["notice", notice]]), content && fenced(content), summary].filter(Boolean).join("\n"),
    );
    const path = absolute(request.path);
    const structured = { path, size: range.size, lines: range.lines, offset, content, notice };
    // Who asks for a part of it has been told, or knows, that there is more.
    const isTooLong = range.size > most && offset === 1 && request.limit === undefined;
    return { content: isTooLong ? await linked(shown, request, range, context) : shown, structured };
  },
});

/**
 * How to read on in a file that is not shown whole; empty when it is.
 * @param cut after how many bytes its text is cut, if it is
 */
function howToReadOn(
  content: string,
  cut: number | false,
  offset: number,
  range: Lines,
  path: string,
): string {
  const { size, lines } = range;
  const name = shownName(absolute(path));
  const whole = `${name} has ${counted(lines, "line")}, ${counted(size, "byte")}`;
  if (content === "") return size === 0 ? `[${name} is empty.]` : `[${whole}: there is no line ${offset}.]`;
  const partial = cut !== false && !content.endsWith("\n");
  const last = offset + content.split("\n").length - (content.endsWith("\n") ? 2 : 1);
  if (partial && last === offset)
    return `[${whole}. Line ${offset} is longer than ${cut} bytes: go on by bytes, with encoding base64.]`;
  if (partial) return `[${whole}; shown up to a part of line ${last}. Go on with offset ${last}.]`;
  if (last < lines) return `[${whole}; shown up to line ${last}. Go on with offset ${last + 1}.]`;
  const unended = content.endsWith("\n") ? "" : " Its last line has no line break.";
  return offset === 1 ? unended && `[${name}:${unended}]` : `[${whole}; this is the end.${unended}]`;
}

/** A result with a link to the file, for whoever wants all of it. */
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
  const file = { sandbox, path: absolute(path), size, read, instead: `${BY_BYTES}.`, original };
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
  const rest = end < value.size ? ` Go on with encoding base64 and offset ${end}.` : "";
  const whole = `${shownName(absolute(path))} has ${counted(value.size, "byte")}`;
  const isBehind = offset > 0 && offset >= value.size;
  const summary = isBehind
    ? `[${whole}: there is no byte ${offset}.]`
    : `[${whole}; bytes ${offset} to ${end} in base64.${rest}]`;
  const content = value.bytes.toBase64();
  return {
    content: blocks(sections([["notice", notice]]), content, summary),
    structured: { path: absolute(path), size: value.size, offset, content, notice },
  };
}

function counted(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

function blocks(...texts: string[]) {
  return texts.filter(Boolean).map(text);
}
