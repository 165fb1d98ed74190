/**
 * Deletes the files of ended runs in the sandbox, in batches. Reports the stored bytes to the account, which counts all sandboxes
 * of a principal and deletes expired runs.
 */
import type { Connection } from "../container/connection.ts";
import { localID } from "../runs/id.ts";
import type { RunRecord, Stored } from "../runs/run-store.ts";
import type { Runs } from "../runs/runs.ts";
import type { RunView } from "../runs/run-types.ts";
import type { TaskBudgets } from "../tasks/budget.ts";
import { type TaskEntry, taskEntry } from "../tasks/task-list.ts";
import type { Owner } from "./account-calls.ts";
import { type AccountLink, ENDED_TASK } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import { pause } from "../shared/timers.ts";
import type { KV } from "./stored-value.ts";

/**
 * One call to sandboxd deletes the files of CLEAN_BATCH ended runs, of runs with more than CLEAN_BYTES of output, or of a task.
 * Until then, their output counts in sandboxd's window (SHARED_WINDOW_BYTES).
 */
const CLEAN_BATCH = 16;
const CLEAN_BYTES = 1024 * 1024;

/** The delay of a report to the account after a change, and its interval during runs. */
const REPORT_MS = 5000;

/** How often an actor tries to destroy a task's sandbox, and the pause between two attempts. The next actor tries again. */
const DESTROY_ATTEMPTS = 3;
const DESTROY_RETRY_MS = 5000;

interface RunRecordsHost {
  connection: Pick<Connection, "send">;
  runs: Pick<Runs, "hasStored" | "measureStored" | "hasActive" | "isFull">;
  platform: Pick<ContainerPlatform, "isRunning">;
  /** Reports the stored bytes to the account. Returns whether storage is still full after evictions. */
  reportStored(stored: Stored): Promise<boolean>;
  background(work: Promise<unknown>): void;
}

export class RunRecords {
  readonly #host: RunRecordsHost;
  #toClean: string[] = [];
  #bytesToClean = 0;
  #isReportDue = false;
  #reported: Stored = { bytes: -1 };

  constructor(host: RunRecordsHost) {
    this.#host = host;
    // The last report of an earlier actor may be missing.
    if (host.runs.hasStored) this.onRunsChange();
  }

  onRunEnd(run: RunRecord, hasFiles: boolean): void {
    const { platform, connection, background } = this.#host;
    if (hasFiles && platform.isRunning) {
      this.#toClean.push(localID(run.id));
      this.#bytesToClean += run.output.stdout.bytes + run.output.stderr.bytes;
      const isLarge = run.kind === "task" || this.#bytesToClean > CLEAN_BYTES;
      if (this.#toClean.length >= CLEAN_BATCH || isLarge) {
        const ids = this.#toClean.splice(0);
        this.#bytesToClean = 0;
        background(connection.send({ type: "forget", ids }).catch(() => undefined));
      }
    }
  }

  /** The container's files are gone, so none are left to delete. */
  onContainerEnd(): void {
    this.#toClean = [];
    this.#bytesToClean = 0;
  }

  onRunsChange(): void {
    if (this.#isReportDue) return;
    this.#isReportDue = true;
    setTimeout(() => {
      this.#isReportDue = false;
      this.#host.background(this.#report().catch(() => this.onRunsChange()));
      // The logs of running runs grow, so their size is reported again.
      if (this.#host.runs.hasActive) this.onRunsChange();
    }, REPORT_MS);
  }

  async #report(): Promise<void> {
    const { runs, reportStored } = this.#host;
    const stored = runs.measureStored();
    // After the account has had all runs deleted, a new one may store as much as they did.
    if (stored.bytes === this.#reported.bytes && stored.oldest === this.#reported.oldest) return;
    runs.isFull = await reportStored(stored);
    this.#reported = stored;
  }
}

interface TaskRecordsHost {
  kv: KV;
  account: AccountLink;
  platform: Pick<ContainerPlatform, "isRunning">;
  lifecycle: Pick<Lifecycle, "destroy">;
  budgets: TaskBudgets;
  background(work: Promise<unknown>): void;
}

/** A task whose sandbox is being destroyed. */
interface EndedTask extends TaskEntry {
  /** Whether the sandbox stays if it was saved: it has the files of the lost task. */
  isKeptIfSaved?: boolean;
}

/**
 * Reports tasks to the account. Destroys a sandbox made for a task once the task's results are stored elsewhere, or are lost with a
 * container that was never saved.
 */
export class TaskRecords {
  readonly #host: TaskRecordsHost;
  readonly #interrupted: EndedTask | undefined;

  constructor(host: TaskRecordsHost) {
    this.#host = host;
    this.#interrupted = host.kv.get<EndedTask>(ENDED_TASK);
  }

  /** Destroys a sandbox that an earlier actor did not destroy any more. Call it before calls can use the sandbox. */
  resume(): void {
    if (this.#interrupted) this.#destroySandbox(this.#interrupted);
  }

  /** Never rejects, because the task runs, and its caller needs its id. The entry of its end replaces a missing one. */
  async recordStart(owner: Owner, run: RunView): Promise<void> {
    const { account, background } = this.#host;
    const recorded = account.account(owner).recordTask(taskEntry(run));
    background(recorded);
    await recorded.catch(() => undefined);
  }

  onRunEnd(run: RunRecord): void {
    const { id, kind, state, detail } = run;
    if (kind !== "task") return;
    const { platform, budgets, background } = this.#host;
    budgets.close(localID(id));
    const task = detail && "ownSandbox" in detail ? detail : undefined;
    const isContainerGone = state === "lost" && !platform.isRunning;
    if (task?.ownSandbox && (task.safe || isContainerGone))
      this.#destroySandbox({ ...taskEntry(run), isKeptIfSaved: !task.safe });
    else background(this.#recordEnd(taskEntry(run)));
  }

  async #recordEnd(entry: TaskEntry): Promise<void> {
    const { account } = this.#host;
    await account.account(account.owner).recordTask(entry);
  }

  #destroySandbox(task: EndedTask): void {
    // Written together with the task's end, because the actor may end before the sandbox is destroyed.
    this.#host.kv.put(ENDED_TASK, task);
    this.#host.background(Promise.all([this.#recordEnd(taskEntry(task)), this.#destroy(task)]));
  }

  async #destroy({ isKeptIfSaved = false }: EndedTask): Promise<void> {
    const { kv, account, lifecycle } = this.#host;
    const { owner } = account;
    for (let attempt = 1; ; attempt++) {
      try {
        const isKept = isKeptIfSaved && (await account.account(owner).workspace(owner.sandbox)) !== undefined;
        // A call may have begun to use the sandbox meanwhile.
        if (kv.get(ENDED_TASK) === undefined) return;
        // Also if the container is gone: a call may be starting the next one, and the account would not count it.
        if (!isKept) await lifecycle.destroy(owner, "workspace");
        return void kv.delete(ENDED_TASK);
      } catch (error) {
        if (attempt === DESTROY_ATTEMPTS) throw error;
      }
      await pause(DESTROY_RETRY_MS);
    }
  }

  onRestore(): void {
    this.#host.account.keepSandbox();
  }
}
