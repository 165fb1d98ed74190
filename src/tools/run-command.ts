import { z } from "zod";
import { ToolError } from "../shared/errors.ts";
import { SESSION_NAME, SESSION_NAME_RULE } from "../shared/names.ts";
import { MAX_RUN_SECONDS } from "../shared/run-seconds.ts";
import { defineTool, sandboxField, timeoutField, variablesField, waitField } from "./define.ts";
import { patienceOf } from "./mcp-task.ts";
import { runContent, runFields, runOutput } from "./run-result.ts";

/** Characters of a command, and of its input. Longer ones go into a file. */
const MAX_COMMAND = 100_000;
const MAX_STDIN = 1_000_000;

/** How long a command may run when the call does not say, seconds. */
const TIMEOUT_S = 120;
const INTERACTIVE_TIMEOUT_S = 3600;

export const runCommand = defineTool({
  name: "run_command",
  title: "Run a shell command",
  description: `Runs a bash command in a Linux sandbox (made on first use), as root, starting in /workspace.

The working directory, exported variables and functions carry over to the next command of the same session. Sessions are like terminal tabs: each keeps its own, and several run at once; commands of one session run one after another. Standard input is empty but for stdin: pass -y or the like, or use interactive and send_input for prompts, REPLs and debuggers.

A program that fails is a result with its exit_code. When timeout_seconds pass, the command is stopped with all its children (state timed_out). Background processes (cmd > log 2>&1 &) keep running. Long output is shown by its beginning and end; get_result reads all of it.`,
  input: z.strictObject({
    command: z
      .string()
      .min(1)
      .max(
        MAX_COMMAND,
        `is longer than ${MAX_COMMAND} characters: write_file the script, then run it with bash`,
      )
      .refine((value) => !value.includes("\0"), "must not hold a NUL character")
      .describe("Bash source; several lines, pipes, quotes and heredocs work."),
    session: z
      .string()
      .refine((name) => SESSION_NAME.test(name), SESSION_NAME_RULE)
      .default("main"),
    cwd: z
      .string()
      .max(4096)
      .refine((value) => !value.includes("\0"), "must not hold a NUL character")
      .optional()
      .describe("Directory for this command only."),
    env: variablesField("Variables for this command only."),
    stdin: z
      .string()
      .max(MAX_STDIN, `is longer than ${MAX_STDIN} characters: write_file it, then redirect it with <`)
      .optional(),
    interactive: z
      .boolean()
      .default(false)
      .describe("Runs it in a terminal; returns its id and what it shows as soon as that rests."),
    sandbox: sandboxField(),
    timeout_seconds: timeoutField(120, MAX_RUN_SECONDS)
      .unwrap()
      .optional()
      .describe(
        `Seconds after which it is stopped; ${TIMEOUT_S} when left out, ${INTERACTIVE_TIMEOUT_S} if interactive.`,
      ),
    wait_seconds: waitField(),
  }),
  output: runOutput,
  hasLongAnswers: true,
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ sandbox, timeout_seconds, wait_seconds, ...asked }, context) {
    if (asked.interactive && asked.stdin !== undefined) throw oneInput();
    const timeoutS = timeout_seconds ?? (asked.interactive ? INTERACTIVE_TIMEOUT_S : TIMEOUT_S);
    const spec = { ...asked, timeoutMs: timeoutS * 1000 };
    // Whoever makes a task waits for its end, before which a program that is typed into asks for more.
    const poll = asked.interactive ? undefined : "sandbox:read";
    const { waitMs, taskOf } = patienceOf(context, wait_seconds, poll);
    const { value: run, notice } = await context.sandbox(sandbox, (actor, owner) =>
      actor.executeCommand(
        owner,
        spec,
        waitMs,
        context.isStructured === true || asked.interactive,
        context.progress,
      ),
    );
    const task = taskOf(run, notice);
    if (task) return { content: [], task };
    return { content: await runContent(context, run, notice), structured: runFields(run, notice) };
  },
});

function oneInput(): ToolError {
  return new ToolError(
    "invalid_argument",
    "stdin and interactive were both given: a terminal reads only what is typed.",
    "Leave stdin out, and type its text with send_input.",
  );
}
