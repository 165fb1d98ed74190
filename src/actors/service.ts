/**
 * The service of a sandbox: a script that runs in the background of each container after the workspace is restored. A loop in the
 * sandbox restarts the script when it ends, with a growing pause. So a script that always crashes has only one run per container.
 * The run is a background process: it does not prevent an idle stop, and does not count in the quota of runs.
 */
import { DAY_MS } from "../shared/days.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import { SERVICE_SESSION } from "../runs/command-executor.ts";
import type { Executor } from "../runs/executor.ts";
import { localID } from "../runs/id.ts";
import type { RunRecord } from "../runs/run-store.ts";
import { CANCELLED_BEFORE_START } from "../runs/run-types.ts";
import type { Gate, Runs } from "../runs/runs.ts";
import { quote } from "../shared/text.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { SetUp } from "./set-up.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import { SERVICE_ENDED, serviceRestarted } from "./texts.ts";

/** How long one run may take. Below 24 days, the longest delay of `setTimeout`. */
const MAX_SERVICE_MS = 20 * DAY_MS;

const MAX_RECORDS = 3;

/** How long a new script waits until the old one has ended. Both may need the same port. */
const MAX_CANCEL_MS = 30_000;

/** The pause before a restart, in seconds. It doubles each time, unless the service ran for at least `STABLE_S`. */
const FIRST_PAUSE_S = 1;
const MAX_PAUSE_S = 300;
const STABLE_S = 60;

interface State {
  /** Empty after the service was removed. `runs` still has the ids of its runs, so that old records can be deleted. */
  script: string;
  runs: string[];
  /** Whether the newest run belongs to an earlier script, so that its end is no cancellation of the current one. */
  isReplaced?: boolean;
  /** Whether the service was cancelled. If so, it stays stopped in this container. */
  isCancelled?: boolean;
}

export const SERVICE_STATES = ["none", "stopped", "running"] as const;
export type ServiceState = (typeof SERVICE_STATES)[number];

interface ServiceHost {
  kv: KV;
  lifecycle: Pick<Lifecycle, "container">;
  runs: Pick<Runs, "start" | "cancel" | "remove" | "isRunning">;
  commands: Executor<CommandSpec>;
  setUp: Pick<SetUp, "begin" | "gate">;
  background(work: Promise<unknown>): void;
  report(error: unknown): void;
}

export class Service {
  readonly #host: ServiceHost;
  readonly #stored: StoredValue<State>;
  #notice: string | undefined;
  /** Counts changes. A start that began before a change is obsolete. */
  #changeCount = 0;
  #pauseS = FIRST_PAUSE_S;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #startedAt = 0;

  constructor(host: ServiceHost) {
    this.#host = host;
    this.#stored = new StoredValue(host.kv, "service");
  }

  get #state(): State | undefined {
    return this.#stored.value;
  }

  get #run(): string | undefined {
    return this.#state?.isReplaced ? undefined : this.#state?.runs.at(-1);
  }

  get #isRunning(): boolean {
    return this.#run !== undefined && this.#host.runs.isRunning(localID(this.#run));
  }

  get script(): string | undefined {
    return this.#state?.script || undefined;
  }

  get state(): { state: ServiceState; run?: string | undefined } {
    if (this.script === undefined) return { state: "none" };
    return { state: this.#isRunning ? "running" : "stopped", run: this.#run };
  }

  /** Sets the script and, if a container runs, starts it there. A blank script ends the service. */
  put(given: string): void {
    const script = given.trim() === "" ? "" : given;
    if (this.script === script && this.#isRunning) return;
    const runs = this.#state?.runs ?? [];
    this.#stored.value = script === "" && runs.length === 0 ? undefined : { script, runs, isReplaced: true };
    this.#reset();
    const last = runs.at(-1);
    if (last === undefined || !this.#host.runs.isRunning(localID(last))) return this.#startIfDue();
    this.#host.background(
      this.#host.runs
        .cancel(last, MAX_CANCEL_MS)
        .catch(() => undefined)
        .then(() => this.#startIfDue()),
    );
  }

  onContainerReady(): void {
    this.#startIfDue();
  }

  /** Starts the service if it is not running and a container has its workspace. */
  #startIfDue(): void {
    const isWanted = this.script !== undefined && !this.#isRunning && !this.#state?.isCancelled;
    if (!isWanted || !this.#host.lifecycle.container) return;
    const changeCount = ++this.#changeCount;
    this.#host.background(
      this.#start(changeCount).catch((error: unknown) => {
        if (changeCount !== this.#changeCount) return;
        this.#host.report(error);
        // However long it took, a start that failed is not a run: otherwise it would be repeated each second.
        this.#startedAt = Date.now();
        this.#restart();
      }),
    );
  }

  onContainerEnd(): void {
    this.#reset();
  }

  /** Makes a start under way obsolete, and lets the next start happen at once. */
  #reset(): void {
    this.#changeCount++;
    clearTimeout(this.#timer);
    this.#pauseS = FIRST_PAUSE_S;
    if (this.#state?.isCancelled) this.#stored.value = { ...this.#state, isCancelled: false };
  }

  /** Starts the service again if its run ended unexpectedly, for example because something killed the loop. */
  onRunEnd({ id, state }: Pick<RunRecord, "id" | "state">): void {
    if (!this.#state || id !== this.#run || state === "lost") return;
    if (state === "cancelled") this.#stored.value = { ...this.#state, isCancelled: true };
    else this.#restart();
  }

  inherit(script: string): void {
    this.#stored.value = { script, runs: [] };
  }

  forget(): void {
    this.#reset();
    this.#stored.value = undefined;
    this.#notice = undefined;
  }

  takeNotice(): string | undefined {
    const notice = this.#notice;
    this.#notice = undefined;
    return notice;
  }

  async #start(changeCount: number): Promise<void> {
    const { setUp, runs, commands } = this.#host;
    await setUp.begin();
    const { script } = this;
    // The service does not start a container. If it did, the sandbox would never stop.
    if (changeCount !== this.#changeCount || script === undefined || !this.#host.lifecycle.container) return;
    const spec = {
      command: loop(script),
      session: SERVICE_SESSION,
      cwd: "/workspace",
      timeoutMs: MAX_SERVICE_MS,
    };
    const isObsolete = () => changeCount !== this.#changeCount;
    const end = () => (isObsolete() ? CANCELLED_BEFORE_START : undefined);
    // The container may end before the run begins.
    const gate: Gate = {
      ...setUp.gate,
      isOpen: () => setUp.gate.isOpen() && !isObsolete(),
      pass: async (run) => end() ?? (await setUp.gate.pass(run)) ?? end(),
    };
    const { id } = await runs.start(commands, script, spec, {
      waitUntil: 0,
      namesID: true,
      isService: true,
      gate,
    });
    if (isObsolete() || !this.#state) {
      await runs.cancel(id, MAX_CANCEL_MS).catch(() => undefined);
      return void (await runs.remove(id).catch(() => undefined));
    }
    if (this.#run !== undefined) this.#notice = serviceRestarted(id);
    this.#startedAt = Date.now();
    const allRuns = [...this.#state.runs, id];
    this.#stored.value = { ...this.#state, runs: allRuns.slice(-MAX_RECORDS), isReplaced: false };
    for (const old of allRuns.slice(0, -MAX_RECORDS)) await runs.remove(old).catch(() => undefined);
  }

  #restart(): void {
    if (Date.now() - this.#startedAt > STABLE_S * 1000) this.#pauseS = FIRST_PAUSE_S;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#startIfDue(), this.#pauseS * 1000);
    this.#pauseS = Math.min(MAX_PAUSE_S, this.#pauseS * 2);
  }
}

function loop(script: string): string {
  return `pause=${FIRST_PAUSE_S}
while :; do
  since=$SECONDS
  bash -c ${quote(script)}
  code=$?
  if ((SECONDS - since >= ${STABLE_S})); then pause=${FIRST_PAUSE_S}; fi
  echo "${SERVICE_ENDED}" >&2
  sleep "$pause"
  pause=$((pause * 2 > ${MAX_PAUSE_S} ? ${MAX_PAUSE_S} : pause * 2))
done`;
}
