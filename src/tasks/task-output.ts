/** Turns an agent's events into log lines for people. The raw stream is not stored. */
import type { EventReader } from "./agent-report.ts";
import { readLine } from "./event-fields.ts";
import { addPart, decodeText, joinBytes } from "../shared/text.ts";
import { pause } from "../shared/timers.ts";
import type { CommandState } from "../runs/command-executor.ts";
import { PIECE_BYTES, type Stream, WINDOW_BYTES } from "../../container/sandboxd/protocol.ts";
import type { RunSink } from "../runs/run-types.ts";
import { NO_DIFF, OWN_DEFINITION } from "./texts.ts";

/** The longest line to parse, in bytes. A longer one is dropped before it fills sandboxd's window, which would never be stored. */
const MAX_LINE = WINDOW_BYTES - PIECE_BYTES;

const NEWLINE = 0x0a;
const encoder = new TextEncoder();

/** The steps that `container/task.sh` reports on the agent's stream. */
export const STEPS = [
  "directory_exists",
  "cloning",
  "clone_failed",
  "no_directory",
  "no_component",
  "own_component",
  "no_snapshot",
  "no_agent",
  "agent",
] as const;

export type Step = (typeof STEPS)[number];

const STEP_LINES: Partial<Record<Step, string>> = {
  cloning: "Cloning the repository",
  own_component: OWN_DEFINITION,
  no_snapshot: NO_DIFF,
};

export class TaskOutput implements RunSink<CommandState> {
  readonly id: string;
  hasFiles = true;
  readonly #run: RunSink;
  readonly #events: EventReader;
  readonly #onProgress: () => void;
  readonly #onCommandStart: (state: CommandState | undefined) => void;
  readonly #storedOffset: () => number;
  /** Bytes of the agent's stdout up to the last complete line. */
  offset: number;
  step: Step | undefined;
  #partial: Uint8Array[] = [];
  #partialBytes = 0;
  #isSkipping = false;
  /** Lines of the current output that are not yet in the log. They are added together, because each addition has a fixed cost. */
  #pendingLines: string[] = [];

  /**
   * @param onProgress called with each output, before the run gets the lines
   * @param onCommandStart receives the state for resuming the agent's command
   * @param storedOffset returns how many bytes of the agent's stdout were read and stored
   */
  constructor(
    run: RunSink,
    events: EventReader,
    from: { offset: number; step?: Step },
    onProgress: () => void,
    onCommandStart: (state: CommandState | undefined) => void,
    storedOffset: () => number,
  ) {
    this.id = run.id;
    this.#run = run;
    this.#events = events;
    this.offset = from.offset;
    this.step = from.step;
    this.#onProgress = onProgress;
    this.#onCommandStart = onCommandStart;
    this.#storedOffset = storedOffset;
  }

  get isEnded(): boolean {
    return this.#run.isEnded;
  }

  markStarted(): void {}

  keepState(state: CommandState | undefined): void {
    this.#onCommandStart(state);
  }

  /** Every line must be read, even if the log is full. */
  hasRoom(): boolean {
    return true;
  }

  position(stream: Stream): number {
    return stream === "stdout" ? this.offset + this.#partialBytes : this.#run.position(stream);
  }

  storedBytes(stream: Stream): number {
    return stream === "stdout" ? this.#storedOffset() : this.#run.storedBytes(stream);
  }

  get settled(): Promise<void> {
    return this.#run.settled;
  }

  waitUntilEnded(ms: number): Promise<void> {
    return this.#run.waitUntilEnded(ms);
  }

  async take(output: () => void): Promise<void> {
    // workerd reads nothing else while one WebSocket has data and its messages are handled at once.
    await pause(0);
    await this.#run.take(output);
  }

  recordSkipped(stream: Stream, count: number, last: Uint8Array): void {
    if (stream !== "stdout") return this.#run.recordSkipped(stream, count, last);
    this.offset += this.#partialBytes + count;
    this.#dropPending();
    this.#isSkipping = true;
  }

  output(stream: Stream, bytes: Uint8Array): void {
    if (stream !== "stdout") return this.#run.output(stream, bytes);
    let rest = bytes;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      this.#appendToLine(rest.subarray(0, end));
      this.#endLine();
      this.offset++;
      rest = rest.subarray(end + 1);
    }
    this.#appendToLine(rest);
    this.#report();
  }

  finish(): void {
    if (this.#partialBytes > 0) this.#endLine();
    this.#report();
  }

  addLine(line: string): void {
    this.#run.output("stdout", encoder.encode(`${line}\n`));
  }

  #appendToLine(part: Uint8Array): void {
    if (this.#isSkipping || this.#partialBytes + part.length > MAX_LINE) {
      this.offset += this.#partialBytes + part.length;
      this.#dropPending();
      this.#isSkipping = true;
    } else if (part.length > 0) {
      addPart(this.#partial, part);
      this.#partialBytes += part.length;
    }
  }

  #dropPending(): void {
    this.#partial = [];
    this.#partialBytes = 0;
  }

  #endLine(): void {
    const line =
      this.#isSkipping || this.#partialBytes === 0 ? "" : decodeText(joinBytes(this.#partial), "none");
    this.offset += this.#partialBytes;
    this.#dropPending();
    this.#isSkipping = false;
    // The agent's own output follows the last step.
    const step = this.step === "agent" ? undefined : stepOf(line);
    if (step === undefined) this.#pendingLines.push(...readLine(this.#events, line));
    else {
      this.step = step;
      const stepText = STEP_LINES[step];
      if (stepText !== undefined) this.#pendingLines.push(stepText);
    }
  }

  /** The run may store its record as soon as it has the lines, so it gets the new offset first. */
  #report(): void {
    this.#onProgress();
    if (this.#pendingLines.length > 0) this.addLine(this.#pendingLines.join("\n"));
    this.#pendingLines = [];
  }
}

function stepOf(line: string): Step | undefined {
  const match = /^\{"sandbox_mcp":"([a-z_]+)"\}$/.exec(line);
  return STEPS.find((step) => step === match?.[1]);
}
