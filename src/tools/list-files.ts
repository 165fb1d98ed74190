import * as z from "zod";
import { ANY_DEPTH } from "../../container/sandboxd/operations.ts";
import { MAX_LISTED, absolute } from "../../container/sandboxd/shapes.ts";
import { NOT_UTF8 } from "../container/texts.ts";
import { requireListCursor } from "../container/file-operations.ts";
import { shownName, shownTime } from "../shared/shown.ts";
import { defineTool, pathField, sandboxField, text, wholeNumber } from "./define.ts";
import { emptyDirectoryText, longNames, moreFilesText } from "./texts.ts";

/** The longest text of a listing, in characters: enough for 5,000 names, but not for 5,000 long paths. */
const MAX_CHARS = 4.5 * 1024 * 1024;

export const listFiles = defineTool({
  name: "list_files",
  title: "List files",
  description: "Lists a directory by name: type, bytes, last change, path.",
  input: z.strictObject({
    path: pathField().default("/workspace"),
    recursive: z.boolean().default(false),
    limit: wholeNumber(1, MAX_LISTED).default(200),
    cursor: z.string().optional(),
    sandbox: sandboxField(),
  }),
  output: z.object({
    path: z.string(),
    entries: z.array(
      z.object({
        path: z.string(),
        type: z.enum(["file", "directory", "symlink", "other"]),
        size: z.number(),
        modified: z.string(),
      }),
    ),
    more: z.boolean(),
    next_cursor: z.string().optional(),
  }),
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle({ path, recursive, limit, cursor, sandbox }, context) {
    const after = requireListCursor(cursor);
    const depth = recursive ? ANY_DEPTH : 1;
    const { entries, next } = await context.operate(sandbox, "list", { path, depth, limit, after });
    const structured = { path: absolute(path), entries, more: next !== undefined, next_cursor: next };
    let chars = 0;
    const lines = entries.map((entry) => {
      const line = `${entry.type.padEnd(9)} ${String(entry.size).padStart(10)} ${shownTime(entry.modified)} ${shownName(entry.path)}`;
      chars += line.length;
      if (chars > MAX_CHARS) throw longNames(entries.length);
      return line;
    });
    if (entries.length === 0) lines.push(emptyDirectoryText(structured.path, after !== undefined));
    if (entries.some((entry) => entry.path.includes("\uFFFD"))) lines.push(NOT_UTF8);
    if (next !== undefined) lines.push(moreFilesText(next, MAX_LISTED));
    return { content: [text(lines.join("\n"))], structured };
  },
});
