/** Runs: following one to its end, however long it takes, and what it leaves. */
import type { CallToolResult } from "@modelcontextprotocol/client";
import { type Camel, camel } from "./camel.ts";
import type { Connection, ToolResult } from "./connection.ts";
import { ConnectionError } from "./errors.ts";
import { type ToolOutputs, WAIT_SECONDS } from "./tool-types.ts";

export type RunState = ToolOutputs["run_command"]["state"];

export interface Run {
  /** For `client.result(id)`, even days later. */
  id: string;
  state: RunState;
  /** Whether it ended by itself without an error. */
  isSuccess: boolean;
  /** Milliseconds. */
  durationMs: number;
  /** The server's message besides the result, for example that the sandbox was restarted. */
  notice?: string;
}

interface Printed {
  stdout: string;
  stderr: string;
  /** Whether output exceeded `maxOutput`, or the server's limit. */
  isTruncated: boolean;
}

export interface CommandRun extends Run, Printed {
  exitCode?: number;
  /** Ports that its programs listen on, for `expose`. */
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
  error?: { name: string; message: string; traceback: string[] };
}

export type TaskRun = Run & Camel<ToolOutputs["execute_task"]>;

export interface FollowOptions {
  /** Called with the run's id once it has started. */
  onStart?: (id: string) => void;
  /** Called with output as it comes, in the order in which the server received it. */
  onOutput?: (output: { stream: "stdout" | "stderr"; text: string }) => void;
  /** Also cancels the run in the sandbox. */
  signal?: AbortSignal;
  /** Characters kept of each output stream. 16 Mi by default. */
  maxOutput?: number;
}

const MAX_OUTPUT = 16 * 1024 ** 2;

/**
 * How long the first call waits, in seconds: a run that ends by then needs no second call, others are followed as they print.
 */
export const FIRST_WAIT_SECONDS = 0.5;

/** How long broken connections are retried, in milliseconds: the run continues meanwhile. */
const RETRY_FOR_MS = 30_000;
const RETRY_PAUSE_MS = 500;

/**
 * The pause between pages, in milliseconds, so that a program that prints without end uses at most half the server's call
 * limit.
 */
const PAGE_EVERY_MS = 100;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The data of run-starting calls and `get_result`. */
interface RunData {
  id: string;
  state: RunState;
  duration_ms: number;
  exit_code?: number;
  stdout?: string;
  stderr?: string;
  stdout_bytes?: number;
  stderr_bytes?: number;
  notice?: string;
  /** The call for more; undefined if there is no more. */
  next?: string;
  [field: string]: unknown;
}

interface Page {
  state: string;
  log: { stream: "stdout" | "stderr"; text: string }[];
  next_cursor: number;
  log_bytes: number;
  notice?: string;
  [field: string]: unknown;
}

export interface Ended extends Printed {
  data: RunData;
  content: CallToolResult["content"];
}

/** Follows a run to its end. @param first the result of the starting call @throws the signal's reason if cancelled */
export async function follow(
  connection: Connection,
  first: ToolResult<unknown>,
  { onStart, onOutput, signal, maxOutput = MAX_OUTPUT }: FollowOptions,
): Promise<Ended> {
  const started = first.data as RunData;
  onStart?.(started.id);
  const kept = { stdout: "", stderr: "" };
  let isTruncated = false;
  const take = (stream: "stdout" | "stderr", text: string) => {
    if (text === "") return;
    onOutput?.({ stream, text });
    const room = maxOutput - kept[stream].length;
    kept[stream] += text.slice(0, room);
    isTruncated ||= text.length > room;
  };
  if (started.state !== "running" && started.next === undefined) {
    take("stdout", started.stdout ?? "");
    take("stderr", started.stderr ?? "");
    return { ...first, data: started, ...kept, isTruncated };
  }
  const { id } = started;
  const cancel = () => void connection.call("cancel_run", { id }).catch(() => undefined);
  if (signal?.aborted) cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  let logBytes = 0;
  try {
    for await (const page of pages(connection, id)) {
      for (const { stream, text } of page.log) take(stream, text);
      logBytes = page.log_bytes;
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  signal?.throwIfAborted();
  const { data, content } = await reading(connection, { id, wait_seconds: 0 });
  const ended = data as RunData;
  // Output that the server did not store is only counted.
  isTruncated ||= (ended.stdout_bytes ?? 0) + (ended.stderr_bytes ?? 0) > logBytes;
  return { data: ended, content, ...kept, isTruncated };
}

/** A run's log in pages, until it has ended and everything was read. */
async function* pages(connection: Connection, id: string): AsyncGenerator<Page, void> {
  let cursor = 0;
  for (let at = 0; ;) {
    await pause(Math.max(0, at + PAGE_EVERY_MS - Date.now()));
    at = Date.now();
    const answer = await reading(connection, { id, cursor, wait_seconds: WAIT_SECONDS });
    const page = answer.data as Page;
    yield page;
    cursor = page.next_cursor;
    if (page.state !== "running" && cursor >= page.log_bytes) return;
  }
}

/** The part of `get_result`'s input used here. */
export interface ReadInput {
  id: string;
  cursor?: number;
  wait_seconds: number;
}

/** Calls `get_result`; retries for a while after broken connections, because reading twice changes nothing. */
export async function reading(
  connection: Connection,
  input: ReadInput,
  onRetry?: () => void,
): Promise<ToolResult<Record<string, unknown>>> {
  const deadline = Date.now() + RETRY_FOR_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await connection.call("get_result", input);
    } catch (error) {
      if (!(error instanceof ConnectionError) || Date.now() > deadline) throw error;
      if (attempt === 1) onRetry?.();
      await pause(RETRY_PAUSE_MS);
    }
  }
}

function runOf({ data, stdout, stderr, isTruncated }: Ended): Run & Printed {
  const { id, state, duration_ms: durationMs, notice } = data;
  return { id, state, isSuccess: state === "succeeded", durationMs, notice, stdout, stderr, isTruncated };
}

export function commandRun(ended: Ended): CommandRun {
  const { exit_code: exitCode, ports = [] } = ended.data;
  return { ...runOf(ended), exitCode, ports: ports as number[] };
}

export function codeRun(ended: Ended): CodeRun {
  const { result, html = [], error } = ended.data as Pick<CodeRun, "result" | "error"> & Partial<CodeRun>;
  const images = ended.content.flatMap((block) =>
    block.type === "image" ? { mimeType: block.mimeType, data: bytesOf(block.data) } : [],
  );
  return { ...runOf(ended), result: result || undefined, html, images, error };
}

export function taskRun({ data }: Ended): TaskRun {
  const task = camel(data as ToolOutputs["execute_task"]);
  return { ...task, isSuccess: task.state === "succeeded" && task.success };
}

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
