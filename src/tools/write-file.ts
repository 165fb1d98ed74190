import * as z from "zod";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { defineTool, pathField, sandboxField, text } from "./define.ts";
import { notBase64, notWellFormed, writtenText } from "./texts.ts";

export const writeFile = defineTool({
  name: "write_file",
  title: "Write a file",
  description:
    "Writes a file atomically, or appends to it; makes missing directories. Above 6 MB, append or use file_link.",
  input: z.strictObject({
    path: pathField(),
    content: z.string(),
    encoding: z.enum(["utf-8", "base64"]).default("utf-8"),
    append: z.boolean().default(false),
    sandbox: sandboxField(),
  }),
  output: z.object({
    path: z.string(),
    bytes_written: z.number(),
    size: z.number(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ path, content, encoding, append, sandbox }, context) {
    const bytes = encoding === "base64" ? fromBase64(content) : encodeText(content);
    const { size } = await context.operate(sandbox, append ? "append" : "write", {
      path,
      body: bytes,
    });
    const structured = { path: absolute(path), bytes_written: bytes.length, size };
    const summary = writtenText(structured.path, bytes.length, size, append);
    return { content: [text(summary)], structured };
  },
});

function encodeText(content: string): Uint8Array {
  if (!content.isWellFormed()) throw notWellFormed();
  return new TextEncoder().encode(content);
}

function fromBase64(content: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(content, { alphabet: /[-_]/.test(content) ? "base64url" : "base64" });
  } catch {
    throw notBase64();
  }
}
