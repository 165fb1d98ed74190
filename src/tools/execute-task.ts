import * as z from "zod";
import { AGENT_NAMES, MODEL_NAME } from "../shared/names.ts";
import { MAX_RUN_SECONDS } from "../shared/run-seconds.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { defineTool, runField, sandboxName, timeoutField, waitField, wholeNumber } from "./define.ts";
import { followTask } from "./follow-task.ts";
import { signInAnswer, gitQuestion } from "./git-sign-in.ts";
import { callWait } from "./mcp-task.ts";
import { runAnswer } from "./run-result.ts";
import type { RunView } from "../runs/run-types.ts";
import { canRunTasks } from "../shared/config.ts";
import { startTask } from "./start-task.ts";
import { taskFields, taskOutput } from "./task-result.ts";

/** The most characters of a task. A longer text must be in a file of the sandbox or repository. */
export const MAX_TASK = 100_000;

export const TASK_SECONDS = { default: 300, max: MAX_RUN_SECONDS } as const;

/** A schema for text that matches a pattern. The schema that clients get lacks the pattern, to save tokens. */
const matching = (pattern: RegExp, characters: number, message: string) =>
  z
    .string()
    .max(characters)
    .refine((text) => pattern.test(text), message);

const names = () => z.array(z.string()).optional();

/** A repository without a scheme is a path or `host:path`. Sandboxes cannot reach git's other schemes, such as FTP. */
const REPOSITORY = /^(?:(?:https?|ssh|git|file):\/\/|(?![a-z][a-z\d+.-]*:\/\/))[^\s-]\S*$/i;

/** `execute_task` and `POST /execute` share these fields. */
export const startFields = () => ({
  repository: matching(REPOSITORY, 2000, "must be an address that git clone takes")
    .optional()
    .describe("Git URL to clone."),
  branch: matching(/^[^\s-]\S*$/, 250, "must be the name of a branch").optional(),
  sandbox: sandboxName().optional().describe("Work in this sandbox."),
  agent: z.enum(AGENT_NAMES).optional(),
  model: matching(MODEL_NAME, 100, "must be the name of a model").optional(),
  max_turns: wholeNumber(1, 1000).optional(),
  continue_from: runField().optional().describe("Id of an ended task."),
});

export const executeTask = defineTool({
  name: "execute_task",
  title: "Run a coding agent",
  description: `Gives a task to a coding agent (Claude Code or OpenCode) that edits, runs and tests in a sandbox until done. The agent cannot ask: say all it needs.

Unless sandbox is set, the sandbox is fresh and ends with the task. Returns the answer, changed files, git diff and cost; get_result reads the files.`,
  input: z.strictObject({
    task: z.string().min(1).max(MAX_TASK, `is longer than ${MAX_TASK} characters`),
    ...startFields(),
    agents: names().describe("Subagents from the repository or list_sandboxes."),
    commands: names().describe("Slash commands, from the same places."),
    timeout_seconds: timeoutField(TASK_SECONDS.default, TASK_SECONDS.max),
    wait_seconds: waitField(),
    checkpoint: z.string().max(64).optional().describe("The fresh sandbox starts from it."),
  }),
  output: taskOutput,
  isOffered: canRunTasks,
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["tasks:run"],
  async handle(
    { wait_seconds, timeout_seconds, max_turns: maxTurns, continue_from: continueFrom, ...request },
    context,
  ) {
    const deadline = Date.now() + wait_seconds * 1000;
    const before = await signInAnswer(context, { isTask: true });
    if (before && !before.hasSignedIn) return runAnswer(context, before.run, fieldsOf, before.hint);
    const { taskOf } = callWait(context, wait_seconds, "tasks:run");
    const started = await startTask(context, {
      ...request,
      maxTurns,
      continueFrom,
      timeoutMs: timeout_seconds * 1000,
    });
    const mcpTask = taskOf(started);
    if (mcpTask) return { content: [], task: mcpTask };
    const run = await followTask(context, started.id, deadline - Date.now());
    // A question means that the clone failed before the task began. So a repeated call does no work twice.
    const question = gitQuestion(context, run, { isRepeatable: true });
    if (question) return { content: [], question };
    return runAnswer(context, run, fieldsOf);
  },
});

function fieldsOf(run: RunView, advice?: string) {
  const task = taskDetailOf(run);
  return task && taskFields(run, task, advice);
}
