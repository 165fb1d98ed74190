/** One run of a command, from the slot that it takes to the end that it leaves. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import * as z from "zod/mini";
import { Followed } from "./followed.ts";
import { RUNS, SESSIONS, SLOTS, textOf } from "./places.ts";
import { group, lives, marked, readersOf, send, signalRun } from "./processes.ts";
import { portsOf } from "./listening.ts";
import { type Event, STREAMS, type Signal, type StartCall, type Stream } from "./protocol.ts";
import { startScript } from "./script.ts";
import { Slot, openToRead, pipeOf } from "./slot.ts";
import type { OutputStream } from "./stream.ts";

/** How long a command's output waits in its pipes before it is copied, so that a short one costs no process. Milliseconds. */
const COPY_AFTER_MS = 20;

/** How often what nobody tells of is looked for, milliseconds. */
const LOOK_MS = 50;

/** How often it is looked which ports a run's programs listen on, milliseconds. */
const PORTS_MS = 500;

/** How long the end of a copying is waited for when its command has ended, milliseconds. */
const RELEASE_MS = 300;

/**
 * How long a command's shell may be gone without a status, milliseconds; and how often, after a pause as long, the copying of
 * what a command that has ended had printed may have made no progress: a busy machine gives it no time.
 */
const STUCK_MS = 1000;
const STUCK_LOOKS = 10;

/** What processes get to end by themselves, milliseconds. */
const GRACE_MS = 2000;

/** How much later than its actor sandboxd ends a run whose time is over, milliseconds. */
const LATE_MS = 5000;

/** The last line of what state.sh prints. */
const STATE_END = "\n# complete\n";

const count = () => z.number().check(z.int(), z.nonnegative());

/** How a run ended, as its directory remembers it: where user code can write, too. */
const endSchema = z.object({
  status: z.number().check(z.int(), z.gte(0), z.lte(255)),
  stdout: count(),
  stderr: count(),
  timedOut: z.optional(z.boolean()),
  cut: z.optional(z.boolean()),
});

type End = z.infer<typeof endSchema>;

/** What sandboxd remembers of a run that is under way, to take it over. */
const memoSchema = z.object({
  slot: z.string().check(z.regex(/^[0-9a-f]{12}$/)),
  session: z.string().check(z.regex(/^[a-z0-9_-]{1,64}$/)),
  /** Milliseconds since the epoch. */
  deadline: count(),
  interactive: z.optional(z.boolean()),
});

type Memo = z.infer<typeof memoSchema>;

export interface RunHost {
  /** The run has ended, and left its state to its session. */
  ended(run: Run): void;
  /** The slot's shell went before it read what to run. */
  neverBegan(run: Run): void;
  /** Nobody of the run needs the slot; `isClean` when nobody holds its pipes. */
  released(slot: Slot, isClean: boolean): void;
}

export class Run extends Followed {
  readonly session: string;
  readonly directory: string;
  readonly #slot: Slot | undefined;
  readonly #isInteractive: boolean;
  readonly #host: RunHost;
  readonly #isAdopted: boolean;
  #end: End | undefined;
  #status: number | undefined;
  #killing: NodeJS.Timeout | undefined;
  #killedAt = 0;
  #timedOut: boolean | undefined;
  /** Whether a sandboxd before may have taken output that it did not live to keep. */
  #isCut = false;
  #watching = false;
  /** Whether it went on for long enough that its ports were looked for. */
  #hasLasted = false;
  /** Those that were told. */
  #ports: readonly number[] = [];
  /** Since when the command's shell is gone without a status. */
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

  /** Writes down what is to be run and tells the slot's shell. @throws Error of the file system */
  static start(call: StartCall, state: string, slot: Slot, host: RunHost): Run {
    const run = new Run(call.id, call.session, slot, call.interactive === true, host, false);
    mkdirSync(run.directory);
    try {
      writeFileSync(join(run.directory, "command"), call.command);
      if (call.stdin !== undefined) writeFileSync(join(run.directory, "stdin"), call.stdin);
      writeFileSync(join(run.directory, "start"), startScript(call, state));
      const memo: Memo = {
        slot: basename(slot.directory),
        session: call.session,
        deadline: Date.now() + call.timeoutMs + LATE_MS,
        interactive: call.interactive,
      };
      writeFileSync(join(run.directory, "memo"), JSON.stringify(memo));
    } catch (error) {
      rmSync(run.directory, { recursive: true, force: true });
      throw error;
    }
    slot.go(run.directory);
    run.#endAt(Date.now() + call.timeoutMs + LATE_MS);
    run.after(COPY_AFTER_MS, () => run.#copy());
    run.after(PORTS_MS, () => run.#watchPorts());
    return run;
  }

  /**
   * Takes over a run of a sandboxd before. Undefined when it was never begun: then nothing of it is left, and whoever asked
   * for it may ask again.
   */
  static adopt(id: string, host: RunHost): Run | undefined {
    const directory = join(RUNS, id);
    const end = fileAs(endSchema, join(directory, "end"));
    if (end !== undefined) {
      const run = new Run(id, "", undefined, false, host, true);
      run.#end = end;
      for (const stream of STREAMS) run.streams[stream].ended(end[stream]);
      return run;
    }
    const memo = fileAs(memoSchema, join(directory, "memo"));
    const slot = memo === undefined ? undefined : openSlot(join(SLOTS, memo.slot));
    const begun = () => textOf(join(directory, "begun")) !== undefined;
    if (slot === undefined || memo === undefined) {
      rmSync(directory, { recursive: true, force: true });
      return undefined;
    }
    if (!begun()) {
      // The shell may have been told and may not: once it is gone it is known.
      stopSlot(slot);
      if (!begun()) {
        rmSync(directory, { recursive: true, force: true });
        slot.remove();
        return undefined;
      }
    }
    const run = new Run(id, memo.session, slot, memo.interactive === true, host, true);
    run.#endAt(memo.deadline);
    run.#copy(true);
    run.#watchPorts();
    run.#watch();
    return run;
  }

  /** The slot's keeper says that the command has ended, or has gone without a word. */
  said(status: number | undefined): void {
    if (!this.isBegun && this.#killing === undefined) return this.#host.neverBegan(this);
    if (status === undefined) this.#watch();
    else this.#ended(status);
  }

  /** Whether its shell has come to run it. */
  get isBegun(): boolean {
    return existsSync(join(this.directory, "begun"));
  }

  protected override end(): Event | undefined {
    return this.#end && { type: "ended", id: this.id, ...this.#end };
  }

  /** Types into the run's terminal. Answers how many bytes were taken. */
  type(text: string): number {
    const isOpen = this.#isInteractive && this.#status === undefined;
    return isOpen ? (this.#slot?.type(Buffer.from(text)) ?? 0) : 0;
  }

  /** Asks every process of the run to end, and makes it after a while, or at once. */
  kill(signal: Signal): void {
    if (this.#end !== undefined) return;
    this.#killedAt ||= Date.now();
    if (signal === "KILL") this.#killedAt = Math.min(this.#killedAt, Date.now() - GRACE_MS);
    this.#signal(signal === "KILL" ? "SIGKILL" : "SIGTERM");
    // As a terminal that is closed: an interactive shell does not end otherwise.
    if (this.#isInteractive) this.#signal("SIGHUP");
    // One that is held still gets to handle it.
    this.#signal("SIGCONT");
    this.#killing ??= setInterval(() => this.#insist(), LOOK_MS);
  }

  /** Until none is left: one that was just made may have been missed. */
  #insist(): void {
    if (Date.now() - this.#killedAt >= GRACE_MS) this.#signal("SIGKILL");
    if (this.#lingers()) return;
    if (this.#status === undefined) {
      // Its keeper is there and does not say so: it may be held still.
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
    // The leader of one in a terminal is `script`: it passes on what the command prints at its end, and ends after it.
    const leader = this.#isInteractive && signal !== "SIGKILL" ? undefined : this.#slot?.leader;
    signalRun(this.id, leader, signal);
  }

  #lingers(): boolean {
    const leader = this.#slot?.leader;
    return marked(this.id).length > 0 || (leader !== undefined && group(leader).length > 0);
  }

  get isRunning(): boolean {
    return this.#end === undefined;
  }

  /** The slot that the run needs. */
  get slotName(): string | undefined {
    return this.#slot === undefined ? undefined : basename(this.#slot.directory);
  }

  /** Gives up what never began, with its slot. */
  abandon(): void {
    this.close();
    if (this.#slot === undefined) return;
    stopSlot(this.#slot);
    this.#slot.remove();
  }

  override close(): void {
    super.close();
    clearInterval(this.#killing);
  }

  /** From now on the output is copied to files as it comes. */
  #copy(isAdopted = false): void {
    const slot = this.#slot;
    if (slot === undefined || this.#status !== undefined) return;
    for (const name of STREAMS) {
      const stream = this.streams[name];
      if (stream.isCopied) continue;
      try {
        stream.copy(
          slot,
          isAdopted,
          isAdopted && readersOf(pipeOf(slot.directory, name), (link) => readlinkSync(link)).length > 0,
        );
      } catch {
        // No process is free: what prints waits as long.
        this.after(LOOK_MS, () => this.#copy(isAdopted));
      }
    }
  }

  /** A copying has ended: nobody can write any more, or it was killed. */
  protected override stopped(name: Stream): void {
    if (this.#status === undefined) this.after(LOOK_MS, () => this.#copy());
    else if (this.#killing === undefined) this.streams[name].finish();
  }

  /** Whether a process of its group is there, which is asked for in no time. */
  get #leftSome(): boolean {
    const leader = this.#slot?.leader;
    try {
      return leader !== undefined && process.kill(-leader, 0);
    } catch {
      return false;
    }
  }

  #watchPorts(): void {
    if (this.#end !== undefined) return;
    this.#hasLasted = true;
    this.#tellPorts(PORTS_MS);
    this.after(PORTS_MS, () => this.#watchPorts());
  }

  /** Tells which ports the run's programs listen on, where that has changed. */
  #tellPorts(ageMs: number): void {
    const ports = portsOf(this.id, ageMs);
    if (ports.join() === this.#ports.join()) return;
    this.#ports = ports;
    this.tell({ type: "listening", id: this.id, ports });
  }

  /** Looks for an end that nobody tells of. */
  #watch(): void {
    const slot = this.#slot;
    if (slot === undefined || this.#status !== undefined || this.#watching) return;
    const { status, leader, keeper } = slot;
    if (status !== undefined) return this.#ended(status);
    for (const name of STREAMS) this.streams[name].look();
    this.#watching = true;
    if (leader !== undefined && !lives(leader)) this.#goneAt ??= Date.now();
    const isLate = this.#goneAt !== undefined && Date.now() - this.#goneAt > STUCK_MS;
    const isKept = keeper !== undefined && lives(keeper);
    if ((isKept || (leader !== undefined && lives(leader))) && !isLate)
      return this.after(LOOK_MS, () => ((this.#watching = false), this.#watch()));
    if (isKept) send(keeper, "SIGKILL");
    // The keeper went without leaving a status, and what it kept is gone too.
    this.#ended(137, true);
  }

  #ended(status: number, isLost = false): void {
    if (this.#status !== undefined) return;
    this.#status = status;
    if (this.#killing === undefined) this.#complete(isLost);
  }

  /** Takes what output there still is. */
  #complete(isLost = false): void {
    const slot = this.#slot;
    if (slot === undefined) return;
    for (const name of STREAMS) {
      const stream = this.streams[name];
      if (stream.end !== undefined) continue;
      if (!stream.isCopied) stream.drain(slot);
      else if (!stream.hasFile) stream.finish();
      else if (isLost) this.after(2 * LOOK_MS, () => (stream.look(), stream.finish()));
      else {
        stream.look();
        this.#finishStuck(stream, stream.progress);
      }
    }
    this.settle();
  }

  /** The mark may be where nobody looks: then the output ends with what is there. */
  #finishStuck(stream: OutputStream, before: number | undefined, idleLooks = 0): void {
    // Behind what has come: this program may have been held up itself.
    const look = () => {
      if (stream.end !== undefined) return;
      const { progress } = stream;
      const idle = progress !== undefined && progress === before ? idleLooks + 1 : 0;
      if (idle === STUCK_LOOKS) {
        this.#isCut ||= this.#isAdopted;
        stream.finish();
      } else this.#finishStuck(stream, progress, idle);
    };
    this.after(STUCK_MS, () => setImmediate(look));
  }

  /** Once all is known, writes it down. */
  protected override settle(): void {
    const { stdout, stderr } = this.streams;
    if (this.#end === undefined) {
      if (this.#status === undefined || stdout.end === undefined || stderr.end === undefined) return;
      if (this.#killing !== undefined) return;
      // Short commands leave nothing behind as a rule, and have no milliseconds to spare.
      if (this.#hasLasted || this.#leftSome) this.#tellPorts(0);
      this.#end = {
        status: this.#status,
        stdout: stdout.end,
        stderr: stderr.end,
        timedOut: this.#timedOut,
        cut: this.#isCut || undefined,
      };
      this.#writeDown(this.#end);
    }
    super.settle();
  }

  #writeDown(end: End): void {
    this.clearTimers();
    const state = join(this.directory, "state");
    try {
      // First: without an end it is taken over again, and its state carried over then.
      if (textOf(state)?.endsWith(STATE_END)) renameSync(state, join(SESSIONS, this.session));
    } catch {
      // The session keeps the state before.
    }
    try {
      writeFileSync(join(this.directory, "end"), JSON.stringify(end));
    } catch {
      // Its directory was removed, or the disk is full: it is known here.
    }
    setImmediate(() => void this.#release());
    this.#host.ended(this);
  }

  /** Lets the keeper go; what the command left behind in its pipes is read by somebody who outlives this program. */
  async #release(): Promise<void> {
    const slot = this.#slot;
    if (slot === undefined) return;
    slot.go();
    await slot.over();
    const until = Date.now() + RELEASE_MS;
    while (STREAMS.some((name) => !this.streams[name].isOver) && Date.now() < until)
      await pause(LOOK_MS / 10);
    const held = STREAMS.filter((name) =>
      this.streams[name].isCopied ? !this.streams[name].isOver : slot.isHeld(name),
    );
    for (const name of held) {
      while (!takeRest(pipeOf(slot.directory, name))) await pause(LOOK_MS);
      this.streams[name].stopCopying();
    }
    // What was typed and not read must not reach another.
    this.#host.released(slot, held.length === 0 && !this.#isAdopted && !this.#isInteractive);
  }

  #endAt(deadline: number): void {
    this.after(Math.max(0, deadline - Date.now()), () => {
      this.#timedOut = true;
      this.kill("TERM");
    });
  }
}

function fileAs<T extends z.ZodMiniType>(schema: T, path: string): z.output<T> | undefined {
  try {
    return schema.parse(JSON.parse(textOf(path) ?? ""));
  } catch {
    return undefined;
  }
}

/** Opens the slot of a run of a sandboxd before. */
function openSlot(directory: string): Slot | undefined {
  const mark = textOf(join(directory, "mark"));
  try {
    return mark === undefined ? undefined : new Slot(directory, mark);
  } catch {
    return undefined;
  }
}

/** Ends the shell that stands ready in a slot, and its keeper. */
export function stopSlot(slot: Slot): void {
  for (const pid of [slot.leader, slot.keeper]) if (pid !== undefined) send(pid, "SIGKILL");
}

/** Reads what nobody wants, as long as somebody writes it. Answers whether there was a process for it. */
function takeRest(path: string): boolean {
  const pipe = openToRead(path);
  try {
    const reader = spawn("/bin/cat", [], {
      cwd: "/",
      detached: true,
      env: {},
      stdio: [pipe, "ignore", "ignore"],
      argv0: "sandboxd-rest",
    });
    reader.on("error", () => undefined);
    reader.unref();
    return reader.pid !== undefined;
  } catch {
    return false;
  } finally {
    closeSync(pipe);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
