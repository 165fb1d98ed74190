/** Results of tasks: text for models, data for programs. */
import * as z from "zod";
import { shownText } from "../runs/shown-output.ts";
import { type RunView, durationMs } from "../runs/run-types.ts";
import { type Changes, DIFF_NAME, LIST_NAME, SHOWN_FILES, type TaskDetail } from "../runs/task-detail.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { savedFilesText } from "../tasks/texts.ts";
import { shownName, makeVisible } from "../shared/shown.ts";
import { joinSections, quoteOutput, requireSandboxOf } from "./define.ts";
import { resultOutput, stateText, waitHint } from "./run-summary.ts";
import { continueText, readArtifactText } from "./texts.ts";

const PROGRESS_LINES = 12;

export function taskText(run: RunView, task: TaskDetail, advice: string | undefined): string {
  return joinSections([
    ["notice", advice],
    ["state", stateText(run)],
    ["note", run.note && makeVisible(run.note)],
    ["answer", quoteOutput(task.answer)],
    ["progress", hasNoResult(run) ? quoteOutput(lastLines(run)) : undefined],
    ["stderr", run.state === "succeeded" ? undefined : run.stderr],
    ["changes", task.changes && changesText(task, task.changes)],
    ["diff", task.changes && quoteOutput(task.changes.diff)],
    ["diff_cut", task.changes && diffCut(task, task.changes)],
    ["used", usedText(task)],
    ["artifacts", artifactsText(run, task)],
    ["not_kept", notKeptText(task)],
    ["next", nextCall(run, task)],
  ]);
}

export const taskOutput = resultOutput.extend({
  success: z.boolean(),
  answer: z.string().optional(),
  note: z.string().optional(),
  progress: z.string().optional(),
  directory: z.string(),
  files: z
    .array(
      z.object({ path: z.string(), change: z.enum(["created", "changed", "deleted"]), size: z.number() }),
    )
    .optional(),
  files_changed: z.number().optional(),
  diff: z.string().optional(),
  artifacts: z.array(z.object({ path: z.string(), size: z.number() })),
  not_kept: z
    .object({ count: z.number(), named: z.array(z.object({ path: z.string(), why: z.string() })) })
    .optional(),
  turns: z.number().optional(),
  tokens: z
    .object({ input: z.number(), output: z.number(), cache_read: z.number(), cache_write: z.number() })
    .optional(),
  cost_usd: z.number().optional(),
  agent: z.string(),
  model: z.string().optional(),
  session_id: z.string().optional(),
});

export function taskFields(
  run: RunView,
  task: TaskDetail,
  advice: string | undefined,
): z.input<typeof taskOutput> {
  const { changes } = task;
  return {
    id: run.id,
    state: run.state,
    success: task.success,
    answer: task.answer,
    note: run.note,
    progress: hasNoResult(run) ? lastLines(run) : undefined,
    directory: task.directory,
    files: changes?.files.slice(0, SHOWN_FILES),
    files_changed: changes?.count,
    diff: changes && diffText(task, changes),
    artifacts: task.artifacts,
    not_kept: task.notKept,
    turns: task.turns,
    tokens: task.tokens && {
      input: task.tokens.input,
      output: task.tokens.output,
      cache_read: task.tokens.cacheRead,
      cache_write: task.tokens.cacheWrite,
    },
    cost_usd: task.costUSD,
    duration_ms: durationMs(run),
    agent: task.agent,
    model: task.model,
    session_id: task.conversation,
    next: nextCall(run, task),
    notice: advice,
  };
}

/** A task as plain HTTP shows it; undefined for other runs. `stdout` is the answer, as in the JSON of scripts/execute-task.sh. */
export function plainTask(run: RunView) {
  const task = taskDetailOf(run);
  if (!task) return undefined;
  const { success, answer, changes, turns, costUSD, safe, boot } = task;
  // Nothing must be kept, and nothing was collected.
  const hasNeverStarted = safe && boot === undefined;
  const output = answer ?? run.note ?? "";
  return {
    success,
    stdout: output,
    stderr: shownText(run.stderr),
    output,
    log: shownText(run.stdout),
    files: changes?.files,
    diff: changes?.diff,
    turns,
    cost_usd: costUSD,
    error: hasNeverStarted ? run.note : undefined,
  };
}

/** Whether the task has no result, so that the last lines of its progress are shown instead. */
function hasNoResult({ state }: RunView): boolean {
  return state === "running" || state === "lost";
}

function lastLines({ stdout }: RunView): string {
  const lines = (stdout.tail || stdout.head).trimEnd().split("\n");
  return lines.slice(-PROGRESS_LINES).join("\n");
}

function changesText(task: TaskDetail, { files, count }: Changes): string {
  const { directory } = task;
  if (count === 0) return `nothing in ${shownName(directory)}`;
  const lines = files
    .slice(0, SHOWN_FILES)
    .map(
      ({ path, change, size }) =>
        `${change} ${shownName(path)}${change === "deleted" ? "" : ` (${size} bytes)`}`,
    );
  const whole = hasArtifact(task, LIST_NAME) ? `, all in the artifact ${LIST_NAME}` : "";
  const more = count > lines.length ? [`... and ${count - lines.length} more${whole}`] : [];
  return [`${count} in ${shownName(directory)}`, ...lines, ...more].join("\n");
}

function hasArtifact({ artifacts }: TaskDetail, name: string): boolean {
  return artifacts.some(({ path }) => path === name);
}

function diffText(task: TaskDetail, changes: Changes): string {
  const cut = diffCut(task, changes);
  return cut === undefined ? changes.diff : `${changes.diff}\n[... cut: ${cut} ...]`;
}

function diffCut(task: TaskDetail, { diff, diffBytes }: Changes): string | undefined {
  if (new TextEncoder().encode(diff).length >= diffBytes) return undefined;
  const whole = hasArtifact(task, DIFF_NAME)
    ? `the artifact ${DIFF_NAME} has the whole diff`
    : "the whole diff was not stored";
  return `${diffBytes} bytes in all; ${whole}`;
}

function usedText({ turns, tokens, costUSD, model }: TaskDetail): string {
  const parts = [
    turns === undefined ? "" : `${turns} turns`,
    tokens === undefined ? "" : `${tokens.input + tokens.cacheRead + tokens.cacheWrite} tokens in`,
    tokens === undefined ? "" : `${tokens.output} out`,
    costUSD === undefined ? "" : `$${costUSD.toFixed(4)}`,
    model === undefined ? "" : shownName(model),
  ];
  return parts.filter(Boolean).join(", ");
}

function artifactsText({ id }: RunView, { artifacts }: TaskDetail): string | undefined {
  if (artifacts.length === 0) return undefined;
  const lines = artifacts.map(({ path, size }) => `${shownName(path)} (${size} bytes)`);
  return [...lines, readArtifactText(id)].join("\n");
}

function notKeptText({ notKept }: TaskDetail): string | undefined {
  if (!notKept) return undefined;
  const { count, named } = notKept;
  const lines = named.map(({ path, why }) => `${shownName(path)}: ${makeVisible(why)}`);
  const more = count > lines.length ? [`... and ${count - lines.length} more`] : [];
  return [...lines, ...more].join("\n");
}

function nextCall(run: RunView, task: TaskDetail): string | undefined {
  if (run.state === "running") return waitHint(run);
  if (run.state === "lost" && !task.safe) return savedFilesText(requireSandboxOf(run.id));
  // Only a task whose results were collected can be continued.
  if (task.conversation === undefined || task.boot === undefined) return undefined;
  // Its sandbox is destroyed, and it has no archive (TASK_ARCHIVE_MAX_MB=0).
  if (task.ownSandbox && task.safe && !task.archive) return undefined;
  return continueText(run.id);
}
