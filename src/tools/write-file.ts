import { z } from "zod";
import { ToolError } from "../shared/errors.ts";
import { shownName } from "../shared/shown.ts";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { defineTool, pathField, sandboxField, sections, text } from "./define.ts";

export const writeFile = defineTool({
  name: "write_file",
  title: "Write a file",
  description:
    "Writes a file atomically, or appends to it; makes missing directories. Up to about 6 MB a call: append the rest, or use file_link.",
  input: z.strictObject({
    path: pathField(),
    content: z.string().describe("Text, or bytes in base64."),
    encoding: z.enum(["utf-8", "base64"]).default("utf-8"),
    append: z.boolean().default(false),
    sandbox: sandboxField(),
  }),
  output: z.object({
    path: z.string(),
    bytes_written: z.number(),
    size: z.number(),
    notice: z.string().optional(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ path, content, encoding, append, sandbox }, context) {
    const bytes = encoding === "base64" ? fromBase64(content) : encodeText(content);
    const { value, notice } = await context.operate(sandbox, append ? "append" : "write", {
      path,
      body: bytes,
    });
    const { size } = value;
    const structured = { path: absolute(path), bytes_written: bytes.length, size, notice };
    const summary = `${bytes.length} bytes ${append ? "appended to" : "written to"} ${shownName(structured.path)}; it has ${size} bytes now.`;
    return {
      content: [text([sections([["notice", notice]]), summary].filter(Boolean).join("\n"))],
      structured,
    };
  },
});

function encodeText(content: string): Uint8Array {
  if (!content.isWellFormed())
    throw new ToolError(
      "invalid_argument",
      "The content holds half of a surrogate pair, which no UTF-8 file can hold; nothing was written.",
      "Send the bytes with encoding base64.",
    );
  return new TextEncoder().encode(content);
}

function fromBase64(content: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(content, { alphabet: /[-_]/.test(content) ? "base64url" : "base64" });
  } catch {
    throw new ToolError(
      "invalid_argument",
      "The content is not valid base64; nothing was written.",
      "Encode the bytes again, or send text with encoding utf-8.",
    );
  }
}
