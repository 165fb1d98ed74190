/**
 * The set-up of a sandbox: a script that runs in each new container before anything else does, as a run of its own. What
 * is called meanwhile waits behind it; how it ended is told by the next result, and keeps nothing from running.
 */
import type { Execution, RunView } from "../runs/run.ts";
import { waitingFor } from "../runs/run.ts";
import { shownText } from "../runs/output.ts";
import type { ActiveRun } from "../runs/active-run.ts";
import type { Executor } from "../runs/executor.ts";
import type { Allowance, End } from "../runs/run.ts";
import { localID } from "../runs/id.ts";

/** The session of set-ups. Its name is not a valid name of a caller's session. */
export const SETUP_SESSION = "_setup";

/** Storage key. */
const KEY = "setup";

/** Containers in a row that may end with their set-up before it is left out: it would keep everything else from running. */
const MOST_LOST = 2;

/** Characters shown of the end of a failed set-up's output. */
const TAIL_CHARS = 1000;

/** How long one wait for the end of a set-up is, milliseconds. */
const WAIT_MS = 600_000;

export interface SetUpScript {
  script: string;
  timeoutMs: number;
}

interface State extends SetUpScript {
  /** The container in which it ran, by the count of starts, and its run there. */
  boot?: number;
  run?: string;
  /** Containers in a row that have ended with it. */
  lost: number;
}

export interface SetUpHost {
  kv: SyncKvStorage;
  /** Whether there is a container, and how many were started so far. */
  running(): boolean;
  boot(): number;
  /** Starts the script as a run; answers it as soon as it has started. */
  start(script: SetUpScript): Promise<RunView>;
  /** A run after waiting up to so many milliseconds for its end. */
  result(id: string, waitMs: number): Promise<RunView>;
}

export class SetUp {
  readonly #host: SetUpHost;
  #state: State | undefined;
  /** The set-up under way: settles with its end. */
  #underWay: Promise<void> | undefined;
  #notice: string | undefined;

  constructor(host: SetUpHost) {
    this.#host = host;
    this.#state = host.kv.get<State>(KEY);
    // An earlier actor has started it, and its run is resumed here.
    if (this.#state?.run !== undefined && this.#state.boot === undefined) this.#follow(this.#state.run);
  }

  /** Takes another script, which runs with the next call; undefined removes it. */
  put(setUp: SetUpScript | undefined): void {
    this.#put(setUp && { ...setUp, lost: 0 });
  }

  /** Starts the set-up where this container has not had it. Resolves when it has started. @throws why it could not */
  async begin(): Promise<void> {
    const { running, boot, start } = this.#host;
    const state = this.#state;
    if (!state || this.#underWay || state.lost >= MOST_LOST) return;
    if (running() && state.boot === boot()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#underWay = promise;
    try {
      const { id } = await start(state);
      this.#put({ ...state, boot: undefined, run: id });
      this.#follow(id);
    } catch (error) {
      this.#underWay = undefined;
      throw error;
    } finally {
      resolve();
    }
  }

  #follow(id: string): void {
    this.#underWay = this.#end(id).finally(() => (this.#underWay = undefined));
  }

  async #end(id: string): Promise<void> {
    let run = await this.#host.result(id, WAIT_MS);
    while (run.state === "running") run = await this.#host.result(id, WAIT_MS);
    const state = this.#state;
    // Another script was given meanwhile.
    if (state?.run !== id) return;
    const lost = run.state === "lost" ? state.lost + 1 : 0;
    this.#put({ ...state, boot: this.#host.boot(), lost });
    if (run.state !== "succeeded") this.#notice = noticeOf(run, lost);
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
    const id = this.#state?.run;
    const turn = (this.#underWay ?? Promise.resolve())
      .catch(() => undefined)
      .then(() => {
        if (run.ended) return NEVER_STARTED;
        execution = executor.start(run, spec);
        return execution.done;
      });
    return {
      done: Promise.race([turn, withdrawn]),
      cancel: async () => (execution ? execution.cancel() : withdraw(NEVER_STARTED)),
      type: spec.interactive ? async (text) => (await execution?.type?.(text)) ?? 0 : undefined,
      waiting: () =>
        execution ? execution.waiting?.() : waitingFor(id === undefined ? [] : [localID(id)], "setup", ""),
    };
  }

  takeNotice(): string | undefined {
    const notice = this.#notice;
    this.#notice = undefined;
    return notice;
  }

  /** The sandbox was destroyed. */
  forget(): void {
    this.#put(undefined);
    this.#notice = undefined;
  }

  #put(state: State | undefined): void {
    this.#state = state;
    if (state) this.#host.kv.put(KEY, state);
    else this.#host.kv.delete(KEY);
  }
}

const NEVER_STARTED: End = { state: "cancelled", note: "It was cancelled before it started." };

function noticeOf(run: RunView, lost: number): string {
  const how = run.exitCode === undefined ? run.state : `${run.state}, exit code ${run.exitCode}`;
  const end = `${shownText(run.stdout)}\n${shownText(run.stderr)}`.trim().slice(-TAIL_CHARS).toWellFormed();
  const again = lost >= MOST_LOST ? " It is left out until configure_sandbox gives it again." : "";
  return `The set-up of this sandbox did not succeed (${how}); get_result with id ${run.id} has its output, which ends: ${end || "(nothing)"}.${again}`;
}
