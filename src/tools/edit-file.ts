import { z } from "zod";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { ToolError } from "../shared/errors.ts";
import { fenced, shownName } from "../shared/shown.ts";
import { defineTool, pathField, sandboxField, sections, text } from "./define.ts";

/** Code can read files, too. */
const MAY_READ = ["sandbox:read", "sandbox:exec"] as const;

/** Edits in one call. */
const MAX_EDITS = 200;

export const editFile = defineTool({
  name: "edit_file",
  title: "Edit a file",
  description:
    "Replaces exact text in a file, all edits or none, and returns the diff. Each old_text must occur once, unless all is set.",
  input: z.strictObject({
    path: pathField(),
    edits: z
      .array(
        z.strictObject({
          old_text: z.string().min(1),
          new_text: z.string(),
          all: z.boolean().default(false),
        }),
      )
      .min(1)
      .max(MAX_EDITS)
      .describe("In this order."),
    sandbox: sandboxField(),
  }),
  output: z.object({
    path: z.string(),
    replaced: z.number(),
    size: z.number(),
    diff: z.string(),
    notice: z.string().optional(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ path, edits, sandbox }, context) {
    const same = edits.findIndex(({ old_text, new_text }) => old_text === new_text);
    if (same >= 0)
      throw new ToolError(
        "invalid_argument",
        `The old_text and the new_text of edit ${same + 1} are the same; nothing was written.`,
        "Leave that edit out, or give the text that is to be there.",
      );
    const { value, notice } = await context.operate(sandbox, "edit", { path, body: edits });
    const { size, replaced = 0, diff = "" } = value;
    const structured = { path: absolute(path), replaced, size, diff, notice };
    const mayRead = MAY_READ.some((scope) => context.principal.scopes.includes(scope));
    const left = mayRead && diff === "" ? " Computing a diff of it would take too long." : "";
    const summary = `${replaced} replaced in ${shownName(structured.path)}; it has ${size} bytes now.${left}`;
    const withNotice = [sections([["notice", notice]]), summary].filter(Boolean).join("\n");
    return { content: [text(withNotice), ...(diff ? [text(fenced(diff))] : [])], structured };
  },
});
