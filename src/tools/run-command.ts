import * as z from "zod";
import { MAX_RUN_SECONDS } from "../shared/run-seconds.ts";
import {
  defineTool,
  sandboxField,
  sessionField,
  variablesField,
  waitField,
  wholeNumber,
  forbidNUL,
} from "./define.ts";
import { signInAnswer, gitQuestion } from "./git-sign-in.ts";
import { callWait } from "./mcp-task.ts";
import { runAnswer, runFields, runOutput } from "./run-result.ts";
import { RUN_CONTINUES, oneInput } from "./texts.ts";

const MAX_COMMAND = 100_000;
const MAX_STDIN = 1_000_000;

const TIMEOUT_S = 120;
const INTERACTIVE_TIMEOUT_S = 3600;

export const runCommand = defineTool({
  name: "run_command",
  title: "Run a shell command",
  description: `Runs bash as root in /workspace of a Linux sandbox (made on first use).

A session keeps its directory, exported variables and functions; cwd and env apply to one command. Sessions run in parallel. Without stdin, programs cannot ask: pass -y, or use interactive and send_input for prompts, REPLs and debuggers.

A failing program is a result with its exit_code. A timeout stops the command and all that it started. Background processes (cmd > log 2>&1 &) outlive a command that ends by itself.`,
  input: z.strictObject({
    command: forbidNUL(
      z
        .string()
        .min(1)
        .max(
          MAX_COMMAND,
          `is longer than ${MAX_COMMAND} characters: save it with write_file and run the file with bash`,
        ),
    ),
    session: sessionField("main"),
    cwd: forbidNUL(z.string().max(4096)).optional(),
    env: variablesField(),
    stdin: z
      .string()
      .max(
        MAX_STDIN,
        `is longer than ${MAX_STDIN} characters: save it with write_file, then redirect the file with <`,
      )
      .optional(),
    interactive: z.boolean().default(false).describe("In a terminal; returns its screen and id."),
    sandbox: sandboxField(),
    timeout_seconds: wholeNumber(1, MAX_RUN_SECONDS)
      .optional()
      .describe(`Default ${TIMEOUT_S}; interactive ${INTERACTIVE_TIMEOUT_S}.`),
    wait_seconds: waitField().describe(RUN_CONTINUES),
  }),
  output: runOutput,
  hasLongAnswers: true,
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ sandbox, timeout_seconds, wait_seconds, ...parameters }, context) {
    if (parameters.interactive && parameters.stdin !== undefined) throw oneInput();
    // After a question about a git sign-in, this call returns the earlier run: the server never repeats a command by itself.
    const before = await signInAnswer(context, { isTask: false });
    if (before) return runAnswer(context, before.run, runFields, before.hint);
    const timeoutS = timeout_seconds ?? (parameters.interactive ? INTERACTIVE_TIMEOUT_S : TIMEOUT_S);
    const spec = { ...parameters, timeoutMs: timeoutS * 1000 };
    // The client of an MCP task waits for the task's end, but an interactive program asks for input before its end.
    const pollScope = parameters.interactive ? undefined : "sandbox:read";
    const { waitMs, taskOf } = callWait(context, wait_seconds, pollScope);
    const isLive = context.isStructured === true || parameters.interactive;
    const run = await context.sandbox(sandbox, (actor, owner) =>
      actor.executeCommand(owner, spec, waitMs, isLive, context.progress),
    );
    const task = taskOf(run);
    if (task) return { content: [], task };
    const question = gitQuestion(context, run, { isRepeatable: false });
    if (question) return { content: [], question };
    return runAnswer(context, run, runFields);
  },
});
