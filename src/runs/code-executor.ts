/** Runs code in kernels. */
import {
  type CodeError,
  type CodeOutcome,
  IMAGE_FORMS,
  type RichResult,
} from "../container/kernels/kernel-protocol.ts";
import { TRAITS } from "../shared/languages.ts";
import { cutText } from "../shared/text.ts";
import { waitAtMost } from "../shared/timers.ts";
import type { FileOperations } from "../container/file-operations.ts";
import { type Kernel, kernelSchema } from "../container/kernels/kernel-registry.ts";
import type { CodeSpec, Kernels, CellHandover } from "../container/kernels/kernels.ts";
import { type MakeSmaller, shownImage } from "../shared/shown-image.ts";
import type { Executor } from "./executor.ts";
import { Limit } from "./limit.ts";
import { localID } from "./id.ts";
import type { CodeDetail, CodeResult } from "./code-detail.ts";
import { STREAMS } from "../../container/sandboxd/protocol.ts";
import {
  type Allowance,
  DETAIL_BYTES,
  type End,
  type Execution,
  type RunSink,
  waitingFor,
} from "./run-types.ts";
import type { EndState } from "../shared/run-listing.ts";
import * as texts from "./texts.ts";

/** How long it may take to end an earlier actor's code and read its output. */
const TAKE_OVER_MS = 60_000;

/** Characters kept at each end of a traceback. */
const ERROR_CHARS = 32 * 1024;

/** The directory for originals of scaled images, the most per run, and the time limit for storing them, in milliseconds. */
const OUTPUTS = "/workspace/.outputs";
const MAX_ORIGINALS = 20;
const KEEP_MS = 5000;

/** The most images to scale per run. Each image takes a process in the sandbox. */
const MAX_SCALED = 20;

/** The space reserved for a line that replaces an omitted result, in bytes of JSON. */
const LEFT_OUT_BYTES = 120;

/**
 * The most characters of one text result: as many as callers see of an output stream. Our code in the kernel has already
 * shortened results to this, except HTML and SVG.
 */
const TEXT_CHARS = 32 * 1024;

/** The most bytes of JSON for all text results together. Some clients cut a response at 1 MB. */
const TEXTS_BYTES = 256 * 1024;

const encoder = new TextEncoder();
const NO_BYTES = new Uint8Array();

export type CodeRunSpec = Omit<CodeSpec, "logCapBytes"> & Allowance;

export class CodeExecutor implements Executor<CodeRunSpec> {
  readonly kind = "code";
  readonly #kernels: Kernels;
  readonly #files: FileOperations;
  readonly #logCapBytes: number;

  /** @param logCapBytes how many bytes of each output stream the kernel writes to files. It only counts the rest */
  constructor(kernels: Kernels, files: FileOperations, logCapBytes: number) {
    this.#kernels = kernels;
    this.#files = files;
    this.#logCapBytes = logCapBytes;
  }

  start(sink: RunSink<Kernel>, spec: CodeRunSpec): Execution {
    const limit = new Limit();
    return {
      done: limit.enforce(this.#run(sink, spec, limit)),
      cancel: async () => {
        limit.setCancelDeadline();
        this.#kernels.cancel(sink.id);
      },
      waiting: () => waitingFor(this.#kernels.waitingFor(sink.id, spec), "context", spec.context),
    };
  }

  async #run(sink: RunSink<Kernel>, spec: CodeRunSpec, limit: Limit): Promise<End> {
    const logCapBytes = this.#logCapBytes;
    const outcome = await this.#kernels.run(
      sink,
      { ...spec, logCapBytes },
      {
        markStarted: () => {
          sink.markStarted();
          // The time limit twice: once for the start of the kernel, once for the code.
          limit.setDeadline(Date.now() + 2 * spec.timeoutMs, spec.timeoutMs);
        },
        onKernelAssigned: (kernel) => {
          sink.keepState(kernel);
          if (kernel) limit.setDeadline(Date.now() + spec.timeoutMs, spec.timeoutMs);
        },
      },
    );
    sink.hasFiles = outcome.hasFiles;
    for (const stream of STREAMS) {
      const { output, bytes, last } = outcome[stream];
      // The sink may have the beginning already: sandboxd reads the run's files while the code runs.
      if (output) sink.output(stream, output.subarray(sink.position(stream)));
      const missing = bytes - sink.position(stream);
      if (missing > 0) sink.recordSkipped(stream, missing, last?.subarray(-missing) ?? NO_BYTES);
    }
    const shown = await this.#prepareResults(sink.id, outcome.results.flatMap(toCodeResults));
    return endOf(outcome, fitResults(shown, outcome.error), spec);
  }

  /** Results with displayable images. Originals of scaled images are stored as files. */
  async #prepareResults(id: string, results: readonly CodeResult[]): Promise<CodeResult[]> {
    let smaller = 0;
    const makeSmaller: MakeSmaller = async (image) =>
      smaller++ < MAX_SCALED ? await this.#shrink(image) : "too_large";
    const shown = await Promise.all(results.map((result) => makeShowable(result, makeSmaller)));
    let originals = 0;
    const keep = shown.map(async (result, index) => {
      const from = results[index];
      const isChanged = "image" in result && result.change !== undefined;
      if (!isChanged || !from || !("image" in from) || originals++ >= MAX_ORIGINALS) return;
      const bytes = fromBase64(from.image);
      const [, extension = ""] = from.mimeType.split("/");
      const path = `${OUTPUTS}/${localID(id)}-${index + 1}.${extension}`;
      await this.#files.call("write", { path, body: bytes }, { isConfined: true });
      result.original = { path, size: bytes.length };
    });
    // An image is shown even if its file cannot be stored, for example on a full disk.
    await waitAtMost(KEEP_MS, Promise.allSettled(keep));
    return shown;
  }

  async #shrink(body: Uint8Array): ReturnType<MakeSmaller> {
    const { image, bytes } = await this.#files.call("shrink", { body });
    return image === "made" ? bytes : image;
  }

  /** Ends code that an earlier actor sent to a kernel. Its result was lost with that actor. */
  resume(sink: RunSink, state: unknown): Execution {
    const kernel = kernelSchema.parse(state);
    const notes: Record<CellHandover, string> = texts.handoverTexts(
      kernel.language,
      kernel.key.slice(kernel.language.length + 1),
    );
    const run = async (): Promise<End> => {
      const taken = await waitAtMost(TAKE_OVER_MS, this.#kernels.freeKernel(sink, kernel));
      return { state: "lost", note: notes[taken ?? "killed"] };
    };
    const limit = new Limit();
    return { done: limit.enforce(run()), cancel: async () => limit.setCancelDeadline() };
  }
}

const STATES: Record<CodeOutcome["end"], EndState> = {
  ok: "succeeded",
  error: "failed",
  timeout: "timed_out",
  cancelled: "cancelled",
  died: "failed",
};

function endOf(outcome: CodeOutcome, detail: CodeDetail, spec: CodeRunSpec): End {
  const hint = outcome.error && TRAITS[spec.language].installHint(outcome.error);
  return {
    state: STATES[outcome.end],
    exitCode: outcome.exitCode,
    note: outcome.end === "error" ? hint : texts.codeEndText(outcome, spec),
    detail,
  };
}

/** A line replaces each result that does not fit into a run's record. */
function fitResults(shown: readonly CodeResult[], error: CodeOutcome["error"]): CodeDetail {
  const raised = error && shortenError(error);
  // Reserves room for a line for each result and for its HTML, in case they are omitted.
  const lines = shown.length + shown.filter((result) => "html" in result).length;
  let room = DETAIL_BYTES - sizeOf({ results: [], error: raised }) - lines * LEFT_OUT_BYTES;
  let textRoom = TEXTS_BYTES;
  const fitted: CodeResult[] = [];
  for (const original of shown) {
    const isText = "text" in original;
    const result = isText ? { ...original, html: undefined } : original;
    const size = sizeOf(result);
    const fits = size <= room + LEFT_OUT_BYTES && (!isText || size <= textRoom);
    fitted.push(fits ? result : { text: texts.resultLeftOut(size) });
    if (!fits) continue;
    room -= Math.max(0, size + 1 - LEFT_OUT_BYTES);
    if (isText) textRoom -= size;
  }
  // HTML gets only the remaining space, because models do not see it.
  for (const [index, original] of shown.entries()) {
    const text = fitted[index];
    if (!text || !("html" in original) || !("text" in text) || text.text !== original.text) continue;
    const size = sizeOf(original) - sizeOf(text);
    if (size > room) {
      fitted[index] = { ...text, leftOut: texts.htmlLeftOut(size) };
      continue;
    }
    fitted[index] = original;
    room -= size;
  }
  return { results: fitted, error: raised };
}

function shortenError({ name, message, traceback }: CodeError): CodeError {
  const text = traceback.join("\n");
  return {
    name,
    message,
    traceback:
      text.length <= 2 * ERROR_CHARS
        ? traceback
        : [
            cutText(text, ERROR_CHARS),
            "[... the middle is left out ...]",
            cutText(text, ERROR_CHARS, "start"),
          ],
  };
}

/** Bytes of the value's JSON in UTF-8. */
function sizeOf(value: unknown): number {
  return value === undefined ? 0 : encoder.encode(JSON.stringify(value)).length;
}

/** The result with a displayable image, or the reason why there is none. */
async function makeShowable(result: CodeResult, makeSmaller: MakeSmaller): Promise<CodeResult> {
  if ("text" in result) return result;
  const shown = await shownImage(fromBase64(result.image), makeSmaller).catch(() => texts.NOT_MADE_SMALLER);
  if ("problem" in shown) return { text: texts.imageLeftOut(shown.problem, shown.remedy) };
  const { bytes, ...image } = shown;
  return { image: bytes.toBase64(), ...image };
}

/** The decoded bytes; empty for invalid base64. */
function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return new Uint8Array();
  }
}

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

/** A result in its most readable form. A picture with a text gives two results. */
function toCodeResults(result: RichResult): CodeResult[] {
  const { text, markdown, latex, svg, html, left_out } = result;
  // User objects produce this data, and clients refuse a whole response if an image is not base64.
  const form = IMAGE_FORMS.find((imageForm) => BASE64.test(result[imageForm] ?? ""));
  const image = form === undefined ? undefined : result[form];
  const results: CodeResult[] = image === undefined ? [] : [{ image, mimeType: `image/${form}` }];
  const readable = image === undefined ? (text ?? markdown ?? latex ?? svg ?? html) : text;
  const leftOut = left_out && cutText(left_out, LEFT_OUT_BYTES);
  if (readable !== undefined)
    results.push({ text: shortenText(readable), ...(html && { html }), ...(leftOut && { leftOut }) });
  return results;
}

function shortenText(text: string): string {
  if (text.length <= TEXT_CHARS) return text;
  const half = TEXT_CHARS / 2;
  const [start, end] = [cutText(text, half), cutText(text, half, "start")];
  const omitted = texts.charactersOmitted(text.length - start.length - end.length, text.length);
  return `${start}\n${omitted}\n${end}`.toWellFormed();
}
