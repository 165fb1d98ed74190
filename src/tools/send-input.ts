import { z } from "zod";
import { defineTool, runField } from "./define.ts";
import { PAGE_BYTES, logPage, pageOutput } from "./log-page.ts";
import { ownRun } from "./own-run.ts";

/** Characters typed by one call; a longer text goes into a file. */
const MAX_TEXT = 10_000;

export const sendInput = defineTool({
  name: "send_input",
  title: "Type into a command",
  description:
    "Types into an interactive run_command and returns what its terminal shows since the last answer, as soon as that rests for a moment.",
  input: z.strictObject({
    id: runField(),
    text: z
      .string()
      .min(1)
      .max(
        MAX_TEXT,
        `is longer than ${MAX_TEXT} characters: write_file it, and have the program read the file`,
      )
      .describe("\\n is Enter. Keys: \\u0003 Ctrl-C, \\u0004 Ctrl-D, \\u001b Escape, \\u001b[A Up."),
  }),
  output: logPage,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ id, text }, context) {
    const { value, notice } = await context.sandbox(ownRun(id), (actor, owner) =>
      // The Enter key is a carriage return, of which the terminal makes a line feed unless a program wants the key itself.
      actor.sendInput(owner, id, text.replace(/\r?\n/g, "\r"), PAGE_BYTES),
    );
    const { run, page, skipped } = value;
    const before =
      skipped > 0
        ? `${skipped} bytes before are in the log: get_result, id ${id}, with a cursor.`
        : undefined;
    return pageOutput(run, page, notice, before);
  },
});
