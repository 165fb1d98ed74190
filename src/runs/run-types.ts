/** What a run is: one execution of code, of a command or of a task, from its start to its end. */
import type { TerminalInput } from "../container/connection.ts";
import type { OutputSink } from "../container/follower.ts";
import type { EndState, RunKind, RunState } from "../shared/run-listing.ts";
import type { ShownOutput } from "./shown-output.ts";
import type { CodeDetail } from "./code-detail.ts";
import type { QuestionDetail, TaskDetail } from "./task-detail.ts";
import { CANCELLED_TEXT } from "./texts.ts";

/** How long a run may take. */
export interface Allowance {
  /** From the moment it starts, milliseconds. */
  timeoutMs: number;
  /** Why that is less than was asked for, when it is, in sentences. */
  cut?: string;
}

/** How a run ended, as its executor reports it. */
export interface End {
  state: EndState;
  /** Of a command: its exit status, 128 and the signal's number when a signal ended it. */
  exitCode?: number;
  /** Why it ended so and what that means for what comes next, in sentences. */
  note?: string;
  /** What only this kind of run has: JSON of at most `DETAIL_BYTES`. */
  detail?: RunDetail;
  /** Whether the sandbox did not confirm that nothing of the run is left. */
  unconfirmed?: boolean;
}

/** The end of a run that was cancelled before its turn. */
export const CANCELLED_BEFORE_START: End = {
  state: "cancelled",
  note: CANCELLED_TEXT,
};

/** What only a command has. */
export interface CommandDetail {
  /** Those that its programs listen on, as of its end at the latest. */
  ports: readonly number[];
  /** The directory that its session is in after it, where that is not /workspace. */
  cwd?: string;
}

export type RunDetail = CodeDetail | CommandDetail | TaskDetail | QuestionDetail;

export function questionDetailOf({ detail }: { detail?: RunDetail }): QuestionDetail | undefined {
  return detail && "code" in detail ? detail : undefined;
}

/** The largest detail of a run, in bytes of JSON: SQLite in a Durable Object holds values of up to 2 MB. */
export const DETAIL_BYTES = 1_500_000;

/** What a run that has not started waits for. */
export interface WaitState {
  /** Ids of the runs before it, the one under way first. */
  behind: string[];
  /** What is shared with them, and its name: their shell session, their kernel's context, the workspace of tasks, or the set-up. */
  kind: "session" | "context" | "workspace" | "setup";
  name: string;
}

/** A run as a list shows it. */
export interface RunSummary {
  id: string;
  kind: RunKind;
  state: RunState;
  /** The first line of what was run. */
  title: string;
  /** When its turn came; before that, when it was requested. Milliseconds since the epoch. */
  startedAt: number;
  endedAt?: number;
  exitCode?: number;
  waiting?: WaitState;
}

/** A run as its caller sees it; the same for every kind. Crosses from the actor to the Worker as data. */
export interface RunView extends RunSummary {
  /** What was run, where it is more than the title, as far as it is kept. */
  source?: string | undefined;
  note?: string;
  detail?: RunDetail;
  stdout: ShownOutput;
  stderr: ShownOutput;
  /** Bytes of the log: both streams in the order of their arrival, as far as they are kept. */
  logBytes: number;
  /** Bytes of output that came when the log was full. */
  droppedBytes: number;
  /** Whether it runs in a terminal, whose control sequences are part of its output. */
  isInteractive: boolean;
}

export const STREAMS = ["stdout", "stderr"] as const;

export type Stream = (typeof STREAMS)[number];

/** A piece of a run's log. */
export interface LogPiece {
  stream: Stream;
  bytes: Uint8Array;
}

/** What an executor reports to during a run. `State` is what the run can be resumed from. */
export interface RunSink<State = unknown> extends OutputSink {
  /** The run's turn has come. */
  markStarted(): void;
  /** Keeps the state that another actor can resume the run from; undefined when nothing was started after all. */
  keepState(state: State | undefined): void;
  /** Whether the sandbox may hold files of the run; true unless its executor sets it. */
  hasFiles: boolean;
}

/** One execution under way. */
export interface Execution {
  /** Settles when it has ended and all of its output was reported. */
  done: Promise<End>;
  /** Ends it early: `done` settles soon after. */
  cancel(): Promise<void>;
  /** Types into its terminal, where it has one. Answers how many bytes of the text were taken. */
  type?: ((input: TerminalInput) => Promise<number>) | undefined;
  /** What it waits for before its turn. */
  waiting?(): WaitState | undefined;
  /** The deadline of a resumed execution, milliseconds since the epoch. */
  deadline?: number;
}

export function waitingFor(behind: string[], kind: WaitState["kind"], name: string): WaitState | undefined {
  return behind.length > 0 ? { behind, kind, name } : undefined;
}

/** How long a run has taken so far or in total, without the wait for its turn. Milliseconds. */
export function durationMs({ startedAt, endedAt, waiting }: RunSummary): number {
  return waiting ? 0 : (endedAt ?? Date.now()) - startedAt;
}
