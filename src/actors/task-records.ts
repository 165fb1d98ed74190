/** Reports tasks to the account. Destroys a sandbox made for a task once the task's results are stored elsewhere. */
import { localID } from "../runs/id.ts";
import type { RunRecord } from "../runs/run-store.ts";
import type { RunView } from "../runs/run-types.ts";
import type { TaskBudgets } from "../tasks/budget.ts";
import { taskEntry } from "../tasks/task-list.ts";
import type { Owner } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ContainerPlatform } from "./platform/platform.ts";

export interface TaskRecordsHost {
  account: AccountLink;
  platform: Pick<ContainerPlatform, "isRunning">;
  lifecycle: Pick<Lifecycle, "destroy">;
  budgets: TaskBudgets;
  background(work: Promise<unknown>): void;
}

export class TaskRecords {
  readonly #host: TaskRecordsHost;

  constructor(host: TaskRecordsHost) {
    this.#host = host;
  }

  async recordStart(owner: Owner, run: RunView): Promise<void> {
    await this.#host.account.account(owner).recordTask(taskEntry(run));
  }

  onRunEnd(run: RunRecord): void {
    const { id, kind, state, detail } = run;
    if (kind !== "task") return;
    const { account, platform, lifecycle, budgets, background } = this.#host;
    const { owner } = account;
    budgets.close(localID(id));
    const task = detail && "ownSandbox" in detail ? detail : undefined;
    const recording = account.account(owner).recordTask(taskEntry(run));
    // If the container is gone, only the account's entry must be removed.
    const isContainerGone = state === "lost" && !platform.isRunning;
    const end = async () =>
      isContainerGone
        ? await account.reportDestruction(owner, "workspace")
        : await lifecycle.destroy(owner, "workspace");
    const destruction = task?.ownSandbox && (task.safe || isContainerGone) ? end() : undefined;
    background(Promise.all([recording, destruction]));
  }
}
