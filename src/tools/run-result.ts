/** Results of all runs: text for models, data for programs. */
import * as z from "zod";
import { taskDetailOf } from "../tasks/collect.ts";
import { type ShownOutput, shownText } from "../runs/shown-output.ts";
import { textAfterClear, lastStates, terminalText } from "../runs/terminal-text.ts";
import type { CodeError } from "../container/kernels/kernel-protocol.ts";
import type { CodeDetail, CodeResult } from "../runs/code-detail.ts";
import { type RunView, durationMs, hasFailed, questionDetailOf } from "../runs/run-types.ts";
import { canBeExposed } from "../shared/reserved-ports.ts";
import { putInFence, shownName } from "../shared/shown.ts";
import { type ToolContext, type ToolOutput, quoteOutput, joinSections, text } from "./define.ts";
import { gitHint } from "./git-sign-in.ts";
import { imageLines } from "./image.ts";
import { addDownloads, downloadsOf } from "./download.ts";
import { taskFields, taskText } from "./task-result.ts";
import { endLines, listedFields, resultOutput, stateText, waitHint } from "./run-summary.ts";
import { NO_OUTPUT, listeningText, resultCutText, inTerminalText, wholeOutputText } from "./texts.ts";

type Block = ToolOutput["content"][number];

/** A run as the answer of a call. @param hint replaces the advice for a run in which git lacked credentials */
export async function runAnswer<Fields>(
  context: ToolContext,
  run: RunView,
  fieldsOf: (run: RunView, advice?: string, takesImages?: boolean) => Fields,
  hint?: string,
): Promise<{ content: Block[]; structured: Fields }> {
  const advice = hint ?? (hasFailed(run) ? await gitHint(context, run) : undefined);
  const takesImages = context.takesImages !== false;
  const blocks = runBlocks(run, takesImages, advice);
  const content = addDownloads(context, blocks, await downloadsOf(context, run));
  return { content, structured: fieldsOf(run, advice, takesImages) };
}

function runBlocks(run: RunView, takesImages: boolean, advice?: string): Block[] {
  const task = taskDetailOf(run);
  if (task) return [text(taskText(run, task, advice))];
  const { results = [], error } = codeDetailOf(run) ?? {};
  const question = questionDetailOf(run);
  const cwd = cwdOf(run);
  // Code can print such a reason itself. In a fence, it does not look like the server's text.
  const leftOut = leftOutText(results);
  const summary = joinSections([
    ["notice", advice],
    ["state", run.state === "succeeded" || run.state === "failed" ? undefined : stateText(run)],
    ...endLines(run),
    [question?.language ?? "code", quoteOutput(question?.code)],
    ["cwd", cwd && shownName(cwd)],
    ["stdout", removeOverwrittenText(printedOutput(run))],
    ["stderr", removeOverwrittenText(run.stderr)],
    ["listening", portsOf(run).length > 0 ? listeningText(portsOf(run)) : undefined],
    ["result", quoteOutput(resultText(results))],
    ["left_out", leftOut && putInFence(leftOut)],
    ["images", imageLines(results, takesImages)],
    ["error", error && quoteOutput(errorText(error))],
    ["next", nextCall(run)],
  ]);
  const images = results.flatMap((result): Block[] => {
    if (!takesImages || !("image" in result)) return [];
    return [{ type: "image", data: result.image, mimeType: result.mimeType }];
  });
  return [text(summary || NO_OUTPUT), ...images];
}

function errorText({ name, message, traceback }: CodeError): string {
  return traceback.join("\n") || `${name}: ${message}`;
}

function codeDetailOf({ detail }: RunView): CodeDetail | undefined {
  return detail && "results" in detail ? detail : undefined;
}

/** The states of a run whose programs may still listen: nothing has ended them. */
const MAY_LISTEN = new Set(["running", "succeeded", "failed"]);

/** How long after the end of a run its results name ports. Later, the programs that it left running may have ended. */
const PORTS_NAMED_MS = 60_000;

function portsOf({ state, detail, endedAt = Infinity }: RunView): readonly number[] {
  if (!MAY_LISTEN.has(state) || Date.now() - endedAt > PORTS_NAMED_MS) return [];
  return ((detail && "ports" in detail && detail.ports) || []).filter(canBeExposed);
}

/** The working directory of the command's session after the command; undefined if it is /workspace. */
function cwdOf({ detail }: RunView): string | undefined {
  return detail && "cwd" in detail ? detail.cwd : undefined;
}

export const runOutput = resultOutput.extend({
  exit_code: z.number().optional(),
  stdout: z.string(),
  stderr: z.string(),
  stdout_bytes: z.number(),
  stderr_bytes: z.number(),
  ports: z.array(z.number()).optional(),
  cwd: z.string().optional(),
});

/** The data of `run_code`, which publishes no schema: some clients show the data of a tool with a schema, but not its images. */
export const codeOutput = runOutput.extend({
  result: z.string().optional(),
  html: z.array(z.string()).optional(),
  left_out: z.string().optional(),
  /** `data` is base64. `path` is the image's file in the sandbox, as the code displayed it. */
  images: z
    .array(z.object({ mime_type: z.string(), data: z.string().optional(), path: z.string().optional() }))
    .optional(),
  error: z.object({ name: z.string(), message: z.string(), traceback: z.array(z.string()) }).optional(),
});

/** The data common to all runs. Each kind of run adds its own fields. */
export const anyRunOutput = resultOutput.loose();

export function anyRunFields(
  run: RunView,
  advice?: string,
  takesImages = true,
): z.input<typeof anyRunOutput> {
  const task = taskDetailOf(run);
  if (task) return taskFields(run, task, advice);
  const question = questionDetailOf(run);
  const fields = codeFields(run, advice, takesImages);
  if (!question) return fields;
  const { language, code, model, tokens } = question;
  return { language, code, model, tokens, ...fields };
}

function codeFields(
  run: RunView,
  advice: string | undefined,
  takesImages: boolean,
): z.input<typeof codeOutput> {
  const { results, error } = codeDetailOf(run) ?? {};
  const missing = results && [leftOutText(results), ...cutsOf(results)].filter(Boolean);
  return {
    ...runFields(run, advice),
    result: results && resultText(results),
    html: results && htmlOf(results),
    left_out: missing?.join("\n") || undefined,
    images: results && imagesOf(results, takesImages),
    error,
  };
}

/** The fields of a run with its source, for callers who did not start the run. */
export function wholeFields(run: RunView, advice?: string, takesImages = true): z.input<typeof anyRunOutput> {
  const fields = anyRunFields(run, advice, takesImages);
  return { ...listedFields(run), source: run.source ?? run.title, ...fields };
}

export function runFields(run: RunView, advice?: string): z.input<typeof runOutput> {
  return {
    id: run.id,
    state: run.state,
    exit_code: run.exitCode,
    stdout: shownText(printedOutput(run)),
    stderr: shownText(run.stderr),
    stdout_bytes: run.stdout.bytes,
    stderr_bytes: run.stderr.bytes,
    ports: portsOf(run).length > 0 ? [...portsOf(run)] : undefined,
    cwd: cwdOf(run),
    duration_ms: durationMs(run),
    next: nextCall(run),
    notice: [advice, run.note].filter(Boolean).join(" ") || undefined,
  };
}

/** Drops text that later output replaced. */
function removeOverwrittenText(shown: ShownOutput): ShownOutput {
  const head = textAfterClear(shown.tail) === undefined ? lastStates(shown.head) : "";
  return { ...shown, head, tail: lastStates(shown.tail) };
}

function printedOutput({ stdout, isInteractive }: RunView): ShownOutput {
  if (!isInteractive) return stdout;
  return { ...stdout, head: terminalText(stdout.head), tail: terminalText(stdout.tail) };
}

function nextCall(run: RunView): string | undefined {
  const wait = waitHint(run);
  if (wait) return run.isInteractive && !run.waiting ? inTerminalText(run.id) : wait;
  const isCut = run.stdout.omitted + run.stderr.omitted > 0;
  return isCut ? wholeOutputText(run.id, run.droppedBytes) : undefined;
}

/** Finds the reason in a line that replaces an omitted result. */
function leftOutReason(line: string): string | undefined {
  const isReason = /^\[an? (?:image|result)\b/i.test(line) && line.endsWith("]") && !line.includes("\n");
  return isReason && line.includes(" is left out: ") ? line.slice(1, -1) : undefined;
}

/** The marks by which kernels and the executor show that a value was cut, or that an output exceeded a limit. */
const CUT =
  /^\[\.{3} \d{1,12} of \d{1,12} characters omitted(?=: [^\n\]]{0,80}\]$)|\.{3} \d{1,12} more(?: items?| characters?)?(?=[\])}]|$)|^\[(?:\d{1,12} more outputs not shown|An interactive page of \d{1,12} bytes is not kept): [^\n\]]{0,200}\]$/m;

/** What is missing in the texts and HTML forms of results. Programs need this list; a model sees the marks in the texts. */
function cutsOf(results: readonly CodeResult[]): string[] {
  return results.flatMap((result) => {
    if (!("text" in result)) return [];
    const [mark] = CUT.exec(result.text) ?? [];
    return [mark && resultCutText(mark), result.leftOut].filter((line) => line !== undefined);
  });
}

function textsOf(results: readonly CodeResult[]): string[] {
  return results.flatMap((result) => ("text" in result ? result.text : []));
}

function resultText(results: readonly CodeResult[]): string {
  return textsOf(results)
    .filter((line) => leftOutReason(line) === undefined)
    .join("\n");
}

function htmlOf(results: readonly CodeResult[]): string[] | undefined {
  const found = results.flatMap((result) => ("html" in result && result.html ? [result.html] : []));
  return found.length > 0 ? found : undefined;
}

function imagesOf(results: readonly CodeResult[], takesImages: boolean) {
  const images = results.flatMap((result) => {
    if (!("image" in result)) return [];
    const { image, mimeType, original } = result;
    return [{ mime_type: mimeType, data: takesImages ? image : undefined, path: original?.path }];
  });
  return images.length > 0 ? images : undefined;
}

function leftOutText(results: readonly CodeResult[]): string | undefined {
  const counts = new Map<string, number>();
  for (const line of textsOf(results)) {
    const reason = leftOutReason(line);
    if (reason !== undefined) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  const lines = [...counts].map(([reason, count]) => (count === 1 ? reason : `${reason} (${count} times)`));
  return lines.join("\n") || undefined;
}

/**
 * A question as plain HTTP shows it; undefined for other runs. `output` is the program's output, then the value of its last
 * expression. `error` is the program's exception, or why there is no result; null on success.
 */
export function plainQuestion(run: RunView) {
  const question = questionDetailOf(run);
  if (!question) return undefined;
  const { language, code, error, results, model, tokens } = question;
  const success = run.state === "succeeded";
  const printed = shownText(run.stdout);
  const result = resultText(results);
  const between = printed === "" || result === "" || printed.endsWith("\n") ? "" : "\n";
  return {
    success,
    language,
    code,
    output: printed + between + result,
    error: success ? null : ((error && errorText(error)) ?? run.note ?? run.state),
    stderr: shownText(run.stderr),
    images: results.flatMap((shown) =>
      "image" in shown ? [{ mimeType: shown.mimeType, data: shown.image }] : [],
    ),
    model,
    tokens,
  };
}
