/**
 * The set-up of a sandbox: a script that runs once in each new container, after the workspace is back and before what was
 * called. It is a run like any other, which outlives its caller and the actor. How it ended keeps nothing from running: a
 * failure is told by every answer, so that it can be looked into and mended.
 */
import type { ActiveRun } from "../runs/active-run.ts";
import type { Executor } from "../runs/executor.ts";
import { localID } from "../runs/id.ts";
import { lenient } from "../runs/output.ts";
import {
  type Allowance,
  type End,
  type Execution,
  type RunView,
  durationMs,
  waitingFor,
} from "../runs/run.ts";
import { ToolError } from "../shared/errors.ts";
import { within } from "../shared/within.ts";

/** Storage key. */
const KEY = "setup";

/** Containers in a row that may end during their set-up before it is left out, so that a script cannot keep a sandbox from use. */
const MOST_LOST = 3;

/** Bytes shown of the end of a failed set-up's output. */
const TAIL_BYTES = 600;

/** How long one wait for the end of a set-up is, milliseconds. */
const WAIT_MS = 600_000;

/** How long a call that is no run waits for the set-up, milliseconds: many clients give up after 60 seconds. */
const CALL_MS = 40_000;

interface State {
  script: string;
  /** The run under way, by its whole id. */
  run?: string;
  /** Whether the container that runs has had its set-up, as good or bad as it went. */
  isDone: boolean;
  /** Containers in a row that have ended during it. */
  lost: number;
  /** What every answer says of a set-up that did not succeed. */
  failure?: string;
}

export interface SetUpHost {
  kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  running(): boolean;
  /** The sandbox's name. */
  sandbox(): string;
  /** Starts the script as a run, and answers it without waiting for its end. @throws what keeps it from running */
  start(script: string): Promise<RunView>;
  /** A run, after waiting up to so many milliseconds for its end. */
  result(id: string, waitMs: number): Promise<RunView>;
  /** The last bytes of what a run has printed, at most so many. */
  tail(run: RunView, bytes: number): Promise<Uint8Array>;
  cancel(id: string): Promise<unknown>;
  background(work: Promise<unknown>): void;
}

/** What a sandbox has of a set-up. */
export const SETUP_STATES = ["none", "due", "running", "succeeded", "failed"] as const;
export type SetUpState = (typeof SETUP_STATES)[number];

export class SetUp {
  readonly #host: SetUpHost;
  #state: State | undefined;
  #starting: Promise<void> | undefined;
  /** Settles with the end of the run under way. */
  #underWay: Promise<void> | undefined;
  #notice: string | undefined;

  /** To be made after the runs of an earlier actor are resumed. */
  constructor(host: SetUpHost) {
    this.#host = host;
    this.#state = host.kv.get<State>(KEY);
    if (!host.running()) this.containerGone();
    if (this.#state?.run !== undefined) this.#follow(this.#state.run);
  }

  get state(): SetUpState {
    const state = this.#state;
    if (!state) return "none";
    if (state.run !== undefined) return "running";
    if (state.failure !== undefined) return "failed";
    return state.isDone ? "succeeded" : "due";
  }

  /** Whether this script is set and need not run again in the container that runs. */
  has(script: string): boolean {
    const { state } = this;
    return state !== "none" && state !== "failed" && this.#state?.script === script;
  }

  /** Sets the script, which runs before the next call. An empty one removes it. One that is under way is cancelled. */
  put(script: string): void {
    const run = this.#state?.run;
    this.#put(script === "" ? undefined : { script, isDone: false, lost: 0 });
    this.#notice = undefined;
    if (run !== undefined) this.#host.background(this.#host.cancel(run).catch(() => undefined));
  }

  /** A container is about to start, or has gone. */
  containerGone(): void {
    if (this.#state?.isDone) this.#put({ ...this.#state, isDone: false });
  }

  /** The sandbox was destroyed. */
  forget(): void {
    if (this.#state) this.#put(undefined);
    this.#notice = undefined;
  }

  /** Starts the set-up where the container has not had it. Resolves when it has an id. @throws what keeps it from running */
  async begin(): Promise<void> {
    while (this.#isDue) {
      this.#starting ??= this.#start().finally(() => (this.#starting = undefined));
      await this.#starting;
    }
  }

  get #isDue(): boolean {
    const state = this.#state;
    return state !== undefined && !state.isDone && state.run === undefined && state.lost < MOST_LOST;
  }

  async #start(): Promise<void> {
    const state = this.#state;
    if (!state) return;
    const { id } = await this.#host.start(state.script);
    // Another script was set, or the sandbox destroyed, meanwhile.
    if (this.#state?.script !== state.script)
      return void (await this.#host.cancel(id).catch(() => undefined));
    this.#put({ ...this.#state, run: id, failure: undefined });
    this.#follow(id);
  }

  #follow(id: string): void {
    const end = this.#end(id).finally(() => {
      if (this.#underWay === end) this.#underWay = undefined;
    });
    this.#underWay = end;
    this.#host.background(end);
  }

  async #end(id: string): Promise<void> {
    const run = await this.#ended(id).catch(() => undefined);
    const tail =
      run && isFailure(run) ? await this.#host.tail(run, TAIL_BYTES).catch(() => undefined) : undefined;
    const state = this.#state;
    // Another script was set, or the sandbox destroyed, meanwhile.
    if (state?.run !== id) return;
    const lost = run?.state === "lost" ? state.lost + 1 : 0;
    // Where no container could be started or it has gone, the next call tries again.
    const isDone = run !== undefined && (run.state === "succeeded" || isFailure(run));
    const failure =
      isDone && isFailure(run) ? failureWords(run, tail) : lost >= MOST_LOST ? LEFT_OUT : undefined;
    this.#put({ ...state, run: undefined, isDone, lost, failure });
    if (run?.state === "succeeded")
      this.#notice = `The sandbox was set up by its script first (${Math.round(durationMs(run) / 1000)} s; get_result with id ${id} has its output).`;
  }

  async #ended(id: string): Promise<RunView> {
    for (;;) {
      const run = await this.#host.result(id, WAIT_MS);
      if (run.state !== "running") return run;
    }
  }

  /** Waits for the end of a set-up that is under way, for work that is no run. @throws {ToolError} when that takes too long */
  async over(): Promise<void> {
    const isOver = async () => {
      while (this.#underWay) await this.#underWay;
      return true;
    };
    if (!(await within(CALL_MS, isOver()))) throw stillSettingUp(this.#host.sandbox(), this.#state?.run);
  }

  /** The executor, whose runs wait for the set-up that is under way when they start. */
  before<Spec extends Allowance & { interactive?: boolean }>(executor: Executor<Spec>): Executor<Spec> {
    return {
      kind: executor.kind,
      resume: (run, state) => executor.resume(run, state),
      start: (run, spec) => (this.#underWay ? this.#behind(executor, run, spec) : executor.start(run, spec)),
    };
  }

  #behind<Spec extends Allowance & { interactive?: boolean }>(
    executor: Executor<Spec>,
    run: ActiveRun,
    spec: Spec,
  ): Execution {
    let execution: Execution | undefined;
    const { promise: withdrawn, resolve: withdraw } = Promise.withResolvers<End>();
    let isWithdrawn = false;
    const turn = async (): Promise<End> => {
      while (this.#underWay) await this.#underWay;
      if (isWithdrawn || run.ended) return NEVER_STARTED;
      execution = executor.start(run, spec);
      return await execution.done;
    };
    return {
      done: Promise.race([turn(), withdrawn]),
      cancel: async () => {
        if (execution) return await execution.cancel();
        isWithdrawn = true;
        withdraw(NEVER_STARTED);
      },
      type: spec.interactive ? async (text) => (await execution?.type?.(text)) ?? 0 : undefined,
      waiting: () => (execution ? execution.waiting?.() : waitingFor(this.#runID(), "setup", "")),
    };
  }

  #runID(): string[] {
    const run = this.#state?.run;
    return run === undefined ? [] : [localID(run)];
  }

  /** What the next result must say of the set-up: of a failure every one. */
  takeNotice(): string | undefined {
    const notice = this.#notice;
    this.#notice = undefined;
    return this.#state?.failure ?? notice;
  }

  #put(state: State | undefined): void {
    this.#state = state;
    if (state) this.#host.kv.put(KEY, state);
    else this.#host.kv.delete(KEY);
  }
}

const NEVER_STARTED: End = { state: "cancelled", note: "It was cancelled before it started." };

const LEFT_OUT = `The set-up of this sandbox is left out, because the sandbox ended during it ${MOST_LOST} times in a row; list_runs shows when. configure_sandbox with setup sets it anew.`;

/** Whether a set-up has run and did not succeed. A failure of the platform has no exit code. */
function isFailure({ state, exitCode }: RunView): boolean {
  return state === "timed_out" || state === "cancelled" || (state === "failed" && exitCode !== undefined);
}

const FAILED = {
  failed: "failed",
  timed_out: "took too long and was stopped",
  cancelled: "was cancelled",
} as const;

function failureWords({ id, state, exitCode }: RunView, tail: Uint8Array | undefined): string {
  const how = FAILED[state as keyof typeof FAILED];
  const code = state === "failed" ? ` with exit code ${exitCode}` : "";
  const end = tail && lenient(tail).trim();
  return `The set-up of this sandbox ${how}${code}: calls go on without it, until configure_sandbox sets it anew. get_result with id ${id} has its output${end ? `, which ends:\n${end}` : "."}`;
}

function stillSettingUp(sandbox: string, run: string | undefined): ToolError {
  return new ToolError(
    "no_answer",
    `The set-up of sandbox ${sandbox} is still running, for longer than ${CALL_MS / 1000} s. This call was not begun.`,
    `${run === undefined ? "Wait 10 seconds" : `Wait for it with get_result, id ${run}`}, then make the same call again.`,
    true,
  );
}
