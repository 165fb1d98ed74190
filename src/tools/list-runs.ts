import * as z from "zod";
import { sandboxCallsOf } from "../actors/sandbox-client.ts";
import { sandboxOf } from "../runs/id.ts";
import type { RunSummary } from "../runs/run-types.ts";
import { RUN_KINDS, runListing } from "../shared/run-listing.ts";
import type { TaskEntry } from "../tasks/task-list.ts";
import { undefinedIfFailed } from "../shared/errors.ts";
import { accountOf } from "../actors/account-of.ts";
import { retryOnce } from "../actors/sandbox-client.ts";
import {
  type ToolContext,
  defineTool,
  runField,
  sandboxField,
  text,
  wholeNumber,
  requireSandboxOf,
} from "./define.ts";
import { listedFields, stateText } from "./run-summary.ts";
import { OLDER_RUNS, foreignCursor, listedRunText, noRunsText } from "./texts.ts";

export const listRuns = defineTool({
  name: "list_runs",
  title: "List runs",
  description: "Lists the runs of a sandbox, newest first.",
  input: z.strictObject({
    sandbox: sandboxField(),
    kind: z.enum(RUN_KINDS).optional().describe("task: in all sandboxes."),
    limit: wholeNumber(1, 200).default(20),
    cursor: runField()
      .refine((id) => sandboxOf(id) !== undefined, "must be an id from the previous page")
      .optional()
      .describe("Last id of the previous page."),
  }),
  output: runListing,
  annotations: { readOnlyHint: true },
  scopes: ["sandbox:read"],
  async handle({ sandbox, kind, limit, cursor }, context) {
    if (cursor !== undefined && kind !== "task" && sandboxOf(cursor) !== sandbox)
      throw foreignCursor(cursor, sandbox);
    const found =
      kind === "task"
        ? await tasksOf(context, limit + 1, cursor)
        : await context.reading(sandbox, (actor, owner) => actor.listRuns(owner, limit + 1, cursor, kind));
    const runs = found.slice(0, limit).map(listedFields);
    const next = found.length > limit ? runs.at(-1)?.id : undefined;
    const lines = found.slice(0, limit).map((run) => listedRunText(run, stateText(run)));
    if (runs.length === 0)
      lines.push(noRunsText(kind === "task" ? undefined : sandbox, cursor !== undefined));
    if (next) lines.push(OLDER_RUNS);
    return { content: [text(lines.join("\n"))], structured: { runs, next_cursor: next } };
  },
});

/**
 * The report that a task has ended may reach the account late, or never. So the server asks a sandbox for the state of each task
 * that the account lists as running.
 */
async function tasksOf(context: ToolContext, limit: number, before: string | undefined) {
  const tasks = await retryOnce(() => accountOf(context.env, context.principal.id).listTasks(limit, before));
  // The answer is about no sandbox, so their notices wait for their own results.
  const { reading } = sandboxCallsOf({ ...context, takesNotice: false });
  const refresh = async (task: TaskEntry): Promise<RunSummary> => {
    const listed = { ...task, kind: "task" } as const;
    if (task.state !== "running") return listed;
    const read = reading(requireSandboxOf(task.id), (actor, owner) => actor.taskOrigin(owner, task.id));
    return (await undefinedIfFailed(read, ["not_found"]))?.run ?? { ...listed, state: "lost" };
  };
  return Promise.all(tasks.map(refresh));
}
