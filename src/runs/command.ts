/** Shell commands in a sandbox, by the wrapper in `container/run.sh`. */
import {
  SHELL_KILLED,
  ToolError,
  isExhausted,
  isGone,
  isNoAnswer,
  sdkCode,
  unwritable,
} from "../shared/errors.ts";
import { RUNS } from "../container/kernels/protocol.ts";
import { type Reply, type Shell, outputBytes, quote } from "../container/shell.ts";
import { type Polled, RunFiles, statusOf } from "./output-files.ts";
import { Limit } from "./limit.ts";
import { KeyedQueue } from "../shared/queue.ts";
import { type Allowance, type End, type Execution, type RunSink, waitingFor } from "./run.ts";

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
export interface CommandState {
  session: string;
  /** Milliseconds since the epoch. */
  deadline: number;
  /** Why the deadline is earlier than was asked for. */
  cut?: string;
}

/** How long one call into the sandbox waits for a command to end, seconds. */
const WAIT_SECONDS = 1;

/** The pause between two attempts to kill, milliseconds: longer than what processes get to end by themselves. */
const KILL_AGAIN_MS = 4000;

/** How long the end of a container is waited for once the way to it broke, milliseconds; and how often it may break. */
const DOWN_MS = 3000;
const MAX_RECONNECTS = 5;

/** How much longer than it was told to wait a call may take before the sandbox counts as hanging, milliseconds. */
const ANSWER_MS = 30_000;

/** The same for the call that ends a command, which waits for nothing. */
const KILL_MS = 10_000;

/** How often a sandbox without a free process is asked again to end a command. */
const MAX_EXHAUSTED = 3;

/** The pause before a sandbox is called again that had no process, or no shell, for a call. Milliseconds. */
const PAUSE_MS = 1000;

const NOT_STOPPED =
  "It could not be stopped: the sandbox is out of processes or memory, also for what would stop it. Use destroy_sandbox and start afresh.";

/** Why a command is being ended early. */
type Stop = "timed_out" | "cancelled";

export class Commands {
  readonly #shell: Shell;
  readonly #queue = new KeyedQueue();

  constructor(shell: Shell) {
    this.#shell = shell;
  }

  /**
   * Runs a command after those queued before it in its session.
   * @param started is told what `resume` needs before the command starts, and undefined when it did not after all
   */
  start(sink: RunSink, spec: CommandSpec, started: (trace: CommandState | undefined) => void): Execution {
    const run = new RunningCommand(this.#shell, sink, spec);
    const turn = this.#queue.run(spec.session, sink.id, async () => {
      if (run.stop || sink.ended) return NEVER_STARTED;
      sink.began();
      const deadline = Date.now() + spec.timeoutMs;
      run.limit.deadline(deadline);
      started({ session: spec.session, deadline, cut: spec.cut });
      const reply = await run.start(spec, untilDeadline(deadline)).catch((error: unknown) => {
        started(undefined);
        throw error;
      });
      return run.follow(reply, deadline);
    });
    return {
      done: run.limit.hold(Promise.race([turn, run.withdrawn])),
      cancel: () => run.end("cancelled"),
      waiting: () => waitingFor(this.#queue.ahead(spec.session, sink.id), "session", spec.session),
    };
  }

  /** Goes on with a command that an earlier actor started, where the sink's output ends. */
  resume(sink: RunSink, trace: CommandState): Execution {
    const { session, deadline } = trace;
    const run = new RunningCommand(this.#shell, sink, trace);
    run.started = true;
    run.resumed = true;
    run.limit.deadline(deadline);
    const done = this.#queue.run(session, sink.id, () => run.follow(undefined, deadline));
    return { done: run.limit.hold(done), cancel: () => run.end("cancelled") };
  }
}

const NEVER_STARTED: End = { state: "cancelled", note: "It was cancelled before it started." };

class RunningCommand {
  readonly #shell: Shell;
  readonly #sink: RunSink;
  readonly #session: string;
  readonly #cut: string | undefined;
  readonly #files: RunFiles;
  readonly limit = new Limit();
  readonly #withdrawn = Promise.withResolvers<End>();
  #killedAt = 0;
  #reconnects = 0;
  #exhausted = 0;
  started = false;
  /** An earlier actor was about to start it, and may not have come to that. */
  resumed = false;
  stop: Stop | undefined;

  constructor(shell: Shell, sink: RunSink, { session, cut }: Pick<CommandState, "session" | "cut">) {
    this.#shell = shell;
    this.#sink = sink;
    this.#session = session;
    this.#cut = cut;
    this.#files = new RunFiles(shell, sink);
  }

  /** Settles when it is cancelled while it waits its turn. */
  get withdrawn(): Promise<End> {
    return this.#withdrawn.promise;
  }

  /** Undefined when it may have started, and nobody could say. @throws what kept it from starting */
  async start(spec: CommandSpec, seconds: number): Promise<Reply | undefined> {
    const reply = await this.#start(spec, seconds);
    if (reply?.words[0] === "unable")
      throw unwritable("The command", reply.stderr, "run_code", "destroy_sandbox");
    return reply;
  }

  async #start(spec: CommandSpec, seconds: number): Promise<Reply | undefined> {
    const env = Object.entries(spec.env ?? {}).map(([name, value]) => quote(`${name}=${value}`));
    const only = env.length > 0 || spec.cwd !== undefined ? [quote(spec.cwd ?? ""), ...env] : [];
    const line = ["sbx_start", this.#sink.id, spec.session, seconds, ...only].join(" ");
    const call = { session: spec.session, input: spec.command, once: true, answerMs: ANSWER_MS };
    this.started = true;
    try {
      return await this.#shell.call("run.sh", line, call);
    } catch (error) {
      // Where there was a shell, the command may have started all the same: it may even be what took the processes.
      if (isNoAnswer(error) || (error instanceof ToolError && isExhausted(error))) return undefined;
      if (isExhausted(error) && (await this.#isAtWork())) return undefined;
      if (sdkCode(error) !== SHELL_KILLED && !(await this.#isStillThere(error))) throw error;
    }
    // The shell or the way to it had gone before the command, or the command ended it: only in the first case nothing
    // ran yet.
    const again = { session: spec.session, answerMs: ANSWER_MS };
    try {
      const reply = await this.#shell.call("run.sh", `sbx_wait ${this.#sink.id} ${seconds}`, again);
      return reply.words[0] === "unknown" ? await this.#shell.call("run.sh", line, call) : reply;
    } catch (error) {
      // What took all processes may be the command itself, at work; and so may be what keeps killing the shells.
      if (isExhausted(error) && !(await this.#isAtWork())) throw error;
      return undefined;
    }
  }

  #isAtWork(): Promise<boolean> {
    return this.#shell.hasFile(`${RUNS}/${this.#sink.id}.pid`);
  }

  /** Reports what the command prints until it has ended, and ends it at its deadline. */
  async follow(reply: Reply | undefined, deadline: number): Promise<End> {
    const [word, status, outBytes] = reply?.words ?? ["running"];
    if (word === "exited" && outBytes !== undefined && reply) {
      const stdout = outputBytes(reply.rest);
      const stderr = outputBytes(reply.stderr);
      if (stdout && stderr) {
        this.#sink.output("stdout", stdout);
        this.#sink.output("stderr", stderr);
        return this.#ended(statusOf(status));
      }
    }
    while (!this.#isOver) {
      try {
        const polled = await this.#poll(deadline);
        if (polled.state === "unknown") break;
        if (polled.state === "exited" && polled.drained) return this.#ended(polled.status);
      } catch (error) {
        if (isExhausted(error)) {
          if (this.stop && ++this.#exhausted === MAX_EXHAUSTED) return { state: "lost", note: NOT_STOPPED };
          await this.#sink.over(PAUSE_MS);
          continue;
        }
        // What kills every shell, often the command itself, may stop doing so; the limit ends the run in any case.
        if (sdkCode(error) === SHELL_KILLED) {
          await this.#sink.over(PAUSE_MS);
          continue;
        }
        const askAgain = isNoAnswer(error) && !this.stop;
        if (!askAgain && !(await this.#isStillThere(error))) throw error;
      }
    }
    return {
      state: "lost",
      note: this.resumed
        ? "The sandbox has no trace of the command: the server was restarted before it had started, so it never ran, or its files were removed. Run it again."
        : reply
          ? "The sandbox has no trace of the command any more: its files were removed while it ran."
          : "The sandbox has no trace of the command: it never ran, or its files were removed.",
    };
  }

  /** Whether the run has got its end from elsewhere. */
  get #isOver(): boolean {
    return this.#sink.ended || this.limit.isReached;
  }

  async #poll(deadline: number): Promise<Polled> {
    if (Date.now() >= deadline) this.stop ??= "timed_out";
    // Again and again: a kill may come before the first process, or be missed by one that was just made.
    if (this.stop && Date.now() - this.#killedAt > KILL_AGAIN_MS) await this.#kill();
    if (this.stop) return this.#files.poll(WAIT_SECONDS, this.#session, ANSWER_MS);
    const answerMs = Math.min(ANSWER_MS, Math.max(0, deadline - Date.now()) + KILL_MS);
    return this.#files.poll(untilDeadline(deadline), this.#session, answerMs);
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
    const line = `sbx_kill ${this.#sink.id}${this.#killedAt > 0 ? " KILL" : ""}`;
    this.#killedAt = Date.now();
    await this.#shell.call("run.sh", line, { answerMs: KILL_MS }).catch((error: unknown) => {
      if (!isExhausted(error) && sdkCode(error) !== SHELL_KILLED) throw error;
      // Whoever follows the command kills again at once.
      this.#killedAt -= KILL_AGAIN_MS;
    });
  }

  /** After an error of the way to the container: whether the container seems to be there, so that the run goes on. */
  async #isStillThere(error: unknown): Promise<boolean> {
    if (!isGone(error) || this.#reconnects >= MAX_RECONNECTS) return false;
    this.#reconnects++;
    await this.#sink.over(DOWN_MS);
    return !this.#isOver;
  }

  #ended(exitCode: number): End {
    if (this.stop === "timed_out")
      return {
        state: "timed_out",
        exitCode,
        note: this.#cut
          ? `It was stopped, with every process it started. ${this.#cut}`
          : "It took too long and was stopped, with every process it started.",
      };
    if (this.stop === "cancelled")
      return { state: "cancelled", exitCode, note: "It was cancelled, with every process it started." };
    return { state: exitCode === 0 ? "succeeded" : "failed", exitCode };
  }
}

/** How long the next call may wait: as long as any, but not past the deadline. Seconds. */
function untilDeadline(deadline: number): number {
  return Math.min(WAIT_SECONDS, Math.max(0.001, (deadline - Date.now()) / 1000));
}
