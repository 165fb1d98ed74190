/**
 * A sandbox's set-up: a script that runs once, after the files are restored and before the first call. Its result is
 * part of the sandbox's state; if the result could not be saved, the next container runs the script again. A set-up is a run like
 * any other: it continues without its caller and after a restart of the actor. If it fails, calls still work, and every
 * result reports the failure, so that the caller can fix the script.
 */
import type { ActiveRun } from "../runs/active-run.ts";
import { joinBytes, clause, decodeText } from "../shared/text.ts";
import type { Executor } from "../runs/executor.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import { localID } from "../runs/id.ts";
import { type End, CANCELLED_BEFORE_START, type RunView, durationMs, waitingFor } from "../runs/run-types.ts";
import type { Gate, Runs } from "../runs/runs.ts";
import { ToolError } from "../shared/errors.ts";
import { CALL_MS, countdown, waitAtMost } from "../shared/timers.ts";
import { Waiters } from "../shared/waiters.ts";
import type { CheckpointSettings } from "./account-calls.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { KeepPlan, SetUpOutcomes } from "./set-up-outcomes.ts";
import type { SetUpSettings } from "./set-up-settings.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import type { Workspace } from "./workspace.ts";
import * as texts from "./texts.ts";

/** The session of set-ups. Callers cannot use this name. */
const SESSION = "_setup";
const MAX_SETUP_MS = 1_800_000;

/** If this many containers in a row ended during the set-up, the set-up is skipped, so that the sandbox stays usable. */
const MAX_LOST_CONTAINERS = 3;

/** How often a run that waits for the set-up checks whether it was cancelled, in milliseconds. */
const CHECK_MS = 1000;

/** How many times one call waits for the set-up if the container ends each time. */
const MAX_ATTEMPTS = 3;

/** How much of the end of a failed set-up's output is shown. */
const TAIL_BYTES = 600;

const RESULT_WAIT_MS = 600_000;

interface State {
  script: string;
  run?: string;
  /** Whether the current container has had its set-up, successful or not. */
  isDone: boolean;
  /** How many containers in a row ended during the set-up. */
  lost: number;
  failure?: string;
  /** The failure for callers who may not read: without the script's output. */
  failureWithoutOutput?: string;
  /** Whether other calls have used the container, or its start, and may have changed files. */
  isUsed?: boolean;
  /** The key of the outcome that the sandbox's files contain. */
  outcomeKey?: string | undefined;
  /** Whether the script of the run under way may have changed the workspace. */
  hasBegun?: boolean;
  keeping?: KeepPlan;
  restoredAt?: number;
}

/** Clears the fields about a run that has ended. */
const NO_RUN = { run: undefined, hasBegun: undefined, keeping: undefined, restoredAt: undefined };

interface SetUpHost {
  kv: KV;
  lifecycle: Pick<Lifecycle, "isAlive">;
  sandbox(): string;
  outcomes: Pick<SetUpOutcomes, "begin" | "keep" | "areKept">;
  workspace: Pick<Workspace, "save" | "noteChange" | "isHeld">;
  runs: Pick<Runs, "start" | "result" | "log" | "cancel">;
  commands: Executor<CommandSpec>;
  background(work: Promise<unknown>): void;
  report(error: unknown): void;
}

export const SETUP_STATES = ["none", "due", "running", "succeeded", "failed"] as const;
export type SetUpState = (typeof SETUP_STATES)[number];

export class SetUp {
  readonly #host: SetUpHost;
  readonly #stored: StoredValue<State>;
  #starting: Promise<void> | undefined;
  #underWay: Promise<void> | undefined;
  readonly #waiters = new Waiters();
  #notice: string | undefined;
  #containersGone = 0;
  /** Where runs wait for a set-up that is under way or due: their container may have ended after they began it. */
  readonly gate: Gate = {
    isOpen: () => this.#underWay === undefined && !this.#isDue,
    pass: async (run) => {
      await this.#untilDone(() => !run.isEnded);
      return undefined;
    },
    waiting: () => {
      const run = this.#state?.run;
      return waitingFor(run === undefined ? [] : [localID(run)], "setup", "");
    },
  };

  constructor(host: SetUpHost) {
    this.#host = host;
    this.#stored = new StoredValue(host.kv, "setup");
    this.#updateSaveHold();
  }

  /** Follows an earlier actor's set-up. Call it after that actor's runs are resumed. */
  resume(): void {
    if (this.#state?.run !== undefined) this.#follow(this.#state.run);
  }

  get #state(): State | undefined {
    return this.#stored.value;
  }

  get state(): SetUpState {
    const state = this.#state;
    if (!state) return "none";
    if (state.run !== undefined) return "running";
    if (state.failure !== undefined) return "failed";
    return state.isDone ? "succeeded" : "due";
  }

  /** Whether this script is set and has not failed. */
  has(script: string): boolean {
    const { state } = this;
    return state !== "none" && state !== "failed" && this.#state?.script === script;
  }

  put(script: string): void {
    const run = this.#state?.run;
    this.#put(
      script === "" ? undefined : { script, isDone: false, lost: 0, isUsed: this.#host.lifecycle.isAlive },
    );
    this.#notice = undefined;
    if (run !== undefined) this.#host.background(this.#host.runs.cancel(run, 0).catch(() => undefined));
  }

  onContainerEnd(): void {
    this.#containersGone++;
    if (this.#state?.isDone || this.#state?.isUsed)
      this.#put({ ...this.#state, isDone: false, isUsed: false });
  }

  get settings(): SetUpSettings | undefined {
    return this.#state && { script: this.#state.script, outcomeKey: this.#state.outcomeKey };
  }

  /** Sets the script of the checkpoint from which this sandbox is created. */
  inherit({ script, outcomeKey }: SetUpSettings): void {
    this.#put({ script, outcomeKey, isDone: false, lost: 0 });
  }

  /** The sandbox was restored to a checkpoint. @param settings the settings that are stored with the checkpoint */
  onRestore(settings: CheckpointSettings | undefined): void {
    const state = this.#state;
    const setup = settings?.setup;
    if (state)
      this.#put({ ...state, outcomeKey: setup?.script === state.script ? setup.outcomeKey : undefined });
  }

  forget(): void {
    if (this.#state) this.#put(undefined);
    this.#notice = undefined;
  }

  /** Starts the set-up if it is due. Resolves when its run has an id. @throws the reason if it cannot run */
  async begin(): Promise<void> {
    while (this.#isDue) {
      this.#starting ??= this.#start().finally(() => (this.#starting = undefined));
      await this.#starting;
    }
  }

  get #isDue(): boolean {
    const state = this.#state;
    return (
      state !== undefined && !state.isDone && state.run === undefined && state.lost < MAX_LOST_CONTAINERS
    );
  }

  async #start(): Promise<void> {
    const state = this.#state;
    if (!state) return;
    // An earlier attempt may have failed before its run had an id. This removes the fields that the attempt stored.
    this.#put({ ...state, ...NO_RUN });
    const { id } = await this.#run(state.script);
    // Another script was set, or the sandbox destroyed, meanwhile.
    if (this.#state?.script !== state.script)
      return void (await this.#host.runs.cancel(id, 0).catch(() => undefined));
    this.#put({ ...this.#state, run: id, failure: undefined, failureWithoutOutput: undefined });
    this.#follow(id);
  }

  /** Starts the script, or restores its stored outcome. @throws the reason if it cannot run */
  #run(script: string): Promise<RunView> {
    const { runs, commands } = this.#host;
    const pass = async (run: ActiveRun) => (await this.#restoreOutcome(run)) ?? (await this.#saveFirst(run));
    const gate: Gate = { isOpen: () => false, pass };
    // `set -e` ends the script at its first failing step. Without it, a later step could hide the failure.
    const command = `set -e\n${script}`;
    const spec = { command, session: SESSION, cwd: "/workspace", timeoutMs: MAX_SETUP_MS };
    return runs.start(commands, script, spec, { waitUntil: 0, namesID: true, gate });
  }

  async #restoreOutcome(run: ActiveRun): Promise<End | undefined> {
    const state = this.#state;
    if (!state) return undefined;
    const { script, outcomeKey, isUsed } = state;
    const outcome = await this.#host.outcomes.begin(script, outcomeKey, isUsed, () => run.isEnded);
    // Another script was set, or the sandbox destroyed, meanwhile.
    if (this.#state?.script !== script || run.isEnded) return CANCELLED_BEFORE_START;
    if (!outcome) return undefined;
    if (!("savedAt" in outcome)) {
      this.#put({ ...this.#state, keeping: outcome });
      return undefined;
    }
    const { key, savedAt } = outcome;
    this.#put({ ...this.#state, outcomeKey: key, restoredAt: savedAt });
    return { state: "succeeded", note: texts.setUpRestoredText(savedAt) };
  }

  /** Saves the workspace before the script runs. Until the script has ended, no later state is saved. */
  async #saveFirst(run: ActiveRun): Promise<End | undefined> {
    const state = this.#state;
    // A failed save is retried later, and reported.
    await this.#host.workspace.save().catch(() => undefined);
    if (this.#state?.script !== state?.script || !this.#state || run.isEnded) return CANCELLED_BEFORE_START;
    this.#put({ ...this.#state, hasBegun: true });
    return undefined;
  }

  #follow(id: string): void {
    const end = this.#end(id).finally(() => {
      if (this.#underWay === end) this.#underWay = undefined;
      this.#waiters.wakeAll();
    });
    this.#underWay = end;
    this.#host.background(end);
  }

  async #end(id: string): Promise<void> {
    const containersGone = this.#containersGone;
    const run = await this.#waitForEnd(id).catch(() => undefined);
    const tail = run && isFailure(run) ? await this.#tail(run).catch(() => undefined) : undefined;
    const success =
      run?.state === "succeeded" && this.#state?.run === id
        ? await this.#keepOutcome(run, this.#state)
        : undefined;
    const state = this.#state;
    // Another script was set, or the sandbox destroyed, meanwhile.
    if (state?.run !== id) return;
    const isSameContainer = containersGone === this.#containersGone;
    if (!isSameContainer && success)
      return this.#put({ ...state, ...NO_RUN, outcomeKey: success.outcomeKey });
    const lost = run?.state === "lost" ? state.lost + 1 : 0;
    // If no container could start, or the container is gone, the next call runs the set-up again.
    const isDone = success !== undefined || (run !== undefined && isFailure(run));
    const failureWith = (output?: string) =>
      run && isFailure(run)
        ? texts.setUpFailedText(run, output)
        : lost >= MAX_LOST_CONTAINERS
          ? texts.setUpSkippedText(MAX_LOST_CONTAINERS)
          : undefined;
    const failure = failureWith(tail && decodeText(tail, "start").trim());
    const failureWithoutOutput = failureWith();
    // If the container stays, the next script finds the files that this script has left.
    const isUsed = state.isUsed || (isSameContainer && run?.state === "lost" && state.hasBegun);
    const { outcomeKey } = success ?? {};
    this.#put({ ...state, ...NO_RUN, isDone, isUsed, lost, failure, failureWithoutOutput, outcomeKey });
    this.#host.workspace.noteChange();
    if (success) this.#notice = success.message;
  }

  /** Keeps the script's outcome before anything else changes the files. Returns its key, and a message. */
  async #keepOutcome(run: RunView, state: State): Promise<Pick<State, "outcomeKey"> & { message: string }> {
    const { keeping, restoredAt, outcomeKey } = state;
    if (restoredAt !== undefined) return { outcomeKey, message: texts.setUpRestoredText(restoredAt) };
    const { outcomes, report } = this.#host;
    const seconds = Math.round(durationMs(run) / 1000);
    const message = texts.setUpRanText(run.id, seconds);
    if (!outcomes.areKept) return { message };
    try {
      if (!keeping) throw new Error("its result was not prepared for saving");
      await outcomes.keep(keeping);
      return { outcomeKey: keeping.key, message };
    } catch (error) {
      if (!(error instanceof ToolError)) report(error);
      const why = error instanceof ToolError ? clause(error.message) : undefined;
      return { message: `${message} ${texts.setUpNotSavedText(why)}` };
    }
  }

  async #tail({ id, logBytes }: RunView): Promise<Uint8Array> {
    const { pieces } = await this.#host.runs.log(id, Math.max(0, logBytes - TAIL_BYTES), TAIL_BYTES);
    return joinBytes(pieces.map(({ bytes }) => bytes));
  }

  async #waitForEnd(id: string): Promise<RunView> {
    for (;;) {
      const run = await this.#host.runs.result(id, RESULT_WAIT_MS);
      if (run.state !== "running") return run;
    }
  }

  /**
   * Waits for the set-up before work that is not a run. Runs wait at `gate`.
   * @param mayBegin whether to start it if it is due
   * @throws {ToolError} after the time limit; the reason if it cannot run
   */
  async waitUntilDone({ ms = CALL_MS, mayBegin = true }): Promise<void> {
    if (mayBegin) await this.begin();
    const leftMs = countdown(ms);
    // Not by the set-up's promise: a call that has waited for it would stay in memory until the set-up ends.
    await this.#waiters.until(() => !this.#underWay, ms);
    let mayWait = mayBegin;
    if (!this.#underWay) {
      const done = this.#untilDone(() => mayWait).then(() => true);
      if (await waitAtMost(leftMs(), done)) return;
      mayWait = false;
      this.#host.background(done.catch(() => undefined));
    }
    throw texts.stillSettingUp(this.#host.sandbox(), this.#state?.run, ms);
  }

  /** Waits for the set-up while `mayWait` allows. If its container ended, repeats it. */
  async #untilDone(mayWait: () => boolean): Promise<void> {
    for (let begun = 1; ; begun++) {
      // Not for the set-up's promise, which would keep the input of a cancelled run until the set-up ends.
      while (this.#underWay && mayWait()) await this.#waiters.wait(CHECK_MS);
      if (!this.#isDue || begun === MAX_ATTEMPTS || !mayWait()) return;
      await this.begin();
    }
  }

  /** @param mayRead whether the caller may see what the script printed: a failing program may print parts of files */
  takeNotice(mayRead: boolean): string | undefined {
    const notice = this.#notice;
    this.#notice = undefined;
    const { failure, failureWithoutOutput } = this.#state ?? {};
    return (mayRead ? failure : failureWithoutOutput) ?? notice;
  }

  /** While the script may have made only a part of its changes, nothing is saved. */
  #updateSaveHold(): void {
    this.#host.workspace.isHeld = this.#state?.run !== undefined && this.#state.hasBegun === true;
  }

  #put(state: State | undefined): void {
    this.#stored.value = state;
    this.#updateSaveHold();
  }
}

/** Whether a set-up ran and failed. A platform failure has no exit code. */
function isFailure({ state, exitCode }: RunView): boolean {
  return state === "timed_out" || state === "cancelled" || (state === "failed" && exitCode !== undefined);
}
