import { z } from "zod";
import { NOT_UTF8, absolute } from "../container/files.ts";
import { defineTool, pathField, sandboxField, sections, text } from "./define.ts";

export const listFiles = defineTool({
  name: "list_files",
  title: "List files",
  description:
    "Lists a directory of a sandbox in the order of names, hidden files included: type, size in bytes, time of the last change and path.",
  input: z.strictObject({
    path: pathField().default("/workspace"),
    recursive: z.boolean().default(false).describe("Also everything below."),
    limit: z.number().int().min(1).max(5000).default(200),
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
    notice: z.string().optional(),
  }),
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle({ path, recursive, limit, sandbox }, context) {
    const { value, notice } = await context.reading(sandbox, (actor, owner) =>
      actor.listDirectory(owner, path, recursive, limit + 1),
    );
    const more = value.length > limit;
    const entries = value.slice(0, limit);
    const structured = { path: absolute(path), entries, more, notice };
    const lines = entries.map(
      (entry) =>
        `${entry.type.padEnd(9)} ${String(entry.size).padStart(10)} ${entry.modified} ${shownName(entry.path)}`,
    );
    if (entries.length === 0) lines.push(`${structured.path} is empty.`);
    if (entries.some((entry) => entry.path.includes("\uFFFD"))) lines.push(NOT_UTF8);
    if (more) lines.push(`... and more: raise limit (at most 5000) or list a directory below.`);
    return {
      content: [text([sections([["notice", notice]]), ...lines].filter(Boolean).join("\n"))],
      structured,
    };
  },
});

/** A name as it is when it is safe on a line of its own, else as a JSON string. */
function shownName(name: string): string {
  return /^\s|\s$|\p{Cc}|[\u2028\u2029"]/u.test(name) ? JSON.stringify(name) : name;
}
