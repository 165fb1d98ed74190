/**
 * The protocol between the actor and the kernels' prelude (`container/kernel/`): the cell that loads the prelude, the cell
 * that runs code, the one JSON document that answers each of them, and the outcome of code that follows from it.
 */
import { z } from "zod";
import { SHOWN_END_BYTES, type Variables, markOf } from "../../../container/sandboxd/protocol.ts";
import { isTexts } from "../control-result.ts";
import { isRecord } from "../../shared/is-record.ts";
import { type Language, TRAITS } from "../../shared/languages.ts";
import { parseBounded, SANDBOX_JSON } from "../../shared/bounded.ts";

/** The directory of the prelude in a sandbox. */
const PRELUDE = "/opt/sandbox-mcp/kernel";

/** The directory of long output: `<run id>.out` and `<run id>.err`, as for commands. */
export const RUNS = "/var/lib/sandbox-mcp/runs";

/** A process that no reused pid can be taken for: its start time is in clock ticks since boot. */
export interface KernelProcess {
  pid: number;
  started: number;
}

/** One output of a run. Images are base64; every form is bounded by the prelude. */
export interface RichResult {
  text?: string;
  png?: string;
  jpeg?: string;
  webp?: string;
  gif?: string;
  svg?: string;
  html?: string;
  markdown?: string;
  latex?: string;
  javascript?: string;
}

/** An exception of the code, its traceback by lines and with the user's frames only. */
export interface CodeError {
  name: string;
  message: string;
  traceback: string[];
}

/** One stream of a run. */
export interface CodeStream {
  /** All that was kept; absent when the output went to the run's files. */
  output?: Uint8Array;
  /** Bytes printed. */
  bytes: number;
  /** Of these, bytes beyond the cap. */
  dropped: number;
  /** The last SHOWN_END_BYTES of what was dropped. */
  last?: Uint8Array;
}

/** A stream as the document has it: `text` where the output is UTF-8; `data` and `last` are base64. */
interface SentStream {
  text?: string;
  data?: string;
  bytes: number;
  dropped: number;
  last?: string;
}

const hello = z.object({
  sandbox_mcp_kernel: z.literal(1),
  pid: z.int().positive(),
  started: z.int().nonnegative(),
});

/** What of a run listens on a port by now, or may soon. */
export type Listening = "itself" | "child";

/** A run's document. */
export interface RunDocument<Stream = CodeStream> {
  sandbox_mcp_run: 1;
  run: string;
  spilled: boolean;
  /** Whether the code listens on a port itself, or has started what may. */
  serves?: Listening;
  stdout: Stream;
  stderr: Stream;
  results: RichResult[];
  error: CodeError | null;
  exit: number | null;
}

/** Forms of an image, the best first. */
export const IMAGE_FORMS = ["png", "jpeg", "webp", "gif"] as const;
const FORMS = ["text", ...IMAGE_FORMS, "svg", "html", "markdown", "latex", "javascript"] as const;

/** Checked by hand, because this is on the path of every call and a schema takes ten times as long. */
function isDocument(value: unknown): value is RunDocument<SentStream> {
  return (
    isRecord(value) &&
    value.sandbox_mcp_run === 1 &&
    typeof value.run === "string" &&
    typeof value.spilled === "boolean" &&
    (value.serves === undefined || value.serves === "itself" || value.serves === "child") &&
    isStream(value.stdout) &&
    isStream(value.stderr) &&
    Array.isArray(value.results) &&
    value.results.every(isResult) &&
    (value.error === null || isError(value.error)) &&
    (value.exit === null || typeof value.exit === "number")
  );
}

function isStream(value: unknown): value is SentStream {
  return (
    isRecord(value) &&
    isTextOrNone(value.text) &&
    isTextOrNone(value.data) &&
    Number.isInteger(value.bytes) &&
    Number.isInteger(value.dropped) &&
    isTextOrNone(value.last)
  );
}

function isResult(value: unknown): value is RichResult {
  return isRecord(value) && FORMS.every((form) => isTextOrNone(value[form]));
}

/** Whether it is an error of a document, or the executor's own. */
export function isError(value: unknown): value is CodeError {
  return (
    isRecord(value) &&
    typeof value.name === "string" &&
    typeof value.message === "string" &&
    isTexts(value.traceback)
  );
}

function isTextOrNone(value: unknown): value is string | undefined {
  return value === undefined || typeof value === "string";
}

/** The cell that loads the prelude into a fresh kernel; it prints the kernel's process. `directory` is the prelude's. */
export function loadCell(language: Language, directory = PRELUDE): string {
  return TRAITS[language].load(directory);
}

/** The cell that runs code: a call that is valid in the language, whatever the code holds. */
export function runCell(
  language: Language,
  runID: string,
  { code, logCapBytes, variables }: { code: string; logCapBytes: number; variables?: Variables },
  directory = RUNS,
): string {
  const argument = ascii(
    JSON.stringify({
      run: runID,
      // Processes that the code starts inherit the mark, by which they are found.
      mark: String(markOf(runID)),
      files: `${directory}/${runID}`,
      cap_bytes: logCapBytes,
      tail_bytes: SHOWN_END_BYTES,
      language,
      code,
      variables,
    }),
  );
  return `__sandbox_mcp__(${TRAITS[language].argument(argument)})`;
}

/** JSON without a character beyond ASCII: the JavaScript executor takes U+2028 for the end of a request. */
function ascii(json: string): string {
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The process that a loaded prelude named in what it printed, or undefined. */
export function parseHello(printed: string): KernelProcess | undefined {
  const [line = ""] = /^\{"sandbox_mcp_kernel"[^\n]{0,500}$/m.exec(printed) ?? [];
  const found = hello.safeParse(parseBounded(line, SANDBOX_JSON));
  return found.success ? { pid: found.data.pid, started: found.data.started } : undefined;
}

/** The document of the run in what its cell printed, or undefined when the prelude did not get to write it. */
export function parseDocument(printed: string, runID: string): RunDocument | undefined {
  const found = parseBounded(printed, SANDBOX_JSON);
  return isDocument(found) && found.run === runID ? bounded(found) : undefined;
}

/** Bounds for code that has changed its prelude; the preludes stay below all of these. Characters, lines, bytes. */
const OUTPUT_LIMITS = {
  results: 200,
  printed: 1024 * 1024,
  text: 512 * 1024,
  image: 16 * 1024 * 1024,
  name: 200,
  message: 32 * 1024,
  lines: 1000,
  line: 8 * 1024,
  bytes: 2 ** 40,
} as const;

function bounded({ stdout, stderr, results, error, exit, ...rest }: RunDocument<SentStream>): RunDocument {
  return {
    ...rest,
    stdout: boundedStream(stdout),
    stderr: boundedStream(stderr),
    results: results.slice(0, OUTPUT_LIMITS.results).map(boundedResult),
    error: error && boundedError(error),
    exit: Number.isSafeInteger(exit) ? exit : null,
  };
}

function boundedStream({ text, data, bytes, dropped, last }: SentStream): CodeStream {
  const count = Math.min(Math.max(0, bytes), OUTPUT_LIMITS.bytes);
  const output =
    text === undefined
      ? fromBase64(data, OUTPUT_LIMITS.printed)
      : encoder.encode(text.slice(0, OUTPUT_LIMITS.printed));
  return {
    output: output?.subarray(0, Math.min(count, OUTPUT_LIMITS.printed)),
    bytes: count,
    dropped: Math.min(Math.max(0, dropped), count),
    last: fromBase64(last, SHOWN_END_BYTES)?.subarray(-count),
  };
}

const encoder = new TextEncoder();

/** The bytes; undefined when there are none, when it is no base64 or more than `most` bytes of it. */
function fromBase64(text: string | undefined, most: number): Uint8Array | undefined {
  if (text === undefined || text.length > Math.ceil(most / 3) * 4) return undefined;
  try {
    // `Uint8Array.fromBase64` is not in Node 24, where kernels are tested without workerd.
    return Uint8Array.from(atob(text), (unit) => unit.charCodeAt(0)).subarray(0, most);
  } catch {
    return undefined;
  }
}

function isImageForm(form: string): boolean {
  return IMAGE_FORMS.some((one) => one === form);
}

function boundedResult(result: RichResult): RichResult {
  const kept: RichResult = {};
  for (const form of FORMS) {
    const value = result[form];
    if (value === undefined) continue;
    if (!isImageForm(form)) kept[form] = value.slice(0, OUTPUT_LIMITS.text);
    else if (value.length <= OUTPUT_LIMITS.image) kept[form] = value;
  }
  return kept;
}

/** An error from a document or of the executor, cut to what is shown. */
function boundedError({ name, message, traceback }: CodeError): CodeError {
  const half = OUTPUT_LIMITS.lines / 2;
  const lines =
    traceback.length <= OUTPUT_LIMITS.lines
      ? traceback
      : [...traceback.slice(0, half), ...traceback.slice(-half)];
  return {
    name: name.slice(0, OUTPUT_LIMITS.name),
    message: message.slice(0, OUTPUT_LIMITS.message),
    traceback: lines.map((line) => line.slice(0, OUTPUT_LIMITS.line)),
  };
}

/** The executor's answer to a cell. Of our cells only stdout matters, and the error when a cell failed. */
export interface Printed {
  logs: { stdout: string[]; stderr: string[] };
  error?: { name: string; message: string; traceback: string[] };
}

/** Whether this is an executor's answer, and not that of another program in its place. */
export function isPrinted(result: unknown): result is Printed {
  if (!isRecord(result) || !isRecord(result.logs)) return false;
  const { logs, error } = result;
  return isTexts(logs.stdout) && isTexts(logs.stderr) && (error === undefined || isError(error));
}

export interface CodeOutcome {
  /** False when no kernel was given the code: the run was withdrawn before, or the kernel did not start in time. */
  started: boolean;
  /** `error`: the code raised. `died`: the kernel ended by itself or was killed from elsewhere. */
  end: "ok" | "error" | "timeout" | "cancelled" | "died";
  stdout: CodeStream;
  stderr: CodeStream;
  serves?: Listening | undefined;
  /** Whether the sandbox may hold files of the run, with its output in them instead of in `text`. */
  hasFiles: boolean;
  results: RichResult[];
  error?: CodeError;
  /** What the code passed to exit(), which ends the cell and not the kernel. */
  exitCode?: number;
  /** Whether variables and imports are still there for the next call. */
  state: "kept" | "lost";
}

/** The outcome of code whose cell has been answered. */
export function outcomeOf(printed: Printed, runID: string): CodeOutcome {
  const found = parseDocument(printed.logs.stdout.join(""), runID);
  // Without a document something failed around the code, and the executor's own message is all there is.
  if (!found)
    return {
      ...outcomeWithoutResult("error", "kept"),
      error: printed.error ? boundedError(printed.error) : NO_DOCUMENT,
    };
  return {
    started: true,
    end: found.error ? "error" : "ok",
    stdout: found.stdout,
    stderr: found.stderr,
    hasFiles: found.spilled,
    serves: found.serves,
    results: found.results,
    error: found.error ?? undefined,
    exitCode: found.exit ?? undefined,
    state: "kept",
  };
}

const NO_DOCUMENT: CodeError = {
  name: "KernelError",
  message: "The kernel did not answer as it should; use another context for a fresh one.",
  traceback: [],
};

/** The outcome of code without an answer; its output has come from the run's files. */
export function outcomeWithoutResult(end: CodeOutcome["end"], state: CodeOutcome["state"]): CodeOutcome {
  const nothing = { bytes: 0, dropped: 0 };
  return { started: true, end, stdout: nothing, stderr: nothing, hasFiles: true, results: [], state };
}

export const KERNEL_NOT_STARTED: CodeOutcome = {
  ...outcomeWithoutResult("cancelled", "kept"),
  started: false,
  hasFiles: false,
};
