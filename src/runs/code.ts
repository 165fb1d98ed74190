/** Code in a live kernel as a run. */
import type { CodeOutcome } from "../container/kernels/outcome.ts";
import type { CodeError, RichResult } from "../container/kernels/protocol.ts";
import { within } from "../shared/within.ts";
import { type Kernel, kernelSchema } from "../container/kernels/registry.ts";
import type { CodeSpec, Kernels, TakenOver } from "../container/kernels/kernels.ts";
import { examine } from "../shared/images.ts";
import type { Shell } from "../container/shell.ts";
import { RunFiles } from "./output-files.ts";
import type { Executor } from "./executor.ts";
import { Limit } from "./limit.ts";
import { installHint } from "./missing-module.ts";
import {
  type Allowance,
  type CodeDetail,
  type CodeResult,
  DETAIL_BYTES,
  type End,
  type EndState,
  type Execution,
  type RunSink,
  STREAMS,
  waitingFor,
} from "./run.ts";

/** How often the output of running code is read, milliseconds. */
const POLL_MS = 1000;

/** How long the output of code that an earlier actor ran may take to be read, milliseconds. */
const DRAIN_MS = 60_000;

/** Characters kept of either end of an error's traceback. */
const ERROR_CHARS = 32 * 1024;

/** Bytes of JSON that name a result which is left out. */
const LEFT_OUT_BYTES = 120;

/** Characters of one result that is text: as much as is shown of a stream. The preludes keep below it. */
const TEXT_CHARS = 32 * 1024;

/** Bytes of JSON that all results that are text may take together: some clients cap an answer at 1 MB. */
const TEXTS_BYTES = 256 * 1024;

const encoder = new TextEncoder();

/** What is to be run, and in which kernel. */
export type CodeRunSpec = Omit<CodeSpec, "runID" | "logCapBytes"> & Allowance;

const LOST = "The server was restarted while it ran, and lost the way to its result.";

export class CodeExecutor implements Executor<CodeRunSpec> {
  readonly kind = "code";
  readonly #kernels: Kernels;
  readonly #shell: Shell;
  readonly #logCapBytes: number;

  /** @param logCapBytes kept of each stream */
  constructor(kernels: Kernels, shell: Shell, logCapBytes: number) {
    this.#kernels = kernels;
    this.#shell = shell;
    this.#logCapBytes = logCapBytes;
  }

  start(sink: RunSink<Kernel>, spec: CodeRunSpec): Execution {
    const kernels = this.#kernels;
    const files = new RunFiles(this.#shell, sink);
    const limit = new Limit();
    const code = { ...spec, runID: sink.id, logCapBytes: this.#logCapBytes };
    const started = (kernel: Kernel) => {
      limit.deadline(Date.now() + spec.timeoutMs);
      sink.keepState(kernel);
    };
    const run = async (): Promise<End> => {
      const done = kernels.run(code, started, () => sink.began());
      const outcome = await followed(done, files, () => kernels.isRunning(sink.id));
      sink.hasFiles = outcome.spilled;
      // Of a kernel that gave no answer, what it had written to its files is all there is.
      if (outcome.spilled && !sink.ended) await files.drain().catch(() => undefined);
      for (const stream of STREAMS) {
        const { text, bytes, tail } = outcome[stream];
        // Its beginning may have been read from the files already, while the code ran.
        if (text !== undefined) sink.output(stream, encoder.encode(text).subarray(sink.position(stream)));
        const missing = bytes - sink.position(stream);
        if (missing > 0) sink.skipped(stream, missing, encoder.encode(tail ?? ""));
      }
      return endOf(outcome, spec);
    };
    return {
      done: limit.hold(run()),
      cancel: async () => {
        limit.cancelled();
        kernels.interrupt(sink.id);
      },
      waiting: () => waitingFor(kernels.ahead(code), "context", spec.context),
    };
  }

  /** Ends code that an earlier actor gave to a kernel: only that one could have had its result. */
  resume(sink: RunSink, state: unknown): Execution {
    const kernel = kernelSchema.parse(state);
    const files = new RunFiles(this.#shell, sink);
    const title = titleOf(kernel.language, kernel.key.slice(kernel.language.length + 1));
    const notes: Record<TakenOver, string> = {
      idle: `${LOST} It has ended since. ${STATE.kept}`,
      interrupted: `${LOST} ${title} was interrupted. ${STATE.kept}`,
      killed: `${LOST} ${title} was stopped. ${STATE.lost}`,
    };
    const run = async (): Promise<End> => {
      const note = notes[await this.#kernels.takeOver(sink.id, kernel)];
      if (!sink.ended) await within(DRAIN_MS, files.drain()).catch(() => undefined);
      return { state: "lost", note };
    };
    const limit = new Limit();
    return { done: limit.hold(run()), cancel: async () => limit.cancelled() };
  }
}

/** The outcome, while the output that has gone to files is passed on once a second. */
async function followed(
  code: Promise<CodeOutcome>,
  files: RunFiles,
  isRunning: () => boolean,
): Promise<CodeOutcome> {
  for (;;) {
    const { promise: pause, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => resolve(undefined), POLL_MS);
    const outcome = await Promise.race([code, pause]);
    clearTimeout(timer);
    if (outcome) return outcome;
    // What keeps the output from being read keeps the code from its answer too, or passes.
    if (isRunning()) await Promise.race([files.drain().catch(() => undefined), code]);
  }
}

const STATES: Record<CodeOutcome["end"], EndState> = {
  ok: "succeeded",
  error: "failed",
  timeout: "timed_out",
  cancelled: "cancelled",
  died: "failed",
};

/** What there is to say of a kernel's state. */
const STATE: Record<CodeOutcome["state"], string> = {
  kept: "Its variables and imports are still there.",
  lost: "Its variables and imports are gone; the next call starts a fresh one.",
};

function titleOf(language: string, context: string): string {
  return context === "default" ? `The ${language} kernel` : `The ${language} kernel ${context}`;
}

async function endOf(outcome: CodeOutcome, { language, context, timeoutMs, cut }: CodeRunSpec): Promise<End> {
  const kernel = titleOf(language, context);
  const state = STATE[outcome.state];
  const reasons: Record<CodeOutcome["end"], string | undefined> = {
    ok: undefined,
    error: outcome.error && installHint(language, outcome.error),
    timeout: [`${kernel} was stopped after ${timeoutMs / 1000} s.`, cut, state].filter(Boolean).join(" "),
    cancelled: outcome.started
      ? `${kernel} was interrupted. ${state}`
      : "It was cancelled while it waited for its turn: it never started.",
    died: `${kernel} died: the code ended its process, or it ran out of memory. ${state}`,
  };
  return {
    state: STATES[outcome.end],
    exitCode: outcome.exitCode,
    note: reasons[outcome.end],
    detail: await fitting(outcome),
  };
}

/** The results as far as they fit into a run's record; what does not is named. */
async function fitting({ results, error }: CodeOutcome): Promise<CodeDetail> {
  const raised = error && shortened(error);
  // Each of the results may be no more than the line that says that it is left out.
  const shown = await Promise.all(results.flatMap(readable).map(showable));
  let room = DETAIL_BYTES - sizeOf({ results: [], error: raised }) - shown.length * LEFT_OUT_BYTES;
  let textRoom = TEXTS_BYTES;
  const kept: CodeResult[] = [];
  for (const result of shown) {
    const size = sizeOf(result);
    const isText = "text" in result;
    const fits = size <= room + LEFT_OUT_BYTES && (!isText || size <= textRoom);
    const left = `[a result of ${size} bytes is left out: the results before it take all the room]`;
    kept.push(fits ? result : { text: left });
    if (!fits) continue;
    room -= Math.max(0, size + 1 - LEFT_OUT_BYTES);
    if (isText) textRoom -= size;
  }
  return { results: kept, error: raised };
}

/** An error with the ends of its traceback. */
function shortened({ name, message, traceback }: CodeError): CodeError {
  const text = traceback.join("\n");
  return {
    name,
    message,
    traceback:
      text.length <= 2 * ERROR_CHARS
        ? traceback
        : [text.slice(0, ERROR_CHARS), "[... the middle is left out ...]", text.slice(-ERROR_CHARS)],
  };
}

/** Bytes of the value's JSON in UTF-8. */
function sizeOf(value: unknown): number {
  return value === undefined ? 0 : encoder.encode(JSON.stringify(value)).length;
}

/** The result, or for an image that would end a client's chat the reason why it is not shown. */
async function showable(result: CodeResult): Promise<CodeResult> {
  if ("text" in result) return result;
  const looked = await examine(fromBase64(result.image));
  if ("mimeType" in looked) return { ...result, mimeType: looked.mimeType };
  return { text: `[An image is left out: it ${looked.problem} ${looked.remedy}]` };
}

/** The bytes; none where it is no base64 after all. */
function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return new Uint8Array();
  }
}

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

/** A result in its most readable form. */
function readable({ png, jpeg, text, markdown, latex, svg, html }: RichResult): CodeResult[] {
  // Objects say themselves what their image is; what is no base64 would cost the caller the whole answer.
  if (png !== undefined && BASE64.test(png)) return [{ image: png, mimeType: "image/png" }];
  if (jpeg !== undefined && BASE64.test(jpeg)) return [{ image: jpeg, mimeType: "image/jpeg" }];
  const found = text ?? markdown ?? latex ?? svg ?? html;
  return found === undefined ? [] : [{ text: ends(found) }];
}

/** The text, or its two ends when it is longer than the preludes send. */
function ends(text: string): string {
  if (text.length <= TEXT_CHARS) return text;
  const half = TEXT_CHARS / 2;
  const omitted = `[... ${text.length - 2 * half} of ${text.length} characters omitted: write it to a file ...]`;
  return `${text.slice(0, half)}\n${omitted}\n${text.slice(-half)}`.toWellFormed();
}
