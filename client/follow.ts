/** Follows runs to their end, even for hours, and returns their results. */
import type { CallToolResult } from "@modelcontextprotocol/client";
import { type Camel, toCamelCase } from "./camel.ts";
import { type Connection, type ToolResult, pause } from "./connection.ts";
import { ConnectionError, SandboxError, UnavailableError } from "./errors.ts";
import { type ToolOutputs, WAIT_SECONDS } from "./tool-types.ts";

export type RunState = ToolOutputs["run_command"]["state"];

export interface Run {
  /** The run's id. `server.result(id)` returns the result again, even days later. */
  id: string;
  state: RunState;
  /** Whether the run ended without an error, and nobody stopped it. */
  isSuccess: boolean;
  /** How long the run took, in milliseconds. */
  durationMs: number;
  /** The server's message besides the result, for example that the sandbox was restarted. */
  notice?: string;
}

interface Printed {
  stdout: string;
  stderr: string;
  /** Whether something is missing: output beyond `maxOutput` or the server's limit, or a part of a code run's result. */
  isTruncated: boolean;
}

export interface CommandRun extends Run, Printed {
  exitCode?: number;
  /** Ports that the run's programs listen on. `expose` gives them a URL. */
  ports: number[];
}

export interface Image {
  mimeType: string;
  data: Uint8Array;
}

export interface CodeRun extends Run, Printed {
  /** The value of the last expression as text. */
  result?: string;
  /** Results with an HTML form, such as DataFrames. */
  html: string[];
  /** Plots and pictures. */
  images: Image[];
  /** The data that is missing in `result`, `html` and `images`, and how to get it, in sentences. */
  leftOut?: string;
  error?: { name: string; message: string; traceback: string[] };
}

export type TaskRun = Run & Camel<ToolOutputs["execute_task"]>;

export interface FollowOptions {
  /** Called with the run's id once the run has started. An exception here or in `onOutput` cancels the run. */
  onStart?: (id: string) => void;
  /** Called with output when it arrives, in the order in which the server received it. A returned promise is awaited. */
  onOutput?: (output: { stream: "stdout" | "stderr"; text: string }) => unknown;
  /** Aborts the call, and cancels the run in the sandbox. */
  signal?: AbortSignal;
  /** How many characters of each output stream are kept. 16 Mi by default. */
  maxOutput?: number;
}

const MAX_OUTPUT = 16 * 1024 ** 2;

/**
 * How long the first call waits, in seconds. A run that ends in this time needs no second call. If a run takes longer, the client
 * reads its output as it arrives.
 */
export const FIRST_WAIT_SECONDS = 0.5;

/** How long a broken connection is retried, in milliseconds. The run continues during that time. */
const RECONNECT_FOR_MS = 30_000;

/** How long a server that responds with 429 or 5xx is retried, in milliseconds. Call limits count per minute. */
const RETRY_FOR_MS = 180_000;

/** The pauses between attempts, in milliseconds. Each is twice the one before. */
const RETRY_PAUSE_MS = 500;
const MAX_RETRY_PAUSE_MS = 5000;

/** The pauses between pages while output arrives, in milliseconds. Each is twice the one before. */
const PAGE_PAUSE_MS = 100;
const MAX_PAGE_PAUSE_MS = 500;

/** How long an abort waits for the end of the run. The call that cancels the run is repeated even after that. */
const CANCEL_WAIT_MS = 5000;

/** The data of run-starting calls and `get_result`, for every kind of run. */
export interface RunData extends Partial<Omit<ToolOutputs["run_command"], "id" | "state" | "duration_ms">> {
  id: string;
  state: RunState;
  duration_ms: number;
  [field: string]: unknown;
}

/** A page of a log. `get_result` with a cursor returns the same fields as `send_input`. */
type Page = ToolOutputs["send_input"];

export interface Ended extends Printed {
  data: RunData;
  content: CallToolResult["content"];
}

export interface PagesOptions {
  /** The byte of the log to start at. */
  cursor?: number;
  /** Stops reading. The run continues. */
  signal?: AbortSignal | undefined;
  /** Until when a run is followed, in milliseconds since the epoch. */
  deadline?: number;
  /** A fixed time between pages, in milliseconds. By default, the pauses grow while output flows. */
  everyMs?: number;
  /** Called before a failed call is repeated. */
  onRetry?: ((error: unknown) => void) | undefined;
}

/** Further options that only the command line uses. */
export interface FollowingOptions extends FollowOptions, Pick<PagesOptions, "deadline" | "onRetry"> {
  onNotice?: (notice: string) => void;
  /** Ends `follow` early, like the deadline. The run continues. */
  detach?: AbortSignal;
}

/**
 * Follows a run to its end, or until the deadline or `detach`.
 * @param first the result of the starting call
 * @throws the signal's reason, or a callback's exception: then the run is cancelled
 * @throws {SandboxError} with `runID` if the server cannot be reached; the run continues
 */
export async function follow(
  connection: Connection,
  first: ToolResult<unknown>,
  {
    onStart,
    onOutput,
    onNotice,
    signal,
    maxOutput = MAX_OUTPUT,
    deadline,
    detach,
    onRetry,
  }: FollowingOptions,
): Promise<Ended> {
  const started = first.data as RunData;
  connection.requireForm(isRun(started));
  const { id } = started;
  const output = { stdout: "", stderr: "" };
  const room = { stdout: maxOutput, stderr: maxOutput };
  let isTruncated = false;
  const take = async (stream: "stdout" | "stderr", text: string) => {
    if (text === "") return;
    await onOutput?.({ stream, text });
    const isCut = text.length > room[stream];
    // Half of a surrogate pair at the end would not be a character.
    output[stream] += isCut ? text.slice(0, room[stream]).replace(/[\ud800-\udbff]$/, "") : text;
    room[stream] = isCut ? 0 : room[stream] - text.length;
    isTruncated ||= isCut;
  };
  try {
    onStart?.(id);
    const { state, next, stdout = "", stderr = "" } = started;
    // Only the log has the output of both streams in the order in which the server received it.
    const isOrdered = !onOutput || stdout === "" || stderr === "";
    if (state !== "running" && next === undefined && isOrdered) {
      await take("stdout", stdout);
      await take("stderr", stderr);
      return { ...first, data: started, ...output, isTruncated };
    }
    if (started.notice !== undefined) onNotice?.(started.notice);
    let logBytes = 0;
    const ending = AbortSignal.any([signal, detach].filter((given) => given !== undefined));
    try {
      for await (const page of pages(connection, id, { signal: ending, deadline, onRetry })) {
        for (const { stream, text } of page.log) await take(stream, text);
        if (page.notice !== undefined) onNotice?.(page.notice);
        logBytes = page.log_bytes;
      }
    } catch (error) {
      if (error !== detach?.reason) throw error;
    }
    const { data, content } = await unlessAborted(
      readResult(connection, { id, wait_seconds: 0 }, onRetry),
      signal,
    );
    const ended = data as RunData;
    connection.requireForm(isRun(ended));
    // The server's count includes output that the server did not store.
    isTruncated ||= (ended.stdout_bytes ?? 0) + (ended.stderr_bytes ?? 0) > logBytes;
    return { data: ended, content, ...output, isTruncated };
  } catch (error) {
    const isServerUnreachable = error instanceof SandboxError && error.runID === id;
    if (!isServerUnreachable) await cancel(connection, id);
    throw error;
  }
}

/** A run's log in pages, until it has ended and everything was read. @throws the signal's reason */
export async function* pages(
  connection: Connection,
  id: string,
  { cursor = 0, signal, deadline = Infinity, everyMs, onRetry }: PagesOptions = {},
): AsyncGenerator<Page, void> {
  for (let pauseMs = PAGE_PAUSE_MS; ;) {
    await connection.waitForPollTurn();
    const polledAt = Date.now();
    const timeLeft = deadline - polledAt;
    // Without `wait_seconds` the server waits as long as its operator allows, but no longer than WAIT_SECONDS.
    const input = timeLeft > 0 ? { id, cursor } : { id, cursor, wait_seconds: 0 };
    const isLast = timeLeft > 0 && timeLeft < WAIT_SECONDS * 1000;
    const due = isLast ? AbortSignal.timeout(timeLeft) : undefined;
    const ending = due && signal ? AbortSignal.any([signal, due]) : (due ?? signal);
    let page: Page;
    try {
      page = (await unlessAborted(readResult(connection, input, onRetry), ending)).data as Page;
    } catch (error) {
      if (due?.aborted && error === due.reason) continue;
      throw error;
    }
    connection.requireForm(isPage(page));
    yield page;
    cursor = page.next_cursor;
    const isBehind = cursor < page.log_bytes;
    if (!isBehind && page.state !== "running") return;
    const left = deadline - Date.now();
    if (page.state === "running" && left <= 0) return;
    const isFlowing = !isBehind && Date.now() - polledAt < pauseMs;
    pauseMs = everyMs ?? (isFlowing ? Math.min(2 * pauseMs, MAX_PAGE_PAUSE_MS) : PAGE_PAUSE_MS);
    await unlessAborted(pause(Math.max(0, Math.min(left, polledAt + pauseMs - Date.now()))), signal);
  }
}

function isRun({ id, state, stdout = "", stderr = "" }: Partial<RunData>): boolean {
  return [id, state, stdout, stderr].every((value) => typeof value === "string");
}

function isPage({ state, log, next_cursor: next, log_bytes: bytes }: Partial<Page>): boolean {
  const isText = (part?: Partial<Page["log"][number]> | null) => typeof part?.text === "string";
  const hasTypes = typeof state === "string" && typeof next === "number" && typeof bytes === "number";
  return hasTypes && Array.isArray(log) && log.every(isText);
}

export interface ReadInput {
  id: string;
  cursor?: number;
  wait_seconds?: number;
}

/** Calls `get_result`, and repeats the call after temporary errors. @throws {SandboxError} with `runID` */
export async function readResult(
  connection: Connection,
  input: ReadInput,
  onRetry?: (error: unknown) => void,
): Promise<ToolResult<Record<string, unknown>>> {
  try {
    return await retry(() => connection.call("get_result", input), onRetry);
  } catch (error) {
    if (error instanceof SandboxError) error.runID = input.id;
    throw error;
  }
}

/** Cancels a run, and waits a few seconds for its end. */
async function cancel(connection: Connection, id: string): Promise<void> {
  const cancelling = retry(() => connection.call("cancel_run", { id })).catch(() => undefined);
  await unlessAborted(cancelling, AbortSignal.timeout(CANCEL_WAIT_MS)).catch(() => undefined);
}

/** Does work that may be done twice, and repeats it after a broken connection, 429 and 5xx. */
async function retry<T>(work: () => Promise<T>, onRetry?: (error: unknown) => void): Promise<T> {
  let failedAt: number | undefined;
  for (let pauseMs = RETRY_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_RETRY_PAUSE_MS)) {
    try {
      return await work();
    } catch (error) {
      const isRefused = error instanceof UnavailableError;
      if (!isRefused && !(error instanceof ConnectionError)) throw error;
      if (failedAt === undefined) onRetry?.(error);
      failedAt ??= Date.now();
      const delay = Math.max(pauseMs, (isRefused && error.retryAfterMs) || 0);
      const limitMs = isRefused ? RETRY_FOR_MS : RECONNECT_FOR_MS;
      if (Date.now() + delay > failedAt + limitMs) throw error;
      await pause(delay);
    }
  }
}

/** The work's value, unless the signal aborts first. @throws the signal's reason */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function runOf({ data, stdout, stderr, isTruncated }: Ended): Run & Printed {
  const { id, state, duration_ms: durationMs, notice } = data;
  return { id, state, isSuccess: state === "succeeded", durationMs, notice, stdout, stderr, isTruncated };
}

export function commandRun(ended: Ended): CommandRun {
  const { exit_code: exitCode, ports = [] } = ended.data;
  return { ...runOf(ended), exitCode, ports };
}

export function codeRun(ended: Ended): CodeRun {
  const { result, html = [], error, left_out: leftOut } = ended.data as Partial<ToolOutputs["run_code"]>;
  const images = ended.content.flatMap((block) =>
    block.type === "image" ? { mimeType: block.mimeType, data: bytesOf(block.data) } : [],
  );
  const run = runOf(ended);
  const isTruncated = run.isTruncated || leftOut !== undefined;
  return { ...run, isTruncated, result: result || undefined, html, images, leftOut, error };
}

export function taskRun({ data }: Ended): TaskRun {
  const task = toCamelCase(data as ToolOutputs["execute_task"]);
  return { ...task, isSuccess: task.state === "succeeded" && task.success };
}

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
