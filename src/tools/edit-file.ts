import * as z from "zod";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { putInFence } from "../shared/shown.ts";
import { defineTool, pathField, sandboxField, text, wellFormedText } from "./define.ts";
import { editedText, sameText } from "./texts.ts";

/** The scopes that may see a diff. `sandbox:exec` is one of them, because code can read files. */
const MAY_READ = ["sandbox:read", "sandbox:exec"] as const;

const MAX_EDITS = 200;

export const editFile = defineTool({
  name: "edit_file",
  title: "Edit a file",
  description:
    "Replaces exact text in a file: all edits, in order, or none. old_text must occur once unless all=true. Returns the diff.",
  input: z.strictObject({
    path: pathField(),
    edits: z
      .array(
        z.strictObject({
          old_text: wellFormedText(z.string().min(1)),
          new_text: wellFormedText(z.string()),
          all: z.boolean().default(false),
        }),
      )
      .min(1)
      .max(MAX_EDITS),
    sandbox: sandboxField(),
  }),
  output: z.object({
    path: z.string(),
    replaced: z.number(),
    size: z.number(),
    diff: z.string(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ path, edits, sandbox }, context) {
    const same = edits.findIndex(({ old_text, new_text }) => old_text === new_text);
    if (same >= 0) throw sameText(same + 1);
    const { size, replaced = 0, diff = "" } = await context.operate(sandbox, "edit", { path, body: edits });
    const structured = { path: absolute(path), replaced, size, diff };
    const mayRead = MAY_READ.some((scope) => context.principal.scopes.includes(scope));
    const summary = editedText(structured.path, replaced, size, mayRead && diff === "");
    return {
      content: [text(summary), ...(diff ? [text(putInFence(diff))] : [])],
      structured,
    };
  },
});
