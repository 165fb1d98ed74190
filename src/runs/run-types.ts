/** The types of runs. A run is one execution of code, a command, a task or a question. */
import type { Stream } from "../../container/sandboxd/protocol.ts";
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

/** A run's end, as reported by its executor. */
export interface End {
  state: EndState;
  /** A command's exit status, 128 plus the signal number if a signal ended it; for code, the argument of exit(). */
  exitCode?: number;
  /** The reason, and what it means for the next call, in sentences. */
  note?: string;
  /** Data for this kind of run: at most `DETAIL_BYTES` of JSON. */
  detail?: RunDetail;
  /** Whether the sandbox failed to confirm that all processes of the run have ended. */
  unconfirmed?: boolean;
}

export const CANCELLED_BEFORE_START: End = { state: "cancelled", note: CANCELLED_TEXT };

interface CommandDetail {
  /** Ports that the run's programs had opened when it ended. */
  ports: readonly number[];
  /** The session's working directory afterwards, unless it is /workspace. */
  cwd?: string;
}

export type RunDetail = CodeDetail | CommandDetail | TaskDetail | QuestionDetail;

export function questionDetailOf({ detail }: { detail?: RunDetail }): QuestionDetail | undefined {
  return detail && "code" in detail ? detail : undefined;
}

/** The largest detail, in bytes of JSON: SQLite values in a Durable Object are limited to 2 MB. */
export const DETAIL_BYTES = 1_500_000;

/** What a run waits for before it starts. */
export interface WaitState {
  /** Ids of earlier runs, the running one first. */
  behind: string[];
  /** What the runs share: the shell session, the kernel's context, the workspace of tasks, or the set-up. */
  kind: "session" | "context" | "workspace" | "setup";
  /** The session's or context's name; otherwise empty. */
  name: string;
}

/** A run in a list. */
export interface RunSummary {
  id: string;
  kind: RunKind;
  state: RunState;
  /** The first line of the source. */
  title: string;
  /** When the run started; before the start, when it was requested. Milliseconds since the epoch. */
  startedAt: number;
  endedAt?: number;
  exitCode?: number;
  waiting?: WaitState;
}

/** A run as its caller sees it, the same for every kind. Sent from the actor to the Worker. */
export interface RunView extends RunSummary {
  /** The stored source, if it is more than the title. */
  source?: string | undefined;
  note?: string;
  detail?: RunDetail;
  stdout: ShownOutput;
  stderr: ShownOutput;
  /** Stored bytes of the log: both streams in the order of arrival. */
  logBytes: number;
  /** Bytes of output that came after the log was full. */
  droppedBytes: number;
  /** Whether the run has a terminal. Its output then contains control sequences. */
  isInteractive: boolean;
}

export interface LogPiece {
  stream: Stream;
  bytes: Uint8Array;
}

/** Receives the reports of an executor. `State` is the data that resumes the run. */
export interface RunSink<State = unknown> extends OutputSink {
  /** Called when the run starts, after its wait for earlier runs. */
  markStarted(): void;
  /** Called if the code of the run has ended before all output was received. The run's duration ends now. */
  markExecuted?(): void;
  /** Stores the state for resuming the run; undefined if nothing was started after all. */
  keepState(state: State | undefined): void;
  /** Whether the sandbox may have files of the run; true unless the executor changes it. */
  hasFiles: boolean;
}

export interface Execution {
  /** Settles when the execution has ended and all output was reported. */
  done: Promise<End>;
  /** Ends the execution early; `done` settles soon after. */
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

/** Whether the run has ended with an error, or with an exit status other than 0. */
export function hasFailed({ state, exitCode = 0 }: RunSummary): boolean {
  return state !== "running" && (state === "failed" || exitCode !== 0);
}

/** The run's duration, so far or in total, without the wait before its start. */
export function durationMs({ startedAt, endedAt, waiting }: RunSummary): number {
  return waiting ? 0 : (endedAt ?? Date.now()) - startedAt;
}
