import * as z from "zod";
import { MAX_CELLS } from "../../container/sandboxd/protocol.ts";
import { defineTool, runField, wholeNumber, requireSandboxOf } from "./define.ts";
import { PAGE_BYTES } from "../runs/runs.ts";
import { logPage, pageOutput } from "./log-page.ts";
import { longLineText, nothingToType, skippedText } from "./texts.ts";

const MAX_TEXT = 10_000;

/** How many bytes of one line a terminal passes to programs that read whole lines (`MAX_CANON`, N_TTY_BUF_SIZE in Linux). */
const LINE_BYTES = 4095;

function hasLongLine(text: string): boolean {
  return text.split(/[\r\n]/).some((line) => new TextEncoder().encode(line).length > LINE_BYTES);
}

export const sendInput = defineTool({
  name: "send_input",
  title: "Type into a command",
  description: "Types into an interactive run_command. Returns the new output once it pauses.",
  input: z.strictObject({
    id: runField(),
    text: z
      .string()
      .max(
        MAX_TEXT,
        `is longer than ${MAX_TEXT} characters: save it with write_file, and have the program read the file`,
      )
      .default("")
      .describe("\\n is Enter, \\u0003 Ctrl-C, \\u001b[A Up."),
    columns: wholeNumber(1, MAX_CELLS).optional().describe("With rows: resizes the terminal."),
    rows: wholeNumber(1, MAX_CELLS).optional(),
  }),
  output: logPage,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ id, text, columns, rows }, context) {
    const size = columns === undefined || rows === undefined ? undefined : { columns, rows };
    if (!size && (text === "" || columns !== undefined || rows !== undefined)) throw nothingToType();
    // Enter sends a carriage return. The terminal turns it into a line feed unless the program reads raw keys.
    const input = { text: text.replace(/\r?\n/g, "\r"), size };
    const { run, page, skipped } = await context.sandbox(requireSandboxOf(id), (actor, owner) =>
      // A terminal client follows the log by itself, so it gets no output here and need not wait.
      actor.sendInput(owner, id, input, context.isRaw ? 0 : PAGE_BYTES),
    );
    const before = skipped > 0 && !context.isRaw ? skippedText(skipped) : undefined;
    const advice = hasLongLine(text) ? longLineText(LINE_BYTES) : undefined;
    return pageOutput(run, page, advice, { before, isTyped: true, isRaw: context.isRaw });
  },
});
