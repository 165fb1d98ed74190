/** How a run of any kind is shown: to a model as text, to a program as data. */
import { z } from "zod";
import { taskDetailOf } from "../runs/task-collect.ts";
import { shownText } from "../runs/output.ts";
import { type CodeDetail, type CodeResult, RUN_STATES, type RunView, durationMs } from "../runs/run.ts";
import { type ToolOutput, sections, text } from "./define.ts";
import { taskFields, taskText } from "./task-result.ts";
import { waitingText } from "./waiting.ts";

type Block = ToolOutput["content"][number];

/** Everything about a run: one block of text, then its images. */
export function runBlocks(run: RunView, notice?: string): Block[] {
  const task = taskDetailOf(run);
  if (task) return [text(taskText(run, task, notice))];
  const { results = [], error } = codeDetailOf(run) ?? {};
  const blocks = results.map(resultBlock);
  const texts = blocks.flatMap((block) => ("text" in block ? block.text : []));
  const said = sections([
    ["notice", notice],
    ["state", run.state === "succeeded" || run.state === "failed" ? undefined : run.state],
    ["exit_code", run.exitCode],
    ["note", run.note],
    ["stdout", shownText(run.stdout)],
    ["stderr", shownText(run.stderr)],
    ["result", texts.join("\n")],
    ["error", error && (error.traceback.join("\n") || `${error.name}: ${error.message}`)],
    ["next", nextCall(run)],
  ]);
  const images = blocks.flatMap((block) => ("image" in block ? block.image : []));
  return said || images.length === 0
    ? [text(said || "Done; nothing was printed or returned."), ...images]
    : images;
}

function codeDetailOf({ detail }: RunView): CodeDetail | undefined {
  return detail && "results" in detail ? detail : undefined;
}

/** A run of a command as data. */
export const runOutput = z.object({
  id: z.string(),
  state: z.enum(RUN_STATES),
  exit_code: z.number().optional(),
  stdout: z.string(),
  stderr: z.string(),
  stdout_bytes: z.number(),
  stderr_bytes: z.number(),
  duration_ms: z.number(),
  next: z.string().optional(),
  notice: z.string().optional(),
});

/** A run of any kind as data. What is an image is in the content alone. */
export function anyRunFields(run: RunView, notice?: string): Record<string, unknown> {
  const task = taskDetailOf(run);
  if (task) return taskFields(run, task, notice);
  const { results, error } = codeDetailOf(run) ?? {};
  const texts = results?.flatMap((result) => ("text" in result ? result.text : []));
  return { ...runFields(run, notice), result: texts?.join("\n"), error };
}

export function runFields(run: RunView, notice?: string): z.input<typeof runOutput> {
  return {
    id: run.id,
    state: run.state,
    exit_code: run.exitCode,
    stdout: shownText(run.stdout),
    stderr: shownText(run.stderr),
    stdout_bytes: run.stdout.bytes,
    stderr_bytes: run.stderr.bytes,
    duration_ms: durationMs(run),
    next: nextCall(run),
    notice: [notice, run.note].filter(Boolean).join(" ") || undefined,
  };
}

/** What to call to see more of a run, or undefined when there is no more. */
export function nextCall(run: RunView): string | undefined {
  if (run.waiting) return waitingText(run.id, run.waiting);
  if (run.state === "running") {
    const seconds = Math.round(durationMs(run) / 1000);
    return `Still running after ${seconds} s; it goes on. Wait for it with get_result, id ${run.id}; new output alone with cursor ${run.logBytes}; stop it with cancel_run.`;
  }
  const dropped = run.droppedBytes > 0 ? ` (of which the last ${run.droppedBytes} bytes were not kept)` : "";
  if (run.stdout.omitted + run.stderr.omitted > 0)
    return `The whole output${dropped}: get_result with id ${run.id} and cursor 0.`;
  return undefined;
}

/** A result as text for the block, or as an image of its own. */
function resultBlock(result: CodeResult): { text: string } | { image: Block } {
  if ("text" in result) return result;
  return { image: { type: "image", data: result.image, mimeType: result.mimeType } };
}
