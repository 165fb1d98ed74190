/** A run under way: collects its output, stores its record, and wakes waiting callers. */
import { type ErrorCode, ToolError, internalError, isReset } from "../shared/errors.ts";
import { countdown, elapsedMs, throttled } from "../shared/timers.ts";
import { Waiters } from "../shared/waiters.ts";
import type { Backlog, WaitingLog } from "./backlog.ts";
import { localID } from "./id.ts";
import type { LogWriter } from "./run-log.ts";
import { lastLine } from "./shown-output.ts";
import { HeadAndTail } from "./head-and-tail.ts";
import type { TerminalInput } from "../container/connection.ts";
import type { Stream } from "../../container/sandboxd/protocol.ts";
import type { End, Execution, RunDetail, RunSink, RunSummary, RunView, WaitState } from "./run-types.ts";
import { type RunRecord, type RunStore, hasNeverStarted, viewOf } from "./run-store.ts";
import { isEchoOf } from "./terminal-text.ts";
import {
  NOT_STARTED_SERVER_RESTARTED,
  failureNote,
  hasEnded,
  hasNotStarted,
  notInteractive,
  notTyped,
} from "./texts.ts";

/** How often new output is written to disk. */
const FLUSH_MS = 1000;

/** The shortest time between progress lines, in milliseconds. */
const PROGRESS_MS = 250;

/** The shortest time between two times that output wakes the calls that wait for it, so that they do not read single bytes. */
const WAKE_MS = 10;

/** A terminal has settled when it was silent for QUIET_MS. A call waits SETTLE_MS for that at most. */
const QUIET_MS = 300;
const SETTLE_MS = 10_000;

/** How long to wait for the container's end after a failed call. */
const CONTAINER_END_WAIT_MS = 5000;

/** How a run ends if its executor throws. */
interface RunFailure {
  end: End;
  /** The error for a waiting caller, unless the run was lost. */
  error: ToolError;
  /** Whether the run may have begun and its end is unknown. If so, its caller gets a `lost` run instead of an error. */
  isLoss: boolean;
  cause?: unknown;
}

interface ActiveRunHost {
  store: RunStore;
  backlog: Backlog;
  saveLater(run: ActiveRun): void;
  /** Returns the real cause of a platform error: the platform may report a lost sandbox when only the connection broke. */
  explainError(error: unknown): Promise<unknown>;
}

export class ActiveRun implements RunSink, WaitingLog {
  readonly record: RunRecord;
  readonly #host: ActiveRunHost;
  readonly #log: LogWriter;
  readonly #stored: Record<Stream, number>;
  readonly #settled = Promise.withResolvers<void>();
  /** Wait for output, or for the end. */
  readonly #watchers = new Waiters();
  readonly #wakeWatchers = throttled(WAKE_MS, () => this.#watchers.wakeAll());
  /** Wait for the end. */
  readonly #waiters = new Waiters();
  /** Get the last line of the output. */
  readonly #reporters = new Set<(line: string) => void>();
  readonly #reportLine = throttled(PROGRESS_MS, () => {
    const line = this.#readLastLine();
    for (const report of this.#reporters) report(line);
  });
  #timer: ReturnType<typeof setInterval> | null = null;
  #shipping: Promise<void> | undefined;
  #shippingAll: Promise<void> | undefined;
  #hasChanges = true;
  #onStateStored: (() => void) | undefined;
  #savedAt = 0;
  #execution: Execution | undefined;
  #ports: readonly number[] = [];
  #lastStream: Stream = "stdout";
  #outputAt = 0;
  #hasBegun: boolean;
  /** When the run's code had ended, in milliseconds since the epoch. The delivery of its output may follow. */
  #executedAt: number | undefined;
  /** Whether the run was cancelled while it waited. Afterwards it does not wait any more. */
  #isWithdrawn = false;
  hasFiles = true;
  /** Whether the run is a service, which does not keep the container running and is not metered. */
  isService = false;
  /**
   * How much of the log the results of `Runs.start` and `Runs.type` have shown so far. 0 in a new actor, which does not know this: a
   * result that repeats output is better than output that no result shows.
   */
  seenBytes = 0;
  /** Called when the run's code has ended and its output is still to be delivered. */
  onExecuted: (() => void) | undefined;
  failure: RunFailure | undefined;

  constructor(record: RunRecord, log: LogWriter, host: ActiveRunHost) {
    this.record = record;
    this.#host = host;
    this.#log = log;
    this.#hasBegun = !hasNeverStarted(record);
    this.#stored = { stdout: record.output.stdout.bytes, stderr: record.output.stderr.bytes };
  }

  get id(): string {
    return localID(this.record.id);
  }

  get isEnded(): boolean {
    return this.record.endedAt !== undefined;
  }

  /** Bytes of the log, including bytes that are not saved yet. */
  get logBytes(): number {
    return this.#log.bytes;
  }

  get waitingBytes(): number {
    return this.#log.waitingBytes;
  }

  /** The run's current view, including unsaved output. */
  view(): RunView {
    return { ...viewOf(this.record), logBytes: this.#log.bytes, waiting: this.waiting };
  }

  get waiting(): WaitState | undefined {
    const waiting = this.isEnded ? undefined : this.#execution?.waiting?.();
    const { id } = this.record;
    const sandbox = id.slice(0, -this.id.length);
    return waiting && { ...waiting, behind: waiting.behind.map((local) => sandbox + local) };
  }

  /** Whether nothing of the run was ever executed, so that its duration is zero. */
  get #neverBegan(): boolean {
    return !this.#hasBegun || this.waiting !== undefined || this.#isWithdrawn;
  }

  /** For how many seconds the run was executed: from its start to the end of its code, or until now. */
  get executedSeconds(): number {
    if (this.#neverBegan) return 0;
    const { startedAt, endedAt = this.#executedAt ?? Date.now() } = this.record;
    return Math.max(0, endedAt - startedAt) / 1000;
  }

  /** Only the first call has an effect. A question calls this when its model request starts, and when its program starts. */
  markStarted(): void {
    if (this.#hasBegun || this.isEnded) return;
    this.#hasBegun = true;
    this.record.startedAt = Date.now();
    this.#hasChanges = true;
  }

  markExecuted(): void {
    if (this.isEnded || this.#executedAt !== undefined) return;
    this.#executedAt = Date.now();
    this.onExecuted?.();
  }

  /** Collects the output of the execution until the run's end is recorded. */
  async follow(execution: Execution, done = execution.done): Promise<void> {
    this.#execution = execution;
    this.#timer = setInterval(() => this.save(), FLUSH_MS);
    let end: End;
    try {
      end = await done;
    } catch (cause) {
      const error = await this.#host.explainError(cause);
      // A platform error may be the first sign that the container is stopping. The caller may call again at once, and that call
      // must not reach the stopping container.
      if (!(error instanceof ToolError)) await this.waitUntilEnded(CONTAINER_END_WAIT_MS);
      if (this.isEnded) return;
      // The account was reset.
      if (isReset(error) && hasNeverStarted(this.record))
        return this.finish({ state: "lost", note: NOT_STARTED_SERVER_RESTARTED });
      const { id, detail, resumeState } = this.record;
      const isAgent = detail !== undefined && "agent" in detail;
      this.failure = failureOf(error, id, !isAgent && resumeState !== undefined);
      end = this.failure.end;
    }
    this.finish(end);
  }

  /** Ends the record even if the execution continues. */
  finish(end: End): void {
    if (this.isEnded) return;
    clearInterval(this.#timer);
    const now = Date.now();
    if (this.#neverBegan) this.record.startedAt = now;
    const { detail: before } = this.record;
    // A run must not end before it began, even if the clock was set back.
    Object.assign(this.record, end, { endedAt: Math.max(this.#executedAt ?? now, this.record.startedAt) });
    const { detail } = this.record;
    if (detail && "results" in detail && this.#ports.length > 0) detail.ports = this.#ports;
    if (detail && "cwd" in detail && before && "ports" in before) detail.ports = before.ports ?? [];
    this.#hasChanges = true;
    // An actor's response waits until its writes are done, so a short run is written after the response.
    if (this.#savedAt === 0 && !this.#log.exceedsSQLite) this.#host.saveLater(this);
    else this.save();
    this.#settled.resolve();
    this.#waiters.wakeAll();
    this.#watchers.wakeAll();
  }

  cancel(): Promise<void> {
    this.#isWithdrawn ||= this.waiting !== undefined;
    return this.#execution?.cancel() ?? Promise.resolve();
  }

  /** Writes the run unless a record is stored. A list need not write all runs. */
  saveFirst(): void {
    if (this.#savedAt === 0) this.save();
  }

  get summary(): RunSummary {
    const { id, kind, state, title, startedAt, endedAt, exitCode } = this.record;
    return { id, kind, state, title, startedAt, endedAt, exitCode, waiting: this.waiting };
  }

  /** Writes new output. No await separates the writes of log and record, so they are one transaction. */
  save(): void {
    if (!this.#hasChanges) return;
    this.#hasChanges = false;
    this.#log.flush();
    this.record.logBytes = this.#log.bytes;
    this.#put(this.record);
    if (!this.isEnded && this.#log.hasFullObject) void this.moveLog();
  }

  #put(record: RunRecord, onStateStored = this.#onStateStored): void {
    const { store } = this.#host;
    store.put(record);
    this.#savedAt = Date.now();
    onStateStored?.();
    this.#stored.stdout = record.output.stdout.bytes;
    this.#stored.stderr = record.output.stderr.bytes;
  }

  /**
   * @param onStored called when the state is on disk. If given, only the first state is written at once. Later states wait for the
   * next regular save, because more of them may follow soon
   */
  keepState(state: unknown, onStored?: () => void): void {
    if (this.isEnded) return;
    const isUrgent = onStored === undefined || this.record.resumeState === undefined;
    this.record.resumeState = state;
    this.#onStateStored = onStored;
    this.#hasChanges = true;
    // Without the state, the next actor would treat the run as never started.
    if (isUrgent && this.#savedAt > 0) this.save();
  }

  describe(detail: RunDetail): void {
    if (this.isEnded) return;
    this.record.detail = detail;
    this.#hasChanges = true;
  }

  recordPorts(ports: readonly number[]): void {
    const { kind } = this.record;
    if (kind === "task") return;
    this.#ports = ports;
    this.describe(kind === "code" ? { results: [], ports } : { ports });
  }

  take(output: () => void): Promise<void> {
    return this.#host.backlog.take(output);
  }

  output(stream: Stream, bytes: Uint8Array): void {
    if (this.isEnded || bytes.length === 0) return;
    this.record.droppedBytes += bytes.length - this.#log.append(stream, bytes);
    this.record.output[stream].add(bytes);
    this.#lastStream = stream;
    this.#outputChanged();
    if (this.#log.isOverdue) this.save();
    else if (this.#log.hasFullObject) void this.moveLog();
  }

  recordSkipped(stream: Stream, count: number, last: Uint8Array): void {
    if (this.isEnded) return;
    this.record.droppedBytes += count;
    this.record.output[stream].add(last, count);
    this.#outputChanged();
  }

  hasRoom(stream: Stream): boolean {
    return this.#log.hasRoom(stream);
  }

  position(stream: Stream): number {
    return this.record.output[stream].bytes;
  }

  storedBytes(stream: Stream): number {
    return this.#stored[stream];
  }

  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  async waitUntilEnded(ms: number): Promise<void> {
    if (!this.isEnded) await this.#waiters.wait(ms);
  }

  /** Like `waitUntilEnded`, and reports the last output line whenever it changes. */
  async watch(ms: number, onProgress: (line: string) => unknown): Promise<void> {
    let before = "";
    const report = (line: string) => {
      if (line === before) return;
      before = line;
      // The report fails if the client has disconnected.
      void (async () => onProgress(line))().catch(() => undefined);
    };
    report(this.#readLastLine());
    this.#reporters.add(report);
    await this.waitUntilEnded(ms).finally(() => this.#reporters.delete(report));
  }

  #readLastLine(): string {
    const { head, tail } = this.record.output[this.#lastStream];
    return lastLine(tail.length > 0 ? tail : head);
  }

  get isInteractive(): boolean {
    return this.#execution?.type !== undefined;
  }

  /**
   * Types into the run's terminal and, unless `waits` is false, waits until it settles.
   * @throws {ToolError} `invalid_argument` if nothing can be typed, `too_large` if only part of the text was typed
   */
  async type(input: TerminalInput, waits = true): Promise<void> {
    const { id } = this.record;
    const type = this.#execution?.type;
    if (!type) throw notInteractive(id);
    if (this.isEnded) throw hasEnded(id);
    if (this.waiting) throw hasNotStarted(id);
    const before = this.record.output.stdout.bytes;
    const { text } = input;
    const size = encoder.encode(text).length;
    const typed = await type(input);
    if (typed < size) throw this.isEnded ? hasEnded(id) : notTyped(id, typed, size);
    // Not every program redraws after a resize.
    if (waits) await this.waitUntilQuiet(text === "" ? QUIET_MS : SETTLE_MS, before, text);
  }

  /**
   * Resolves when the terminal has printed something and settled, when the run ends, or after `ms`, at most SETTLE_MS.
   * @param from the number of output bytes before typing; the echo of the typed text does not count as output
   */
  async waitUntilQuiet(ms: number, from = 0, typed = ""): Promise<void> {
    const { stdout } = this.record.output;
    const leftMs = countdown(Math.min(ms, SETTLE_MS));
    let echoed = from;
    for (let left = leftMs(); !this.isEnded && left > 0; left = leftMs()) {
      const { bytes } = stdout;
      const silentMs = elapsedMs(this.#outputAt);
      // The output is compared only after a pause.
      if (bytes <= echoed) await this.waitForChange(left);
      else if (silentMs < QUIET_MS) await this.waitUntilEnded(Math.min(left, QUIET_MS - silentMs));
      else if (isEchoOf(typed, stdout.last(bytes - from))) echoed = bytes;
      else return;
    }
  }

  get isWatched(): boolean {
    return this.#watchers.size > 0 || this.#reporters.size > 0;
  }

  /** Resolves at the next output, at the end, or after `ms`. */
  async waitForChange(ms: number): Promise<void> {
    if (!this.isEnded) await this.#watchers.wait(ms);
  }

  #outputChanged(): void {
    this.#hasChanges = true;
    this.#outputAt = Date.now();
    // If the last write was long ago, output is written at once and not at the next tick.
    if (this.#timer !== null && this.#outputAt - this.#savedAt >= FLUSH_MS) queueMicrotask(() => this.save());
    if (this.#watchers.size > 0) this.#wakeWatchers();
    if (this.#reporters.size > 0) this.#reportLine();
  }

  /** Moves part of the log to R2, or waits for the move under way. Resolves even if the move fails. */
  moveLog(): Promise<void> {
    this.#shipping ??= this.#shipOne().finally(() => (this.#shipping = undefined));
    return this.#shipping;
  }

  /** Output that R2 refuses stays in memory or SQLite until the next attempt. */
  async #shipOne(): Promise<void> {
    // Output that arrives during the upload is not in the object, so the record written with it must not count that output. Its state
    // must not either: the next actor of a task reads the agent's output only from the place in the state.
    const copyRecord = () => {
      const { stdout, stderr } = this.record.output;
      const output = { stdout: HeadAndTail.copy(stdout), stderr: HeadAndTail.copy(stderr) };
      const recordAtStart = { ...this.record, output, logBytes: this.#log.bytes };
      const onStateStored = this.#onStateStored;
      return (isNew: boolean) => isNew && this.#put(recordAtStart, onStateStored);
    };
    await this.#log.moveToStore(copyRecord).catch(() => undefined);
  }

  /** Moves the log of the ended run to R2, or what is left of it if R2 refuses a part. Nothing follows, so this happens once. */
  shipAll(): Promise<void> {
    return (this.#shippingAll ??= this.#shipRest());
  }

  async #shipRest(): Promise<void> {
    await this.#shipping;
    // The first move also counts what an earlier actor left.
    await this.moveLog();
    for (let left = Infinity; this.#log.waitingBytes < left;) {
      left = this.#log.waitingBytes;
      await this.moveLog();
    }
  }
}

const encoder = new TextEncoder();

/** After these errors it is unknown how far the run got. */
const LOSSES: ReadonlySet<ErrorCode> = new Set(["sandbox_restarted", "connection_lost", "no_answer"]);

/** @param mayHaveRun whether the run may have begun. If so, the text must not claim that nothing happened */
function failureOf(error: unknown, runID: string, mayHaveRun: boolean): RunFailure {
  const failure = error instanceof ToolError ? error.toFailure() : undefined;
  if (!failure) {
    const internal = internalError(runID);
    const end: End = { state: "lost", note: failureNote(internal.toFailure(), false) };
    return { end, error: internal, isLoss: false, cause: error ?? "nothing" };
  }
  const isKnownLoss = LOSSES.has(failure.code);
  const isLoss = isKnownLoss || mayHaveRun;
  const end: End = { state: isLoss ? "lost" : "failed", note: failureNote(failure, isLoss && !isKnownLoss) };
  return { end, error: ToolError.from(failure), isLoss };
}
