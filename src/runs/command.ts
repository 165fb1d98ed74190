/** Shell commands in a sandbox, which sandboxd runs: from the call that starts one to its end. */
import { z } from "zod";
import {
  type Call,
  type Event,
  type Piece,
  type StartCall,
  WINDOW_BYTES,
} from "../../container/sandboxd/protocol.ts";
import { type Connection, containerGone } from "../container/connection.ts";
import { damaged, exhausted, isNoAnswer, noAnswer, unwritable } from "../shared/errors.ts";
import type { Executor } from "./executor.ts";
import { Limit } from "./limit.ts";
import { KeyedQueue } from "../shared/queue.ts";
import {
  type Allowance,
  type End,
  type Execution,
  type RunSink,
  STREAMS,
  type Stream,
  waitingFor,
} from "./run.ts";

export interface CommandSpec extends Allowance {
  command: string;
  /** Whose directory, variables and functions the command starts from and leaves to the next. */
  session: string;
  /** For this command only; the session's own directory where undefined. */
  cwd?: string;
  /** For this command only. */
  env?: Record<string, string>;
}

/** What it takes to go on with a command in another actor. */
export const commandState = z.object({
  session: z.string(),
  /** Milliseconds since the epoch. */
  deadline: z.number(),
  /** Why the deadline is earlier than was asked for. */
  cut: z.string().optional(),
});

export type CommandState = z.infer<typeof commandState>;

/** How long the call that ends a command may take, milliseconds: it waits for nothing. */
const KILL_MS = 10_000;

/** How often a silent connection is tried, and what is safe here is told, milliseconds. */
const TICK_MS = 1000;
const SILENCE_TICKS = 10;

/** How long the end of a container is waited for once the way to it broke, milliseconds; and how often it may break for nothing. */
const DOWN_MS = 8000;
const MAX_BREAKS = 20;

/** The pause before the way is tried again, milliseconds for each time that it broke. */
const AGAIN_MS = 20;

/** Why a command is being ended early. */
type Stop = "timed_out" | "cancelled";

export interface CommandsHost {
  connection: Connection;
  running(): boolean;
}

export class Commands implements Executor<CommandSpec> {
  readonly kind = "command";
  readonly #host: CommandsHost;
  readonly #queue = new KeyedQueue();

  constructor(host: CommandsHost) {
    this.#host = host;
  }

  /** Runs a command after those queued before it in its session. */
  start(sink: RunSink<CommandState>, spec: CommandSpec): Execution {
    const run = new RunningCommand(this.#host, sink);
    const turn = this.#queue.run(spec.session, sink.id, async () => {
      if (run.stop || sink.ended) return NEVER_STARTED;
      sink.began();
      const deadline = Date.now() + spec.timeoutMs;
      run.limit.deadline(deadline);
      sink.keepState({ session: spec.session, deadline, cut: spec.cut });
      const { session, command, cwd, env, timeoutMs, cut } = spec;
      const call: StartCall = { type: "start", id: sink.id, session, command, cwd, env, timeoutMs };
      return run.follow(deadline, cut, call).catch((error: unknown) => {
        if (!run.mayHaveStarted) sink.keepState(undefined);
        throw error;
      });
    });
    return {
      done: run.limit.hold(Promise.race([turn, run.withdrawn])),
      cancel: () => run.end("cancelled"),
      waiting: () => waitingFor(this.#queue.ahead(spec.session, sink.id), "session", spec.session),
    };
  }

  /** Goes on with a command that an earlier actor started, where the sink's output ends. */
  resume(sink: RunSink, state: unknown): Execution {
    const { session, deadline, cut } = commandState.parse(state);
    const run = new RunningCommand(this.#host, sink);
    run.limit.deadline(deadline);
    const done = this.#queue.run(session, sink.id, () => run.follow(deadline, cut));
    return { done: run.limit.hold(done), cancel: () => run.end("cancelled"), deadline };
  }
}

const NEVER_STARTED: End = { state: "cancelled", note: "It was cancelled before it started." };

type Outcome = Extract<Event, { type: "ended" | "unknown" | "refused" }>;

class RunningCommand {
  readonly #host: CommandsHost;
  readonly #sink: RunSink;
  readonly limit = new Limit();
  readonly #withdrawn = Promise.withResolvers<End>();
  /** What is told of the run that is no output. */
  #outcome: Outcome | undefined;
  #wake = () => {};
  /** Why the run cannot be followed any more. */
  #failure: unknown;
  #isConnected = false;
  /** Whether sandboxd has said anything of the run: then it has been started. */
  #isKnown = false;
  #silence = 0;
  /** Output that has come and is not taken over yet, and how many bytes that is. */
  #taking: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #breaks = 0;
  #told = { stdout: 0, stderr: 0 };
  #full = new Set<Stream>();
  started = false;
  /** Whether the call to start it was sent and not refused. */
  mayHaveStarted = false;
  stop: Stop | undefined;

  constructor(host: CommandsHost, sink: RunSink) {
    this.#host = host;
    this.#sink = sink;
  }

  /** Settles when it is cancelled while it waits its turn. */
  get withdrawn(): Promise<End> {
    return this.#withdrawn.promise;
  }

  /** Reports what the command prints until it has ended, and ends it at its deadline. Starts it where a call to do so is given. */
  async follow(deadline: number, cut: string | undefined, start?: StartCall): Promise<End> {
    const { connection } = this.#host;
    const sink = this.#sink;
    this.started = true;
    const unfollow = connection.follow(sink.id, {
      event: (event) => this.#event(event),
      piece: (piece) => this.#piece(piece),
      broken: () => this.#broken(),
    });
    const late = setTimeout(() => void this.#timeout(), Math.max(0, deadline - Date.now()));
    const tick = setInterval(() => this.#tick(), TICK_MS);
    try {
      // A sandbox that is just being destroyed may keep the way to it waiting, and nobody waits for that any more.
      const outcome = await Promise.race([this.#attend(start), sink.settled]);
      return !outcome ? LOST : this.#endOf(outcome, cut, start !== undefined);
    } finally {
      clearTimeout(late);
      clearInterval(tick);
      unfollow();
    }
  }

  /** Undefined when the run has got its end from elsewhere. */
  async #attend(start?: StartCall): Promise<Outcome | undefined> {
    const sink = this.#sink;
    while (!this.#isOver && this.#outcome === undefined) {
      if (this.#failure) throw this.#failure;
      if (!this.#isConnected) await this.#connect(start);
      if (this.#outcome !== undefined || this.#failure || !this.#isConnected) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await Promise.race([promise, sink.over(TICK_MS * 60)]);
    }
    return this.#outcome;
  }

  async #connect(start?: StartCall): Promise<void> {
    const sink = this.#sink;
    await this.#taking;
    const call: Call =
      start && !this.#isKnown
        ? start
        : { type: "follow", id: sink.id, stdout: sink.position("stdout"), stderr: sink.position("stderr") };
    this.#isConnected = true;
    this.#silence = 0;
    this.#full.clear();
    this.#told = { stdout: 0, stderr: 0 };
    try {
      this.mayHaveStarted ||= this.#breaks > 0;
      if (call === start && this.#breaks === 0) await this.#host.connection.begin(call);
      else await this.#host.connection.send(call);
      this.mayHaveStarted = true;
      // The word of it may have gone with the connection before.
      if (this.stop) this.#host.connection.tell({ type: "kill", id: sink.id, signal: "TERM" });
      this.#catchUp();
    } catch (error) {
      this.#isConnected = false;
      if (!this.#host.running()) return await this.#mended();
      // As long as nobody answers it is tried again: the run has a limit.
      if (!isNoAnswer(error)) throw error;
    }
  }

  /** Whether the run has got its end from elsewhere. */
  get #isOver(): boolean {
    return this.#sink.ended || this.limit.isReached;
  }

  #event(event: Event): void {
    this.#isKnown = true;
    this.#silence = 0;
    if (event.type !== "ended" && event.type !== "unknown" && event.type !== "refused") return;
    void this.#end(event);
  }

  /** What came before the end is taken over before it. */
  async #end(outcome: Outcome): Promise<void> {
    await this.#taking;
    this.#outcome = outcome;
    this.#wake();
  }

  /** One after the other: what comes waits here as long as there is no room for it. */
  #piece(piece: Piece): void {
    const { length } = piece.bytes;
    this.#isKnown = true;
    this.#silence = 0;
    this.#waiting += length;
    // Nobody who keeps to the protocol sends more than that without a word from here.
    if (this.#waiting > 4 * WINDOW_BYTES) return this.#host.connection.close();
    this.#taking = this.#taking
      .then(() => this.#sink.take(() => this.#pass(piece)))
      .catch((error: unknown) => void (this.#failure ??= error))
      .finally(() => {
        this.#waiting -= length;
        this.#catchUp();
      });
  }

  #pass({ stream, offset, bytes }: Piece): void {
    const sink = this.#sink;
    const gap = offset - sink.position(stream);
    // What is here already came before a connection broke.
    if (gap < 0) sink.output(stream, bytes.subarray(-gap));
    else if (gap > 0) sink.skipped(stream, gap + bytes.length, bytes);
    else sink.output(stream, bytes);
  }

  /** Says what is safe here, and of which stream no more is kept. */
  #catchUp(): void {
    const sink = this.#sink;
    const { connection } = this.#host;
    const stored = { stdout: sink.stored("stdout"), stderr: sink.stored("stderr") };
    if (stored.stdout > this.#told.stdout || stored.stderr > this.#told.stderr) {
      this.#told = stored;
      connection.tell({ type: "stored", id: sink.id, ...stored });
    }
    for (const stream of STREAMS) {
      if (this.#full.has(stream) || sink.hasRoom(stream)) continue;
      this.#full.add(stream);
      connection.tell({ type: "full", id: sink.id, stream });
    }
  }

  #tick(): void {
    if (!this.#isConnected) return;
    this.#catchUp();
    if (++this.#silence % SILENCE_TICKS !== 0) return;
    // A run may well be silent: a connection that is not is made again.
    this.#host.connection.ask(KILL_MS).then(
      () => (this.#silence = 0),
      () => this.#broken(),
    );
  }

  #broken(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    void this.#mended();
  }

  /** The way to the container broke: whether the container seems to be there, so that the run goes on. */
  async #mended(): Promise<void> {
    if (++this.#breaks > MAX_BREAKS) this.#failure = noAnswer(DOWN_MS);
    else await this.#sink.over(this.#breaks * AGAIN_MS);
    if (!this.#host.running()) {
      await this.#sink.over(DOWN_MS);
      this.#failure ??= containerGone();
    }
    this.#wake();
  }

  async #timeout(): Promise<void> {
    this.stop ??= "timed_out";
    // Nobody confirms that: the run's limit ends it.
    await this.#kill().catch(() => undefined);
  }

  /** Ends the command early, with every process it started. */
  async end(why: Stop): Promise<void> {
    if (this.#sink.ended) return;
    if (!this.started) this.#withdrawn.resolve(NEVER_STARTED);
    const before = this.stop;
    this.stop ??= why;
    if (!this.started || before) return;
    this.limit.cancelled();
    await this.#kill();
  }

  async #kill(): Promise<void> {
    const { id } = this.#sink;
    await this.#host.connection.ask(KILL_MS, { type: "kill", id, signal: "TERM" });
  }

  #endOf(outcome: Outcome, cut: string | undefined, isNew: boolean): End {
    if (outcome.type === "unknown") return { state: "lost", note: isNew ? REMOVED : NEVER_RAN };
    if (outcome.type === "refused") {
      this.mayHaveStarted = false;
      if (outcome.reason === "exhausted") throw exhausted();
      if (outcome.reason === "damaged") throw damaged(outcome.message);
      throw unwritable("The command", outcome.message, "run_code", "destroy_sandbox");
    }
    const { status: exitCode, timedOut } = outcome;
    if (timedOut) this.stop ??= "timed_out";
    if (this.stop === "timed_out")
      return {
        state: "timed_out",
        exitCode,
        note: cut
          ? `It was stopped, with every process it started. ${cut}`
          : "It took too long and was stopped, with every process it started.",
      };
    if (this.stop === "cancelled")
      return { state: "cancelled", exitCode, note: "It was cancelled, with every process it started." };
    return { state: exitCode === 0 ? "succeeded" : "failed", exitCode };
  }
}

const NEVER_RAN =
  "The sandbox has no trace of the command: the server was restarted before it had started, so it never ran, or its files were removed. Run it again.";
const REMOVED = "The sandbox has no trace of the command any more: its files were removed while it ran.";
const LOST: End = { state: "lost", note: REMOVED };
