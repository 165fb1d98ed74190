/**
 * The protocol between the actor and the kernels' prelude (`container/kernel/`). A cell is code that a kernel executes. The first
 * cell loads the prelude, and each later cell runs code of the user. Every cell prints a JSON document, which this file reads.
 */
import * as z from "zod";
import {
  type KernelProcess,
  SHOWN_END_BYTES,
  type Variables,
  markOf,
} from "../../../container/sandboxd/protocol.ts";
import { isRecord } from "../../shared/is-record.ts";
import { type Language, TRAITS } from "../../shared/languages.ts";
import { parseBounded, SANDBOX_VALUES } from "../../shared/bounded.ts";
import { cutText } from "../../shared/text.ts";
import { KERNEL_MALFORMED } from "../texts.ts";

const PRELUDE = "/opt/sandbox-mcp/kernel";
/** The directory for long output: `<run id>.out` and `<run id>.err`, as for commands. */
const RUN_DIRECTORY = "/var/lib/sandbox-mcp/runs";

/** Image formats, best first. */
export const IMAGE_FORMS = ["png", "jpeg", "webp", "gif"] as const;
const FORMS = [
  "text",
  ...IMAGE_FORMS,
  "image_file",
  "svg",
  "html",
  "markdown",
  "latex",
  "javascript",
  "left_out",
] as const;

/**
 * One output of a run. Images are base64. `image_file` is the form of an image that is too large for the document: the prelude has
 * written it to a file. The prelude limits the size of every form.
 */
export type RichResult = { [Form in (typeof FORMS)[number]]?: string };

/** An exception of the code. The traceback has one entry per line and only the user's frames. */
export interface CodeError {
  name: string;
  message: string;
  traceback: string[];
  /** The path of a local file or directory that may be the missing module. */
  local?: string | null | undefined;
}

export interface CodeStream {
  /** All kept output; undefined if the output went to the run's files. */
  output?: Uint8Array;
  bytes: number;
  /** The last bytes, if not all were kept, because of the log's limit. */
  last?: Uint8Array;
}

/** A stream in the document: UTF-8 is in `text`; other bytes are in `data` and `last`, in base64. */
interface SentStream {
  text?: string;
  data?: string;
  bytes: number;
  last?: string;
}

const hello = z.object({
  sandbox_mcp_kernel: z.literal(1),
  pid: z.int().positive(),
  started: z.int().nonnegative(),
});

/** Which process of a run listens on a port, or may begin to listen soon: the kernel itself, or a child process. */
export type Listening = "itself" | "child";

export interface RunDocument<Stream = CodeStream> {
  sandbox_mcp_run: 1;
  run: string;
  spilled: boolean;
  serves?: Listening;
  stdout: Stream;
  stderr: Stream;
  results: RichResult[];
  error: CodeError | null;
  exit: number | null;
}

/** Checks without a schema: every call needs this check, and a schema takes ten times as long. */
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
    value.results.every((result) => isRecord(result) && FORMS.every((form) => isTextOrNone(result[form]))) &&
    (value.error === null || isError(value.error)) &&
    (value.exit === null || typeof value.exit === "number")
  );
}

function isStream(value: unknown): value is SentStream {
  return (
    isRecord(value) &&
    isTextOrNone(value.text) &&
    isTextOrNone(value.data) &&
    Number.isSafeInteger(value.bytes) &&
    isTextOrNone(value.last)
  );
}

function isError(value: unknown): value is CodeError {
  return (
    isRecord(value) &&
    typeof value.name === "string" &&
    typeof value.message === "string" &&
    isTexts(value.traceback) &&
    (value.local === null || isTextOrNone(value.local))
  );
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}

function isTextOrNone(value: unknown): value is string | undefined {
  return value === undefined || typeof value === "string";
}

export function loadCell(language: Language, directory = PRELUDE): string {
  return TRAITS[language].load(directory);
}

/** The cell that runs code. It is a valid call in the language for every possible code. */
export function runCell(
  language: Language,
  runID: string,
  { code, logCapBytes, variables }: { code: string; logCapBytes: number; variables?: Variables },
  directory = RUN_DIRECTORY,
): string {
  const argument = toASCII(
    JSON.stringify({
      run: runID,
      // Processes that the code starts inherit the mark, so that sandboxd finds them.
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

/** JSON in ASCII: the JavaScript executor treats U+2028 as the end of a request. */
function toASCII(json: string): string {
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The kernel's process, which the prelude prints when it is loaded; undefined if the output does not contain it. */
export function parseHello(printed: string): KernelProcess | undefined {
  const [line = ""] = /^\{"sandbox_mcp_kernel"[^\n]{0,500}$/m.exec(printed) ?? [];
  const found = hello.safeParse(parseBounded(line, SANDBOX_VALUES));
  return found.success ? { pid: found.data.pid, started: found.data.started } : undefined;
}

export function parseDocument(printed: string, runID: string): RunDocument | undefined {
  const found = parseBounded(printed, SANDBOX_VALUES);
  return isDocument(found) && found.run === runID ? boundDocument(found) : undefined;
}

/** In characters and lines. The preludes stay below these limits, unless user code has changed its prelude. */
const OUTPUT_LIMITS = {
  results: 200,
  printed: 1024 * 1024,
  text: 512 * 1024,
  image: 16 * 1024 * 1024,
  name: 200,
  message: 32 * 1024,
  lines: 1000,
  line: 8 * 1024,
} as const;

function boundDocument(sent: RunDocument<SentStream>): RunDocument {
  return {
    ...sent,
    stdout: boundStream(sent.stdout),
    stderr: boundStream(sent.stderr),
    results: sent.results.slice(0, OUTPUT_LIMITS.results).map(boundResult),
    error: sent.error && boundError(sent.error),
    exit: Number.isSafeInteger(sent.exit) ? sent.exit : null,
  };
}

function boundStream({ text, data, bytes, last }: SentStream): CodeStream {
  const output =
    text === undefined
      ? fromBase64(data, OUTPUT_LIMITS.printed)
      : encoder.encode(cutText(text, OUTPUT_LIMITS.printed));
  return {
    output: output?.subarray(0, OUTPUT_LIMITS.printed),
    bytes,
    last: fromBase64(last, SHOWN_END_BYTES),
  };
}

const encoder = new TextEncoder();

/** The decoded bytes; undefined if there is no text, its base64 is invalid, or it is too long for `maxBytes`. */
function fromBase64(text: string | undefined, maxBytes: number): Uint8Array | undefined {
  if (text === undefined || text.length > Math.ceil(maxBytes / 3) * 4) return undefined;
  try {
    // Node 24, where kernels are tested without workerd, lacks `Uint8Array.fromBase64`.
    return Uint8Array.from(atob(text).slice(0, maxBytes), (unit) => unit.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function boundResult(result: RichResult): RichResult {
  const validForms: RichResult = {};
  for (const form of FORMS) {
    const value = result[form];
    if (value === undefined) continue;
    if (!IMAGE_FORMS.some((image) => image === form)) validForms[form] = cutText(value, OUTPUT_LIMITS.text);
    else if (value.length <= OUTPUT_LIMITS.image) validForms[form] = value;
  }
  return validForms;
}

function boundError({ name, message, traceback, local }: CodeError): CodeError {
  const half = OUTPUT_LIMITS.lines / 2;
  const lines =
    traceback.length <= OUTPUT_LIMITS.lines
      ? traceback
      : [...traceback.slice(0, half), ...traceback.slice(-half)];
  return {
    name: cutText(name, OUTPUT_LIMITS.name),
    message: cutText(message, OUTPUT_LIMITS.message),
    traceback: lines.map((line) => cutText(line, OUTPUT_LIMITS.line)),
    local: local && cutText(local, OUTPUT_LIMITS.line),
  };
}

export interface CellResponse {
  logs: { stdout: string[]; stderr: string[] };
  error?: CodeError;
}

export function isCellResponse(result: unknown): result is CellResponse {
  if (!isRecord(result) || !isRecord(result.logs)) return false;
  const { logs, error } = result;
  return isTexts(logs.stdout) && isTexts(logs.stderr) && (error === undefined || isError(error));
}

export interface CodeOutcome {
  /** False if no kernel got the code: the run was cancelled first, or the kernel did not start in time. */
  hasStarted: boolean;
  /** `error`: the code raised an exception. `died`: the kernel ended by itself or was killed by something else. */
  end: "ok" | "error" | "timeout" | "cancelled" | "died";
  /** How the kernel died, if that is known. */
  cause?: string | undefined;
  stdout: CodeStream;
  stderr: CodeStream;
  serves?: Listening | undefined;
  /** Whether the sandbox may have files with the output that `stdout` and `stderr` lack. */
  hasFiles: boolean;
  results: RichResult[];
  error?: CodeError;
  /** The argument of exit(), which ends the cell, not the kernel. */
  exitCode?: number;
  /** Whether variables and imports are available to the next call. */
  state: "kept" | "lost";
  /** Whether the kernel replaced one that had ended, so that the code ran without earlier variables. */
  isFresh?: boolean;
}

export function codeOutcomeOf({ logs, error }: CellResponse, runID: string): CodeOutcome {
  const runDocument = parseDocument(logs.stdout.join(""), runID);
  // Without a document, something other than the code failed, and there is only the executor's message.
  if (!runDocument)
    return {
      ...outcomeWithoutResult("error", "kept"),
      error: error ? boundError(error) : NO_DOCUMENT,
    };
  return {
    hasStarted: true,
    end: runDocument.error ? "error" : "ok",
    stdout: runDocument.stdout,
    stderr: runDocument.stderr,
    hasFiles: runDocument.spilled,
    serves: runDocument.serves,
    results: runDocument.results,
    error: runDocument.error ?? undefined,
    exitCode: runDocument.exit ?? undefined,
    state: "kept",
  };
}

const NO_DOCUMENT: CodeError = { name: "KernelError", message: KERNEL_MALFORMED, traceback: [] };

/** The outcome of code without a result. Its output is in the run's files. */
export function outcomeWithoutResult(end: CodeOutcome["end"], state: CodeOutcome["state"]): CodeOutcome {
  const nothing = { bytes: 0 };
  return { hasStarted: true, end, stdout: nothing, stderr: nothing, hasFiles: true, results: [], state };
}

export const KERNEL_NOT_STARTED: CodeOutcome = {
  ...outcomeWithoutResult("cancelled", "kept"),
  hasStarted: false,
  hasFiles: false,
};
