/** A run under way: takes its output, keeps its record on disk, and wakes those who wait for it. */
import { ToolError } from "../shared/errors.ts";
import { within } from "../shared/within.ts";
import type { Backlog, WaitingLog } from "./backlog.ts";
import { type RunFailure, failureOf } from "./failure.ts";
import { localID } from "./id.ts";
import type { LogStore, LogWriter } from "./run-log.ts";
import { lastLine } from "./shown-output.ts";
import { HeadAndTail } from "./head-and-tail.ts";
import type { TerminalInput } from "../container/connection.ts";
import type { End, Execution, RunDetail, RunSink, RunView, Stream, WaitState } from "./run-types.ts";
import { type RunRecord, type RunStore, viewOf } from "./run-store.ts";
import { isEchoOf } from "./terminal-text.ts";
import { hasEnded, hasNotStarted, notInteractive, notTyped } from "./texts.ts";

/** How often new output is written to disk, milliseconds. A run that ends sooner is written once, after its end. */
const FLUSH_MS = 1000;

/** The shortest time between two progress lines, milliseconds. */
const PROGRESS_MS = 250;

/** How long a terminal is silent that has come to rest, and how long that is waited for. Milliseconds. */
const QUIET_MS = 300;
const SETTLE_MS = 10_000;

/** How long after a failed call to the container its end may take to be known, milliseconds. */
const DOWN_MS = 5000;

/** What the runs of a sandbox share. */
export interface ActiveRunHost {
  store: RunStore;
  backlog: Backlog;
  /** Saves a run that has ended, soon. */
  saveLater(run: ActiveRun): void;
  /** The cause of a platform error, which may say that the sandbox is gone when only the connection broke. */
  explained(error: unknown): Promise<unknown>;
}

export class ActiveRun implements RunSink, WaitingLog {
  readonly record: RunRecord;
  readonly #host: ActiveRunHost;
  readonly #log: LogWriter;
  readonly #store: LogStore;
  readonly #stored: Record<Stream, number>;
  readonly #settled = Promise.withResolvers<void>();
  #waiting: (() => void)[] = [];
  #timer: ReturnType<typeof setInterval> | null = null;
  #shipping: Promise<void> | undefined;
  #changed = true;
  #stateStored: (() => void) | undefined;
  #savedAt = 0;
  #execution: Execution | undefined;
  /** Those that its programs listen on. */
  #ports: readonly number[] = [];
  #lastStream: Stream = "stdout";
  #hasBegun = false;
  hasFiles = true;
  /** Bytes of the log that whoever types has been shown. */
  seenBytes: number;
  /** The error that ended the run, if one did. */
  failure: RunFailure | undefined;

  constructor(record: RunRecord, log: LogWriter, store: LogStore, host: ActiveRunHost) {
    this.record = record;
    this.#host = host;
    this.#log = log;
    this.#store = store;
    this.seenBytes = record.logBytes;
    this.#stored = { stdout: record.output.stdout.bytes, stderr: record.output.stderr.bytes };
  }

  get id(): string {
    return localID(this.record.id);
  }

  get ended(): boolean {
    return this.record.endedAt !== undefined;
  }

  /** Bytes of the log so far, saved or not. */
  get logBytes(): number {
    return this.#log.bytes;
  }

  get waitingBytes(): number {
    return this.#log.waitingBytes;
  }

  /** The run as it is now, saved or not. */
  view(): RunView {
    return { ...viewOf(this.record), logBytes: this.#log.bytes, waiting: this.waiting };
  }

  /** The runs that it waits for before it starts. */
  get waiting(): WaitState | undefined {
    const waiting = this.ended ? undefined : this.#execution?.waiting?.();
    const { id } = this.record;
    const sandbox = id.slice(0, -this.id.length);
    return waiting && { ...waiting, behind: waiting.behind.map((local) => sandbox + local) };
  }

  /** Only the first time counts: a question begins with its request to the model, and its program later. */
  markStarted(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    this.record.startedAt = Date.now();
    this.#changed = true;
  }

  /** Follows an execution to its end. */
  async follow(execution: Execution, done = execution.done): Promise<void> {
    this.#execution = execution;
    this.#timer = setInterval(() => this.save(), FLUSH_MS);
    let end: End;
    try {
      end = await done;
    } catch (cause) {
      const error = await this.#host.explained(cause);
      // A platform error may be the first sign that the container goes down. The caller may call again at once, and that
      // call must not reach a container that is about to end.
      if (!(error instanceof ToolError)) await this.waitUntilEnded(DOWN_MS);
      if (this.ended) return void (await this.#shipAll());
      const { id, detail, resumeState } = this.record;
      const isAgent = detail !== undefined && "agent" in detail;
      this.failure = failureOf(error, id, !isAgent && resumeState !== undefined);
      end = this.failure.end;
    }
    this.finish(end);
    await this.#shipAll();
  }

  /** Ends the record, even while the execution still goes on. */
  finish(end: End): void {
    if (this.ended) return;
    clearInterval(this.#timer);
    // A run that never had its turn took no time.
    if (this.waiting) this.record.startedAt = Date.now();
    // A clock that was set back must not make a run end before it began.
    const { detail: before } = this.record;
    Object.assign(this.record, end, { endedAt: Math.max(Date.now(), this.record.startedAt) });
    const { detail } = this.record;
    if (detail && "results" in detail && this.#ports.length > 0) detail.ports = this.#ports;
    if (detail && "cwd" in detail && before && "ports" in before) detail.ports = before.ports ?? [];
    this.#changed = true;
    // An actor's answer waits until its writes are on disk, so a short run is written after its answer.
    if (this.#savedAt === 0 && !this.#log.exceedsSQLite) this.#host.saveLater(this);
    else this.save();
    this.#settled.resolve();
    this.#wake();
  }

  cancel(): Promise<void> {
    return this.#execution?.cancel() ?? Promise.resolve();
  }

  /** Writes what is new. Record and log are one transaction, because there is no await in between. */
  save(): void {
    if (!this.#changed) return;
    this.#changed = false;
    this.#log.flush();
    this.record.logBytes = this.#log.bytes;
    this.#put(this.record);
    if (!this.ended && this.#log.hasFullObject) void this.moveLog();
  }

  #put(record: RunRecord): void {
    this.#host.store.put(record);
    this.#savedAt = Date.now();
    this.#stateStored?.();
    this.#stored.stdout = record.output.stdout.bytes;
    this.#stored.stderr = record.output.stderr.bytes;
  }

  /** @param stored is called when the state is on disk */
  keepState(state: unknown, stored?: () => void): void {
    this.record.resumeState = state;
    this.#stateStored = stored;
    this.#changed = true;
    // Without the state, the next actor would take a record on disk for a run that never started.
    if (this.#savedAt > 0) this.save();
  }

  /** Sets the detail of a run that has not ended. */
  describe(detail: RunDetail): void {
    this.record.detail = detail;
    this.#changed = true;
  }

  listening(ports: readonly number[]): void {
    const { kind } = this.record;
    if (this.ended || kind === "task") return;
    this.#ports = ports;
    this.describe(kind === "code" ? { results: [], ports } : { ports });
  }

  take(output: () => void): Promise<void> {
    return this.#host.backlog.take(output);
  }

  output(stream: Stream, bytes: Uint8Array): void {
    if (this.ended || bytes.length === 0) return;
    this.record.droppedBytes += bytes.length - this.#log.append(stream, bytes);
    this.record.output[stream].add(bytes);
    this.#lastStream = stream;
    this.#outputChanged();
    if (this.#log.isOverdue) this.save();
    else if (this.#log.hasFullObject) void this.moveLog();
  }

  skipped(stream: Stream, count: number, last: Uint8Array): void {
    if (this.ended) return;
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

  stored(stream: Stream): number {
    return this.#stored[stream];
  }

  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  waitUntilEnded(ms: number): Promise<void> {
    return within(ms, this.#settled.promise);
  }

  /** As `over`, and reports the last line of the output meanwhile, whenever it is another. */
  async watch(ms: number, onProgress: (line: string) => unknown): Promise<void> {
    const deadline = Date.now() + ms;
    let before = "";
    for (let left = ms; !this.ended && left > 0; left = deadline - Date.now()) {
      const { head, tail } = this.record.output[this.#lastStream];
      const line = lastLine(tail.length > 0 ? tail : head);
      if (line === before) await this.changed(left);
      else {
        before = line;
        // Fails when the client has gone.
        void (async () => onProgress(line))().catch(() => undefined);
        await this.waitUntilEnded(Math.min(PROGRESS_MS, left));
      }
    }
  }

  /** Whether there is a terminal to type into. */
  get isInteractive(): boolean {
    return this.#execution?.type !== undefined;
  }

  /**
   * Types into the run's terminal, and waits until that rests unless told not to.
   * @throws {ToolError} `invalid_argument` where nothing can be typed, `too_large` where not all of it was
   */
  async type(input: TerminalInput, waits = true): Promise<void> {
    const { id } = this.record;
    const type = this.#execution?.type;
    if (!type) throw notInteractive(id);
    if (this.ended) throw hasEnded(id);
    if (this.waiting) throw hasNotStarted(id);
    const before = this.record.output.stdout.bytes;
    const { text } = input;
    const size = encoder.encode(text).length;
    const typed = await type(input);
    if (typed < size) throw this.ended ? hasEnded(id) : notTyped(id, typed, size);
    // Not every program draws anew when its terminal has another size.
    if (waits) await this.rest(text === "" ? QUIET_MS : SETTLE_MS, before, text);
  }

  /**
   * Resolves when the terminal has printed something and come to rest, with the run's end, or after so many milliseconds.
   * @param from the bytes of output before what was typed, whose echo alone is not waited for
   */
  async rest(ms: number, from = 0, typed = ""): Promise<void> {
    const { stdout } = this.record.output;
    const deadline = Date.now() + Math.min(ms, SETTLE_MS);
    for (let left = ms; !this.ended && left > 0; left = deadline - Date.now()) {
      const { bytes } = stdout;
      const hasPrinted = bytes > from && !isEchoOf(typed, stdout.last(bytes - from));
      await this.changed(Math.min(left, hasPrinted ? QUIET_MS : SETTLE_MS));
      if (hasPrinted && stdout.bytes === bytes) return;
    }
  }

  get isWatched(): boolean {
    return this.#waiting.length > 0;
  }

  /** Resolves with the next output or the end, or after so many milliseconds. */
  async changed(ms: number): Promise<void> {
    if (this.ended) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    const timer = setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
  }

  #outputChanged(): void {
    this.#changed = true;
    // Output that comes seldom is written at once instead of at the next tick of the timer.
    if (this.#timer !== null && Date.now() - this.#savedAt >= FLUSH_MS) queueMicrotask(() => this.save());
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Moves some of the log to R2, or joins the attempt under way; settles when that has ended, also in failure. */
  moveLog(): Promise<void> {
    this.#shipping ??= this.#shipOne().finally(() => (this.#shipping = undefined));
    return this.#shipping;
  }

  /** What R2 refuses stays in SQLite for the next attempt. */
  async #shipOne(): Promise<void> {
    const { stdout, stderr } = this.record.output;
    // Output comes while R2 takes the object: the record that is written with it must not count that output yet.
    const then = {
      output: { stdout: HeadAndTail.copy(stdout), stderr: HeadAndTail.copy(stderr) },
      droppedBytes: this.record.droppedBytes,
      logBytes: this.#log.bytes,
    };
    const shipped = (isNew: boolean) => isNew && this.#put({ ...this.record, ...then });
    await this.#log.moveToStore(this.#store, shipped).catch(() => undefined);
  }

  async #shipAll(): Promise<void> {
    await this.#shipping;
    for (let left = Infinity; this.#log.waitingBytes < left;) {
      left = this.#log.waitingBytes;
      await this.moveLog();
    }
  }
}

const encoder = new TextEncoder();
