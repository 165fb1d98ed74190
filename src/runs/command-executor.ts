/** Runs shell commands with sandboxd, from the start call to the end. */
import * as z from "zod";
import type { StartCall } from "../../container/sandboxd/protocol.ts";
import { RESPONSE_MS } from "../container/connection.ts";
import { type ContainerLink, type FinalEvent, RunFollower } from "../container/follower.ts";
import { withTimeout, damaged, ending, exhausted, unwritable } from "../shared/errors.ts";
import type { Executor } from "./executor.ts";
import { Limit } from "./limit.ts";
import { KeyedQueue } from "../shared/queue.ts";
import { toVisibleJSON } from "../shared/shown.ts";
import type { TerminalInput } from "../container/connection.ts";
import {
  type Allowance,
  type End,
  type Execution,
  CANCELLED_BEFORE_START,
  type RunSink,
  waitingFor,
} from "./run-types.ts";
import * as texts from "./texts.ts";

export interface CommandSpec extends Allowance {
  command: string;
  /** The command uses and may change the shell session's directory, variables and functions. */
  session: string;
  /** The directory for this command only; undefined for the session's directory. */
  cwd?: string;
  /** Variables for this command only. */
  env?: Record<string, string>;
  stdin?: string;
  /** Whether the command runs in a pseudo terminal that accepts input. */
  interactive?: boolean;
}

/** The state from which another actor resumes a command. */
export const commandState = z.object({
  session: z.string(),
  /** Milliseconds since the epoch. */
  deadline: z.number(),
  timeoutMs: z.number(),
  /** Why the deadline is earlier than requested. */
  cut: z.string().optional(),
  interactive: z.boolean().optional(),
});

/** The session of services. Callers cannot use this name. */
export const SERVICE_SESSION = "_service";

export function isServiceState(state: unknown): boolean {
  return commandState.safeParse(state).data?.session === SERVICE_SESSION;
}

export type CommandState = z.infer<typeof commandState>;

type StopReason = "timed_out" | "cancelled";

export class CommandExecutor implements Executor<CommandSpec> {
  readonly kind = "command";
  readonly #link: ContainerLink;
  readonly #queue = new KeyedQueue();

  constructor(link: ContainerLink) {
    this.#link = link;
  }

  /** Runs a command after earlier ones of its session. */
  start(sink: RunSink<CommandState>, spec: CommandSpec): Execution {
    const run = new RunningCommand(this.#link, sink);
    const cancelled = () => CANCELLED_BEFORE_START;
    const begin = async () => {
      if (run.stop || sink.isEnded) return cancelled();
      sink.markStarted();
      const deadline = Date.now() + spec.timeoutMs;
      run.limit.setDeadline(deadline, spec.timeoutMs);
      run.timeoutMs = spec.timeoutMs;
      const { cut, ...parameters } = spec;
      const { session, timeoutMs, interactive } = spec;
      const call: StartCall = {
        type: "start",
        id: sink.id,
        variables: this.#link.variables.current,
        ...parameters,
      };
      const onSend = () => sink.keepState({ session, deadline, timeoutMs, cut, interactive });
      return run.follow(deadline, cut, { call, onSend }).catch((error: unknown) => {
        if (!run.mayHaveStarted) sink.keepState(undefined);
        throw error;
      });
    };
    const turn = this.#queue.run(spec.session, sink.id, begin, cancelled);
    return {
      done: run.limit.enforce(Promise.race([turn, run.withdrawn])),
      cancel: () => {
        this.#queue.withdraw(spec.session, sink.id);
        return run.end("cancelled");
      },
      type: spec.interactive ? (input) => run.type(input) : undefined,
      waiting: () => waitingFor(this.#queue.waitingFor(spec.session, sink.id), "session", spec.session),
    };
  }

  /** Resumes an earlier actor's command, after the output that the sink already has. */
  resume(sink: RunSink, state: unknown): Execution {
    const { session, deadline, timeoutMs, cut, interactive } = commandState.parse(state);
    const run = new RunningCommand(this.#link, sink);
    run.timeoutMs = timeoutMs;
    run.limit.setDeadline(deadline, timeoutMs);
    const done = this.#queue.run(session, sink.id, () => run.follow(deadline, cut));
    return {
      done: run.limit.enforce(done),
      cancel: () => run.end("cancelled"),
      type: interactive ? (input) => run.type(input) : undefined,
      deadline,
    };
  }
}

/** How a command is started. Until `onSend` is called, it has certainly not started. */
interface Start {
  call: StartCall;
  onSend: () => void;
}

class RunningCommand extends RunFollower {
  readonly limit = new Limit();
  readonly #withdrawn = Promise.withResolvers<End>();
  /** Settles when the request to start or follow the run was sent to sandboxd. */
  readonly #requested = Promise.withResolvers<void>();
  #start: Start | undefined;
  isStarted = false;
  #isRefused = false;
  stop: StopReason | undefined;
  timeoutMs = 0;

  get withdrawn(): Promise<End> {
    return this.#withdrawn.promise;
  }

  /** Whether the start call was sent and not refused. */
  get mayHaveStarted(): boolean {
    return this.wasRequested && !this.#isRefused;
  }

  /** Whether the start call will certainly not be sent: the command was cancelled before, for example while its container started. */
  get #isWithdrawn(): boolean {
    return this.stop === "cancelled" && this.#isUnsent;
  }

  get #isUnsent(): boolean {
    return !this.isStarted || (this.#start !== undefined && !this.wasRequested);
  }

  protected override get isOver(): boolean {
    return super.isOver || this.limit.isReached || this.#isWithdrawn;
  }

  /** Reports output until the command ends, and ends the command at its deadline. Starts the command if `start` is given. */
  async follow(deadline: number, cut: string | undefined, start?: Start): Promise<End> {
    this.isStarted = true;
    this.#start = start;
    const timeoutTimer = setTimeout(() => void this.#timeout(), Math.max(0, deadline - Date.now()));
    try {
      const outcome = await this.waitForOutcome();
      return outcome === undefined ? LOST_END : this.#endOf(outcome, cut, start !== undefined);
    } finally {
      clearTimeout(timeoutTimer);
    }
  }

  protected override async requestRun(): Promise<void> {
    const { connection } = this.link;
    const { id } = this.sink;
    const start = this.isKnown ? undefined : this.#start;
    const isOver = () => this.isOver;
    const [stdout, stderr] = [this.sink.position("stdout"), this.sink.position("stderr")];
    if (start === undefined) await connection.send({ type: "follow", id, stdout, stderr });
    else if (this.wasRequested) await connection.beginAgain(start.call, isOver);
    else await connection.begin(start.call, isOver, start.onSend);
    this.#requested.resolve();
    // The first signal may have been lost with the previous connection.
    if (this.stop) connection.sendIfOpen({ type: "kill", id, signal: "TERM" });
  }

  /** Resolves with the number of accepted bytes. @throws {ToolError} as `Connection.type` */
  type(input: TerminalInput): Promise<number> {
    const { id } = this.sink;
    const requested = withTimeout(RESPONSE_MS, this.#requested.promise);
    const typed = requested.then(() => this.link.connection.type(id, input));
    // After 2 * RESPONSE_MS, `typed` sends nothing. After one more, it has the number of what it has sent.
    const ended = this.sink.waitUntilEnded(4 * RESPONSE_MS).then(() => 0);
    return Promise.race([typed, ended]);
  }

  async #timeout(): Promise<void> {
    this.stop ??= "timed_out";
    // sandboxd confirms only that it has read the call. If the signal has no effect, the limit ends the run.
    await this.#kill().catch(() => undefined);
  }

  /** Ends the command early, with its processes. */
  async end(why: StopReason): Promise<void> {
    if (this.sink.isEnded) return;
    const before = this.stop;
    this.stop ??= why;
    if (this.#isWithdrawn) this.#withdrawn.resolve(CANCELLED_BEFORE_START);
    if (this.#isUnsent || before) return;
    this.limit.setCancelDeadline();
    await this.#kill();
  }

  async #kill(): Promise<void> {
    const { id } = this.sink;
    await this.link.connection.sendAndConfirm(RESPONSE_MS, { type: "kill", id, signal: "TERM" });
  }

  #endOf(outcome: FinalEvent, cut: string | undefined, isNew: boolean): End {
    if (outcome.type === "unknown" || outcome.type === "settled")
      return { state: "lost", note: isNew ? texts.REMOVED : texts.NEVER_RAN };
    if (outcome.type === "refused") {
      this.#isRefused = true;
      const { reason, message } = outcome;
      if (reason === "exhausted") throw exhausted();
      if (reason === "damaged") throw damaged(toVisibleJSON(message));
      if (reason === "ending") throw ending("The command was not started");
      if (reason === "no_directory") throw texts.noDirectory(message);
      if (reason === "no_terminal") throw texts.noTerminal(message);
      throw unwritable(message);
    }
    const { status: exitCode, timedOut, cut: isCut, noSpace, lost: isLost, cwd } = outcome;
    if (timedOut) this.stop ??= "timed_out";
    const missing = isCut ? [noSpace ? texts.OUTPUT_NO_SPACE : texts.OUTPUT_CUT] : [];
    const endWith = (state: End["state"], ...notes: string[]): End => ({
      state,
      exitCode,
      note: [...notes, ...missing].join(" ") || undefined,
      ...(cwd !== undefined && { detail: { ports: [], cwd } }),
    });
    if (this.stop === "timed_out") return endWith("timed_out", texts.timedOutText(this.timeoutMs, cut));
    if (this.stop === "cancelled") return endWith("cancelled", texts.CANCELLED_WITH_ALL);
    return endWith(exitCode === 0 ? "succeeded" : "failed", ...(isLost ? [texts.KEEPER_KILLED] : []));
  }
}

const LOST_END: End = { state: "lost", note: texts.REMOVED };
