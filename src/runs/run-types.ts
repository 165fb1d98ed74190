/** A run is one execution of code, a command, a task or a question. */
import type { TerminalInput } from "../container/connection.ts";
import type { OutputSink } from "../container/follower.ts";
import type { EndState, RunKind, RunState } from "../shared/run-listing.ts";
import type { ShownOutput } from "./shown-output.ts";
import type { CodeDetail } from "./code-detail.ts";
import type { QuestionDetail, TaskDetail } from "./task-detail.ts";
import { CANCELLED_TEXT } from "./texts.ts";

export interface Allowance {
  /** Counted from the start. */
  timeoutMs: number;
  /** Why the time is less than requested, in sentences. */
  cut?: string;
}

export interface End {
  state: EndState;
  /** 128 plus the signal number if a signal ended the command. */
  exitCode?: number;
  /** The reason, and what it means for the next call, in sentences. */
  note?: string;
  /** At most `DETAIL_BYTES` of JSON. */
  detail?: RunDetail;
  /** The sandbox failed to confirm that all processes of the run have ended. */
  unconfirmed?: boolean;
}

export const CANCELLED_BEFORE_START: End = { state: "cancelled", note: CANCELLED_TEXT };

interface CommandDetail {
  /** Open when the run ended. */
  ports: readonly number[];
  /** The session's directory afterwards, unless it is /workspace. */
  cwd?: string;
}

export type RunDetail = CodeDetail | CommandDetail | TaskDetail | QuestionDetail;

export function questionDetailOf({ detail }: { detail?: RunDetail }): QuestionDetail | undefined {
  return detail && "code" in detail ? detail : undefined;
}

/** SQLite values in a Durable Object are limited to 2 MB. */
export const DETAIL_BYTES = 1_500_000;

export interface WaitState {
  /** Ids of earlier runs, the running one first. */
  behind: string[];
  kind: "session" | "context" | "workspace" | "setup";
  /** The session's or context's name; otherwise empty. */
  name: string;
}

export interface RunSummary {
  id: string;
  kind: RunKind;
  state: RunState;
  /** The first line of the source. */
  title: string;
  /** Before the start, when the run was requested. Milliseconds since the epoch. */
  startedAt: number;
  endedAt?: number;
  exitCode?: number;
  waiting?: WaitState;
}

export interface RunView extends RunSummary {
  /** The stored source, if it is more than the title. */
  source?: string | undefined;
  note?: string;
  detail?: RunDetail;
  stdout: ShownOutput;
  stderr: ShownOutput;
  /** Stored bytes: both streams in the order of arrival. */
  logBytes: number;
  /** Output after the log was full. */
  droppedBytes: number;
  /** A terminal's output contains control sequences. */
  isInteractive: boolean;
}

export const STREAMS = ["stdout", "stderr"] as const;

export type Stream = (typeof STREAMS)[number];

export interface LogPiece {
  stream: Stream;
  bytes: Uint8Array;
}

export interface RunSink<State = unknown> extends OutputSink {
  /** Called after the wait for earlier runs. */
  markStarted(): void;
  /** Undefined if nothing was started after all. */
  keepState(state: State | undefined): void;
  hasFiles: boolean;
}

export interface Execution {
  /** Settles when all output was reported. */
  done: Promise<End>;
  /** `done` settles soon after. */
  cancel(): Promise<void>;
  /** Returns how many bytes the terminal accepted. */
  type?: ((input: TerminalInput) => Promise<number>) | undefined;
  waiting?(): WaitState | undefined;
  /** A resumed execution's deadline, in milliseconds since the epoch. */
  deadline?: number;
}

export function waitingFor(behind: string[], kind: WaitState["kind"], name: string): WaitState | undefined {
  return behind.length > 0 ? { behind, kind, name } : undefined;
}

/** The exit status may mean an error. */
export function hasFailed({ state, exitCode = 0 }: RunSummary): boolean {
  return state !== "running" && (state === "failed" || exitCode !== 0);
}

/** So far or in total, without the wait before the start. */
export function durationMs({ startedAt, endedAt, waiting }: RunSummary): number {
  return waiting ? 0 : (endedAt ?? Date.now()) - startedAt;
}
