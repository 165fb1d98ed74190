import * as z from "zod";
import { DEFAULT_LANGUAGE, LANGUAGES, LANGUAGE_TITLES } from "../shared/languages.ts";
import { MAX_RUN_SECONDS } from "../shared/run-seconds.ts";
import { defineTool, sandboxField, sessionField, timeoutField, waitField } from "./define.ts";
import { RUN_CONTINUES } from "./texts.ts";
import { callWait } from "./mcp-task.ts";
import { anyRunFields, codeOutput, runAnswer } from "./run-result.ts";

const MAX_CODE = 1_000_000;

export const runCode = defineTool({
  name: "run_code",
  title: "Run code",
  description: `Runs ${LANGUAGE_TITLES} in /workspace of a Linux sandbox (made on first use). As in a notebook, variables and imports stay for calls with the same language and context.

Returns the last expression's value, output, tracebacks, and plots and PIL images as images. Top-level await works. Install packages with run_command.

A timeout interrupts Python, which usually keeps its variables; other kernels restart.`,
  input: z.strictObject({
    code: z
      .string()
      .min(1)
      .max(MAX_CODE, `is longer than ${MAX_CODE} characters: save it with write_file and run the file`),
    language: z.enum(LANGUAGES).default(DEFAULT_LANGUAGE),
    sandbox: sandboxField(),
    context: sessionField("default"),
    timeout_seconds: timeoutField(120, MAX_RUN_SECONDS),
    wait_seconds: waitField().describe(RUN_CONTINUES),
  }),
  data: codeOutput,
  hasLongAnswers: true,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:exec"],
  async handle({ code, language, sandbox, context: kernel, timeout_seconds, wait_seconds }, context) {
    const spec = { code, language, context: kernel, timeoutMs: timeout_seconds * 1000 };
    const { waitMs, taskOf } = callWait(context, wait_seconds, "sandbox:read");
    const run = await context.sandbox(sandbox, (actor, owner) =>
      actor.executeCode(owner, spec, waitMs, context.isStructured === true, context.progress),
    );
    const task = taskOf(run);
    if (task) return { content: [], task };
    return runAnswer(context, run, anyRunFields);
  },
});
