import { z } from "zod";
import { MAX_CELLS } from "../../container/sandboxd/protocol.ts";
import { ToolError } from "../shared/errors.ts";
import { defineTool, runField } from "./define.ts";
import { PAGE_BYTES } from "../runs/runs.ts";
import { logPage, pageOutput } from "./log-page.ts";
import { ownRun } from "./own-run.ts";

/** Characters typed by one call; a longer text goes into a file. */
const MAX_TEXT = 10_000;

/** Bytes of a line that a terminal keeps for a program that reads lines (`MAX_CANON`, N_TTY_BUF_SIZE of Linux). */
const LINE_BYTES = 4095;

const LONG_LINE = `A line of more than ${LINE_BYTES} bytes was typed: of that, a program that reads lines (read, input(), cat) gets the first ${LINE_BYTES}; one with keys of its own (a REPL, an editor) gets all. Give longer ones in a file (write_file).`;

function hasLongLine(text: string): boolean {
  return text.split(/[\r\n]/).some((line) => new TextEncoder().encode(line).length > LINE_BYTES);
}

export const sendInput = defineTool({
  name: "send_input",
  title: "Type into a command",
  description:
    "Types into an interactive run_command, and returns what its terminal shows since the last answer, once that rests.",
  input: z.strictObject({
    id: runField(),
    text: z
      .string()
      .max(
        MAX_TEXT,
        `is longer than ${MAX_TEXT} characters: write_file it, and have the program read the file`,
      )
      .default("")
      .describe("\\n is Enter, \\u0003 Ctrl-C, \\u0004 Ctrl-D, \\u001b Escape, \\u001b[A Up."),
    columns: z.number().int().min(1).max(MAX_CELLS).optional().describe("With rows: resizes the terminal."),
    rows: z.number().int().min(1).max(MAX_CELLS).optional(),
  }),
  output: logPage,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ id, text, columns, rows }, context) {
    const size = columns === undefined || rows === undefined ? undefined : { columns, rows };
    if (!size && (text === "" || columns !== undefined || rows !== undefined)) throw emptyInput();
    // The Enter key is a carriage return, of which the terminal makes a line feed unless a program wants the key itself.
    const input = { text: text.replace(/\r?\n/g, "\r"), size };
    const { value, notice } = await context.sandbox(ownRun(id), (actor, owner) =>
      // A program that is a terminal follows the log by itself: it gets none, and is not kept waiting for it.
      actor.sendInput(owner, id, input, context.isRaw ? 0 : PAGE_BYTES),
    );
    const { run, page, skipped } = value;
    const before =
      skipped > 0 && !context.isRaw
        ? `${skipped} bytes before are in the log: get_result with a cursor.`
        : undefined;
    const notices = [notice, hasLongLine(text) ? LONG_LINE : undefined].filter(Boolean).join(" ");
    return pageOutput(run, page, notices || undefined, { before, isTyped: true, isRaw: context.isRaw });
  },
});

function emptyInput(): ToolError {
  return new ToolError("invalid_argument", "It takes a text to type, or columns and rows, or all three.");
}
