/**
 * One run of a command, from getting its slot to writing its end. A slot is a ready shell with its keeper, which starts the shell
 * and writes the command's exit status (slot.ts).
 */
import { attempt } from "./file-error.ts";
import { execFile } from "node:child_process";
import { closeSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import * as z from "zod/mini";
import { FollowedRun } from "./followed-run.ts";
import { STATE_END, directoryIn, directoryOf } from "./session-directories.ts";
import { RUNS, SESSIONS, SLOTS, fileAs, makePlaces, textOf } from "./directories.ts";
import {
  NO_ENV,
  groupMembers,
  isRunning,
  findMarked,
  readersOf,
  send,
  signalRun,
  findTerminal,
} from "./run-processes.ts";
import { PORT_SCAN_INTERVAL_MS, arePortsExpected, expectPortsOf } from "./listening.ts";
import {
  type Event,
  STREAMS,
  type Signal,
  type StartCall,
  type Stream,
  type TerminalSize,
  endSchema,
  sessionName,
  size,
} from "./protocol.ts";
import { startScript } from "./start-script.ts";
import { Slot, openToRead, pipeOf } from "./slot.ts";
import { type OutputStream, startCopier } from "./stream.ts";

/** After this time, a process copies the command's output to files. For shorter commands that process would cost too much. */
const COPY_AFTER_MS = 20;
/** The interval, in milliseconds, for polling ending processes and the keeper of an adopted run. */
const POLL_MS = 50;
/** How long a copier (`tee`) may take to end after its command, in milliseconds. */
const RELEASE_MS = 300;

/** How long a keeper may take to write the status after its shell has ended, in milliseconds. */
const STATUS_MS = 1000;
/**
 * The interval for polling the output of an ended command, in milliseconds. After STUCK_POLLS polls without new bytes, sandboxd
 * stops waiting for the mark that ends the output. That takes ten seconds, because a busy machine may not run the copier for
 * several seconds.
 */
const STUCK_POLL_MS = 1000;
const STUCK_POLLS = 10;
/** The time between SIGTERM and SIGKILL, in milliseconds. */
const GRACE_MS = 2000;
const RESIZE_MS = 2000;
/** If the actor does not end a run at its deadline, sandboxd ends it this much later, in milliseconds. */
const TIMEOUT_GRACE_MS = 5000;

/** A run's end: the file `end` in its directory. User code can also write this file. */
type End = z.infer<typeof endSchema>;

/** The data that the next sandboxd needs to adopt a running run: the file `memo` in the run's directory. */
const memoSchema = z.object({
  slot: z.string().check(z.regex(/^[0-9a-f]{12}$/)),
  session: sessionName(),
  deadline: size(),
  interactive: z.optional(z.boolean()),
});

type Memo = z.infer<typeof memoSchema>;

export interface RunHost {
  onEnd(run: CommandRun): void;
  /** Called when the slot's shell has ended before it read the command. */
  onNeverBegun(run: CommandRun): void;
  /** Called when the run no longer uses the slot. @param isClean whether another run can use the slot's pipes */
  onRelease(slot: Slot, isClean: boolean): void;
}

export class CommandRun extends FollowedRun {
  readonly session: string;
  readonly directory: string;
  readonly #slot: Slot | undefined;
  readonly #isInteractive: boolean;
  readonly #host: RunHost;
  readonly #isAdopted: boolean;
  #end: End | undefined;
  #status: number | undefined;
  #lastInput: Promise<unknown> = Promise.resolve();
  #killing: NodeJS.Timeout | undefined;
  #killedAt = 0;
  #hasTimedOut: boolean | undefined;
  #isLost = false;
  #isWatching = false;
  /** Whether the command ran long enough (PORT_SCAN_INTERVAL_MS) for a scan of its ports. */
  #hasLasted = false;
  #goneAt: number | undefined;

  private constructor(
    id: string,
    session: string,
    slot: Slot | undefined,
    isInteractive: boolean,
    host: RunHost,
    isAdopted: boolean,
  ) {
    const directory = join(RUNS, id);
    super(id, (name) => join(directory, name), slot?.mark);
    this.session = session;
    this.#isInteractive = isInteractive;
    this.directory = directory;
    this.#slot = slot;
    this.#host = host;
    this.#isAdopted = isAdopted;
  }

  static start(call: StartCall, state: string, slot: Slot, host: RunHost): CommandRun {
    const run = new CommandRun(call.id, call.session, slot, call.interactive === true, host, false);
    mkdirSync(run.directory);
    try {
      writeFileSync(join(run.directory, "command"), call.command);
      if (call.stdin !== undefined) writeFileSync(join(run.directory, "stdin"), call.stdin);
      writeFileSync(join(run.directory, "start"), startScript(call, state));
      const memo: Memo = {
        slot: basename(slot.directory),
        session: call.session,
        deadline: Date.now() + call.timeoutMs + TIMEOUT_GRACE_MS,
        interactive: call.interactive,
      };
      writeFileSync(join(run.directory, "memo"), JSON.stringify(memo));
    } catch (error) {
      rmSync(run.directory, { recursive: true, force: true });
      throw error;
    }
    slot.sendPath(run.directory);
    run.#endAt(Date.now() + call.timeoutMs + TIMEOUT_GRACE_MS);
    run.after(COPY_AFTER_MS, () => run.#copy());
    run.after(PORT_SCAN_INTERVAL_MS, () => run.#watchPorts());
    return run;
  }

  /** Adopts a run of the previous sandboxd. Undefined if no shell has begun the run; the actor may start it again. */
  static adopt(id: string, host: RunHost): CommandRun | undefined {
    const directory = join(RUNS, id);
    const end = fileAs(endSchema, join(directory, "end"));
    if (end !== undefined) {
      const run = new CommandRun(id, "", undefined, false, host, true);
      run.#end = end;
      for (const stream of STREAMS) run.streams[stream].setEnd(end[stream]);
      return run;
    }
    const memo = fileAs(memoSchema, join(directory, "memo"));
    const slot = memo === undefined ? undefined : openSlot(join(SLOTS, memo.slot));
    const hasBegun = () => textOf(join(directory, "begun")) !== undefined;
    if (slot === undefined || memo === undefined) {
      rmSync(directory, { recursive: true, force: true });
      return undefined;
    }
    if (!hasBegun()) {
      // The shell may be about to read the command. After the shell is killed, `begun` tells whether the shell read the command.
      stopSlot(slot);
      if (!hasBegun()) {
        rmSync(directory, { recursive: true, force: true });
        slot.remove();
        return undefined;
      }
    }
    const run = new CommandRun(id, memo.session, slot, memo.interactive === true, host, true);
    run.#endAt(memo.deadline);
    run.#copy(true);
    run.#watchPorts();
    run.#watch();
    return run;
  }

  onKeeperEnd(status: number | undefined): void {
    if (!this.isBegun && this.#killing === undefined) return this.#host.onNeverBegun(this);
    if (status === undefined) this.#watch();
    else this.#noteStatus(status);
  }

  /** Whether the shell has read the command. Also true if user code removed the files that show this. */
  get isBegun(): boolean {
    return existsSync(join(this.directory, "begun")) || !existsSync(join(this.directory, "start"));
  }

  protected override end(): Event | undefined {
    return this.#end && { type: "ended", id: this.id, ...this.#end };
  }

  /**
   * Gives the terminal another size, if any, and then types the text. Calls take effect in their order.
   * @returns the number of bytes that were typed
   */
  input(text: string, newSize: TerminalSize | undefined): Promise<number> {
    const typed = this.#lastInput.then(async () => {
      if (newSize) await this.#resize(newSize);
      return this.#type(text);
    });
    this.#lastInput = typed.catch(() => undefined);
    return typed;
  }

  #type(text: string): number {
    const isOpen = this.#isInteractive && this.#status === undefined;
    return isOpen ? (this.#slot?.type(Buffer.from(text)) ?? 0) : 0;
  }

  async #resize({ rows, columns }: TerminalSize): Promise<void> {
    const leader = this.#isInteractive && this.#status === undefined ? this.#slot?.leader : undefined;
    const terminal = leader === undefined ? undefined : findTerminal(leader);
    if (terminal === undefined) return;
    const args = ["-F", terminal, "rows", String(rows), "cols", String(columns)];
    await promisify(execFile)("/usr/bin/stty", args, { env: NO_ENV, timeout: RESIZE_MS }).catch(
      () => undefined,
    );
  }

  /** Sends SIGTERM to every process of the run, and SIGKILL after GRACE_MS. "KILL" sends SIGKILL at once. */
  kill(signal: Signal): void {
    if (this.#end !== undefined) return;
    this.#killedAt ||= Date.now();
    if (signal === "KILL") this.#killedAt = Math.min(this.#killedAt, Date.now() - GRACE_MS);
    this.#signal(signal === "KILL" ? "SIGKILL" : "SIGTERM");
    // SIGHUP is the signal of a closed terminal. An interactive shell ignores SIGTERM.
    if (this.#isInteractive) this.#signal("SIGHUP");
    // A stopped process handles signals only after it continues.
    this.#signal("SIGCONT");
    this.#killing ??= setInterval(() => this.#signalAgain(), POLL_MS);
  }

  /** Sends SIGKILL after GRACE_MS, and again until no process is left, because a signal can miss a process that was just forked. */
  #signalAgain(): void {
    if (Date.now() - this.#killedAt >= GRACE_MS) this.#signal("SIGKILL");
    if (this.#isLingering()) return;
    if (this.#status === undefined) {
      // The keeper runs but reports no status: something may have stopped it (SIGSTOP).
      if (Date.now() - this.#killedAt >= 2 * GRACE_MS && this.#slot?.keeper !== undefined) {
        send(this.#slot.keeper, "SIGKILL");
        this.#watch();
      }
      return;
    }
    clearInterval(this.#killing);
    this.#killing = undefined;
    this.#complete();
  }

  #signal(signal: NodeJS.Signals): void {
    // In a terminal the group's leader is `script`, which forwards the command's last output and then ends. So its group gets
    // only SIGKILL.
    const leader = this.#isInteractive && signal !== "SIGKILL" ? undefined : this.#slot?.leader;
    signalRun(this.id, leader, signal);
  }

  #isLingering(): boolean {
    const leader = this.#slot?.leader;
    return findMarked(this.id).length > 0 || (leader !== undefined && groupMembers(leader).length > 0);
  }

  get isRunning(): boolean {
    return this.#end === undefined;
  }

  get slotName(): string | undefined {
    return this.#slot === undefined ? undefined : basename(this.#slot.directory);
  }

  discard(): void {
    this.close();
    if (this.#slot === undefined) return;
    stopSlot(this.#slot);
    this.#slot.remove();
  }

  override close(): void {
    super.close();
    clearInterval(this.#killing);
  }

  #copy(isAgain = false): void {
    const slot = this.#slot;
    if (slot === undefined || this.#status !== undefined) return;
    for (const name of STREAMS) {
      const stream = this.streams[name];
      if (stream.isCopied) continue;
      try {
        stream.copy(slot, isAgain, isAgain && readersOf(pipeOf(slot.directory, name)).length > 0);
      } catch {
        // No process can be started, or user code removed the pipes. sandboxd itself reads the available output.
        stream.readPipe(slot);
        this.after(POLL_MS, () => this.#copy(true));
      }
    }
  }

  /** Called when a copier has ended: its pipe has no writers, something killed the copier, or the copier could not be started. */
  protected override onCopierEnd(name: Stream, hasRun: boolean): void {
    const keeper = this.#slot?.keeper;
    // A copier ends by itself only after the keeper has closed the pipe. This copier was killed: data that it had read but not
    // written is lost.
    if (hasRun && this.streams[name].end === undefined && keeper !== undefined && isRunning(keeper))
      this.streams[name].isIncomplete = true;
    if (this.#status === undefined) this.after(POLL_MS, () => this.#copy(true));
    else if (this.#killing === undefined) this.#drain(name);
  }

  #drain(name: Stream): void {
    const isWhole = this.#slot === undefined || this.streams[name].drain(this.#slot);
    // If the keeper was killed (#isLost), it has not marked the end of the output.
    if (!isWhole && !this.#isLost) this.streams[name].isIncomplete = true;
  }

  /** Whether the process group has a member. This takes only one system call. Processes that left the group do not count. */
  get #hasProcesses(): boolean {
    const leader = this.#slot?.leader;
    return attempt(() => leader !== undefined && process.kill(-leader, 0), false);
  }

  #watchPorts(): void {
    if (this.#end !== undefined) return;
    this.#hasLasted = true;
    this.checkPorts(PORT_SCAN_INTERVAL_MS);
    this.after(PORT_SCAN_INTERVAL_MS, () => this.#watchPorts());
  }

  /** Polls for the end of a run whose keeper cannot report: an adopted run, or a run whose keeper was killed. */
  #watch(): void {
    const slot = this.#slot;
    if (slot === undefined || this.#status !== undefined || this.#isWatching) return;
    const { status, leader, keeper } = slot;
    if (status !== undefined) return this.#noteStatus(status);
    for (const name of STREAMS) this.streams[name].pump();
    this.#isWatching = true;
    if (leader !== undefined && !isRunning(leader)) this.#goneAt ??= Date.now();
    const isLate = this.#goneAt !== undefined && Date.now() - this.#goneAt > STATUS_MS;
    const isKept = keeper !== undefined && isRunning(keeper);
    if ((isKept || (leader !== undefined && isRunning(leader))) && !isLate)
      return this.after(POLL_MS, () => ((this.#isWatching = false), this.#watch()));
    if (isKept) send(keeper, "SIGKILL");
    // Keeper and shell ended without a status, as after SIGKILL: 128 + 9.
    this.#noteStatus(137, true);
  }

  #noteStatus(status: number, isLost = false): void {
    if (this.#status !== undefined) return;
    this.#status = status;
    this.#isLost = isLost;
    if (this.#killing === undefined) this.#complete(isLost);
  }

  #complete(isLost = false): void {
    for (const name of STREAMS) {
      const stream = this.streams[name];
      if (stream.end !== undefined) continue;
      if (!stream.isCopied) this.#drain(name);
      else if (isLost) this.after(2 * POLL_MS, () => (stream.pump(), stream.finish()));
      else {
        stream.pump();
        this.#finishStuck(stream, stream.progress);
      }
    }
    this.settle();
  }

  /**
   * Polls the output of an ended command. After STUCK_POLLS polls without progress, ends the output without the end mark, because
   * the copier may have been stopped (SIGSTOP).
   */
  #finishStuck(stream: OutputStream, before: number | undefined, idlePolls = 0): void {
    // Checked after pending events, because sandboxd may not have had time to read new bytes.
    const check = () => {
      if (stream.end !== undefined) return;
      const { progress } = stream;
      const idle = progress !== undefined && progress === before ? idlePolls + 1 : 0;
      if (idle === STUCK_POLLS) {
        stream.isIncomplete = true;
        stream.finish();
      } else this.#finishStuck(stream, progress, idle);
    };
    this.after(STUCK_POLL_MS, () => setImmediate(check));
  }

  protected override settle(): void {
    const { stdout, stderr } = this.streams;
    if (this.#end === undefined) {
      if (this.#status === undefined || stdout.end === undefined || stderr.end === undefined) return;
      if (this.#killing !== undefined) return;
      // The check takes milliseconds. It is skipped for most short commands, because they rarely leave a server running.
      const hasProcesses = this.#hasProcesses;
      if (this.#hasLasted || hasProcesses || arePortsExpected()) this.checkPorts(0);
      if (hasProcesses && this.ports.length === 0) expectPortsOf(this.id);
      const missing = [stdout.missing, stderr.missing];
      this.#end = {
        status: this.#status,
        stdout: stdout.end,
        stderr: stderr.end,
        timedOut: this.#hasTimedOut,
        cut: missing.some((why) => why !== undefined) || undefined,
        noSpace: missing.includes("no space") || undefined,
        lost: this.#isLost || undefined,
      };
      this.#storeEnd(this.#end);
    }
    super.settle();
  }

  #storeEnd(end: End): void {
    this.clearTimers();
    const state = join(this.directory, "state");
    try {
      // First moves the session's state, then writes the end: the next sandboxd moves the state only of runs without an end.
      const text = textOf(state);
      const isWhole = text?.endsWith(STATE_END);
      if (isWhole) {
        if (!existsSync(SESSIONS)) makePlaces();
        renameSync(state, join(SESSIONS, this.session));
      }
      end.cwd = isWhole ? directoryIn(text) : directoryOf(this.session);
    } catch {
      // The session keeps its previous state.
    }
    // Fails if the run's directory was removed, or the disk is full. This sandboxd knows the end anyway.
    attempt(() => writeFileSync(join(this.directory, "end"), JSON.stringify(end)), undefined);
    setImmediate(() => void this.#release());
    this.#host.onEnd(this);
  }

  /** If background processes hold a pipe, a new process drains that pipe until they end, even if sandboxd ends. */
  async #release(): Promise<void> {
    const slot = this.#slot;
    if (slot === undefined) return;
    slot.releaseKeeper();
    await slot.waitForEnd();
    const until = Date.now() + RELEASE_MS;
    while (STREAMS.some((name) => !this.streams[name].isOver) && Date.now() < until)
      await pause(POLL_MS / 10);
    const held = STREAMS.filter((name) => !this.streams[name].isOver || slot.hasWriters(name));
    for (const name of held) {
      while (!startDraining(pipeOf(slot.directory, name))) await pause(POLL_MS);
      this.streams[name].stopCopying();
    }
    // The pipes of an interactive run are not reused, because unread input must not reach the next command.
    this.#host.onRelease(slot, held.length === 0 && !this.#isAdopted && !this.#isInteractive);
  }

  #endAt(deadline: number): void {
    this.after(Math.max(0, deadline - Date.now()), () => {
      this.#hasTimedOut = true;
      this.kill("TERM");
    });
  }
}

function openSlot(directory: string): Slot | undefined {
  const mark = textOf(join(directory, "mark"));
  return mark === undefined ? undefined : attempt(() => new Slot(directory, mark), undefined);
}

/** Kills the slot's keeper and shell. */
export function stopSlot(slot: Slot): void {
  // First the keeper's group: before the shell has its own group, it has no `pid` file yet.
  if (slot.keeper !== undefined) send(-slot.keeper, "SIGKILL");
  if (slot.leader !== undefined) send(slot.leader, "SIGKILL");
}

/** Starts a process that drains a pipe until it has no writers. Returns whether it could be started. */
function startDraining(path: string): boolean {
  // User code has removed the pipe, with its content.
  if (!existsSync(path)) return true;
  const pipe = openToRead(path);
  try {
    const reader = startCopier([pipe, "ignore", "ignore"]);
    reader.on("error", () => undefined);
    reader.unref();
    return reader.pid !== undefined;
  } catch {
    return false;
  } finally {
    closeSync(pipe);
  }
}
