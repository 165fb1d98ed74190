/**
 * What the actor and the kernels' prelude (`container/kernel/`) say to each other: the cell that loads the prelude, the
 * cell that runs code, and the one JSON document that comes back for each of them.
 */
import { z } from "zod";

export type Language = "python" | "javascript" | "typescript";

/** Where the prelude lies in a sandbox. */
const PRELUDE = "/opt/sandbox-mcp/kernel";

/** Where a run's output goes when it is long: `<here>/<run id>.out` and `.err`, as a command's. */
const RUNS = "/var/lib/sandbox-mcp/runs";

/** Bytes of each stream that a run keeps; what comes after is counted and its end remembered. */
export const LOG_CAP_BYTES = 100 * 1024 * 1024;

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
  svg?: string;
  html?: string;
  markdown?: string;
  latex?: string;
  json?: unknown;
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
  text?: string;
  /** Bytes printed. */
  bytes: number;
  /** Of these, bytes beyond the cap. */
  dropped: number;
  /** The last 16 KiB of what was dropped. */
  tail?: string;
}

const hello = z.object({ sandbox_mcp_kernel: z.literal(1), pid: z.int(), started: z.int() });

const stream = z.object({
  text: z.string().optional(),
  bytes: z.int(),
  dropped: z.int(),
  tail: z.string().optional(),
});

const document = z.object({
  sandbox_mcp_run: z.literal(1),
  run: z.string(),
  spilled: z.boolean(),
  stdout: stream,
  stderr: stream,
  results: z.array(
    z.object({
      text: z.string().optional(),
      png: z.string().optional(),
      jpeg: z.string().optional(),
      svg: z.string().optional(),
      html: z.string().optional(),
      markdown: z.string().optional(),
      latex: z.string().optional(),
      json: z.unknown().optional(),
      javascript: z.string().optional(),
    }),
  ),
  error: z.object({ name: z.string(), message: z.string(), traceback: z.array(z.string()) }).nullable(),
  exit: z.number().nullable(),
});

/** A run's document. */
export type RunDocument = z.infer<typeof document>;

/** The cell that loads the prelude into a fresh kernel; it prints the kernel's process. `directory` is the prelude's. */
export function loadCell(language: Language, directory = PRELUDE): string {
  if (language !== "python") {
    return `require(${JSON.stringify(`${directory}/node.cjs`)}).start(globalThis, ${JSON.stringify(language)})`;
  }
  const lines = [
    "import sys",
    `sys.path.insert(0, ${JSON.stringify(directory)})`,
    "try:",
    "    import sandbox_mcp_kernel",
    "finally:",
    "    sys.path.pop(0)",
    "sandbox_mcp_kernel.start()",
  ];
  return `exec(${JSON.stringify(lines.join("\n"))}, {})`;
}

/** The cell that runs code: a call that is valid JavaScript, or valid Python, whatever the code holds. */
export function runCell(
  language: Language,
  spec: { runID: string; code: string; logCapBytes?: number },
  directory = RUNS,
): string {
  const argument = ascii(
    JSON.stringify({
      run: spec.runID,
      files: `${directory}/${spec.runID}`,
      cap_bytes: spec.logCapBytes ?? LOG_CAP_BYTES,
      language,
      code: spec.code,
    }),
  );
  // JSON is JavaScript. Python reads its strings alike except for surrogate pairs, so there it stays a string.
  return `__sandbox_mcp__(${language === "python" ? JSON.stringify(argument) : argument})`;
}

/** JSON without a character beyond ASCII: the JavaScript executor takes U+2028 for the end of a request. */
function ascii(json: string): string {
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The process that a loaded prelude named in what it printed, or undefined. */
export function parseHello(printed: string): KernelProcess | undefined {
  for (const line of printed.split("\n")) {
    const found = hello.safeParse(parseJSON(line));
    if (found.success) return { pid: found.data.pid, started: found.data.started };
  }
  return undefined;
}

/** The document of the run in what its cell printed, or undefined when the prelude did not get to write it. */
export function parseDocument(printed: string, runID: string): RunDocument | undefined {
  const found = document.safeParse(parseJSON(printed));
  return found.success && found.data.run === runID ? found.data : undefined;
}

function parseJSON(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * A shell line that succeeds when the process is there, not a zombie and the same one as before; with a signal it sends
 * that too. Builtins of bash only, because it is asked about once a second.
 */
export function processLine({ pid, started }: KernelProcess, signal?: "INT" | "KILL"): string {
  const check = [
    `{ IFS= read -r -d '' s </proc/${pid}/stat; } 2>/dev/null`,
    "s=${s##*) }",
    "set -- $s",
    `[[ $1 != Z && \${20} == ${started} ]] || exit 1`,
    ...(signal ? [`kill -${signal} ${pid}`] : []),
  ];
  return `( ${check.join("; ")} )`;
}
