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
import {
  type ImageRefusal,
  type MakeSmaller,
  type ShownImage,
  scaledImage,
  shownImage,
} from "../shared/shown-image.ts";
import type { Executor } from "./executor.ts";
import { Limit } from "./limit.ts";
import { localID } from "./id.ts";
import type { CodeDetail, CodeImage, CodeResult } from "./code-detail.ts";
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

/** How long the output and the images of ended code may take. */
const DELIVERY_MS = 600_000;

/** Characters kept at each end of a traceback. */
const ERROR_CHARS = 32 * 1024;

/** The directory for the images that code shows, and the time limit for storing them, in milliseconds. */
const OUTPUTS = "/workspace/.outputs";
const KEEP_MS = 5000;

/** The most images to scale per run, and how long after the code's end the last one may begin. Each takes a process in the sandbox. */
const MAX_SCALED = 20;
const SCALING_MS = 30_000;

/** The space reserved for a line that replaces an omitted result, in bytes of JSON. */
const LEFT_OUT_BYTES = 120;

/** The most characters of one text result: as many as callers see of an output stream. */
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
        onResponse: (ended) => {
          sink.markExecuted?.();
          limit.setDeliveryDeadline(DELIVERY_MS, () => {
            passOutput(ended, sink);
            return incompleteEnd(ended, spec);
          });
        },
      },
    );
    sink.hasFiles = outcome.hasFiles;
    passOutput(outcome, sink);
    const shown = await this.#prepareResults(sink.id, outcome.results);
    return endOf(outcome, fitResults(shown, outcome.error), spec);
  }

  /**
   * Results with displayable images. Images are also files, because several clients show no images. One image is handled at a time, and an image that would
   * not fit into the run's record is dropped at once, because an isolate on Cloudflare has little memory.
   */
  async #prepareResults(id: string, results: readonly RichResult[]): Promise<CodeResult[]> {
    const prepared: CodeResult[] = [];
    const writes: Promise<unknown>[] = [];
    const deadline = Date.now() + SCALING_MS;
    let scaled = 0;
    let room = DETAIL_BYTES;
    for (const [index, result] of results.entries()) {
      const image = imageOf(result);
      if (image) {
        const path = `${OUTPUTS}/${localID(id)}-${index + 1}.${image.form}`;
        const mayScale = () => Date.now() < deadline && scaled++ < MAX_SCALED;
        const shown = await this.#makeShowable(image, path, mayScale).catch(() =>
          leftOut(texts.NOT_MADE_SMALLER),
        );
        const size = "image" in shown ? shown.image.length : 0;
        const fits = size <= room;
        if (fits) room -= size;
        if (fits && "image" in shown && image.data !== undefined)
          writes.push(this.#keepOriginal(shown, path, fromBase64(image.data)));
        const file = "image" in shown ? shown.original?.path : undefined;
        prepared.push(fits ? shown : { text: texts.resultLeftOut(size, file) });
      }
      prepared.push(...textsOf(result, image !== undefined));
    }
    // An image is shown even if its file cannot be stored, for example on a full disk.
    await waitAtMost(KEEP_MS, Promise.allSettled(writes));
    return prepared;
  }

  /** The image in a displayable form, or the reason why there is none. @param mayScale counts the images that are scaled */
  async #makeShowable(
    { form, data }: SentImage,
    path: string,
    mayScale: () => boolean,
  ): Promise<CodeImage | { text: string }> {
    const mimeType = `image/${form}` as const;
    if (data !== undefined) {
      const makeSmaller: MakeSmaller = async (image) =>
        mayScale() ? await this.#shrink(image) : "too_large";
      const shown = await shownImage(fromBase64(data), makeSmaller);
      return "problem" in shown ? leftOut(shown) : codeImageOf(shown);
    }
    if (!mayScale()) return leftOut(texts.NOT_MADE_SMALLER);
    const { image, size, bytes, ...original } = await this.#files.call("image", { path });
    const shown =
      image === "unchanged"
        ? await shownImage(bytes, async () => "too_large")
        : scaledImage({ ...original, mimeType }, size, image === "made" ? bytes : image);
    if (!("problem" in shown)) return { ...codeImageOf(shown), original: { path, size } };
    return leftOut({ ...shown, remedy: texts.imageFileAt(path, shown.remedy) });
  }

  async #keepOriginal(shown: CodeImage, path: string, body: Uint8Array): Promise<void> {
    await this.#files.call("write", { path, body }, { isConfined: true });
    shown.original = { path, size: body.length };
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

/** Passes on the output that the kernel's response has, and counts output that nobody has. */
function passOutput(outcome: CodeOutcome, sink: RunSink): void {
  for (const stream of STREAMS) {
    const { output, bytes, last } = outcome[stream];
    // The sink may have the beginning already: sandboxd reads the run's files while the code runs.
    if (output) sink.output(stream, output.subarray(sink.position(stream)));
    const missing = bytes - sink.position(stream);
    if (missing > 0) sink.recordSkipped(stream, missing, last?.subarray(-missing) ?? NO_BYTES);
  }
}

function endOf(outcome: CodeOutcome, detail: CodeDetail, spec: CodeRunSpec): End {
  const hint = outcome.error && TRAITS[spec.language].importHint(outcome.error);
  const end = outcome.end === "error" ? hint : texts.codeEndText(outcome, spec);
  return {
    state: STATES[outcome.end],
    exitCode: outcome.exitCode,
    note: [outcome.isFresh && texts.freshKernelText(spec), end].filter(Boolean).join(" ") || undefined,
    detail,
  };
}

/** The end of code whose output or images the sandbox did not deliver in time. */
function incompleteEnd(outcome: CodeOutcome, spec: CodeRunSpec): End {
  const shown = outcome.results.flatMap((result) => {
    const hasImage = imageOf(result) !== undefined;
    return [...(hasImage ? [leftOut(texts.IMAGE_NOT_DELIVERED)] : []), ...textsOf(result, hasImage)];
  });
  const end = endOf(outcome, fitResults(shown, outcome.error), spec);
  return { ...end, note: [end.note, texts.NOT_DELIVERED].filter(Boolean).join(" ") };
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

const leftOut = ({ problem, remedy }: ImageRefusal) => ({ text: texts.imageLeftOut(problem, remedy) });

function codeImageOf({ bytes, ...image }: ShownImage): CodeImage {
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

/** An image of a result, in base64 or, without data, in a file. */
interface SentImage {
  form: (typeof IMAGE_FORMS)[number];
  data?: string | undefined;
}

function imageOf(result: RichResult): SentImage | undefined {
  // User objects produce this data, and clients refuse a whole response if an image is not base64.
  const form = IMAGE_FORMS.find((one) => BASE64.test(result[one] ?? ""));
  if (form) return { form, data: result[form] };
  const stored = IMAGE_FORMS.find((one) => one === result.image_file);
  return stored && { form: stored };
}

/** A result's text in its most readable form, without markup if the result has a picture. */
function textsOf(result: RichResult, hasImage: boolean): CodeResult[] {
  const { text, markdown, latex, svg, html, left_out } = result;
  const readable = hasImage ? text : (text ?? markdown ?? latex ?? svg ?? html);
  if (readable === undefined) return [];
  const note = left_out && cutText(left_out, LEFT_OUT_BYTES);
  return [{ text: shortenText(readable), ...(html && { html }), ...(note && { leftOut: note }) }];
}

function shortenText(text: string): string {
  if (text.length <= TEXT_CHARS) return text;
  const half = TEXT_CHARS / 2;
  const [start, end] = [cutText(text, half), cutText(text, half, "start")];
  const omitted = texts.charactersOmitted(text.length - start.length - end.length, text.length);
  return `${start}\n${omitted}\n${end}`.toWellFormed();
}
