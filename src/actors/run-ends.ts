/** What happens after the end of a run. */
import { isServiceState } from "../runs/command-executor.ts";
import { localID } from "../runs/id.ts";
import type { RunRecord } from "../runs/run-store.ts";
import type { TaskBudgets } from "../tasks/budget.ts";
import type { AccountLink } from "./account-link.ts";
import type { DiskUsage } from "./disk-usage.ts";
import type { Lease } from "./lease.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { Retention } from "./retention.ts";
import type { Storage } from "./storage.ts";
import type { Workspace } from "./workspace.ts";

export interface RunEndsHost {
  account: AccountLink;
  lease: Lease;
  platform: Pick<ContainerPlatform, "isRunning">;
  lifecycle: Pick<Lifecycle, "destroy" | "release">;
  budgets: TaskBudgets;
  retention: Retention;
  diskUsage: DiskUsage;
  workspace: Pick<Workspace, "changed">;
  storage: Storage;
  background(work: Promise<unknown>): void;
}

export class RunEnds {
  readonly #host: RunEndsHost;

  constructor(host: RunEndsHost) {
    this.#host = host;
  }

  ended(run: RunRecord, hasFiles: boolean): void {
    const { retention, diskUsage, workspace, storage, account, lifecycle, background } = this.#host;
    if (run.kind === "task") this.#taskEnded(run);
    retention.runEnded(run, hasFiles);
    diskUsage.used();
    workspace.changed();
    storage.changed();
    // A run may be lost because its sandbox was destroyed; it must not be registered again.
    if (run.state !== "lost" && !isServiceState(run.resumeState)) background(account.used());
    lifecycle.release();
  }

  /** Reports the end to the account. Destroys a sandbox made for the task once its results are stored elsewhere. */
  #taskEnded({ id, state, title, startedAt, endedAt, detail }: RunRecord): void {
    const { account, lease, platform, lifecycle, budgets, background } = this.#host;
    const { owner } = account;
    budgets.close(localID(id));
    const task = detail && "ownSandbox" in detail ? detail : undefined;
    const recording = account.account(owner).recordTask({ id, state, title, startedAt, endedAt });
    // Without a container, only the account's entry is left to remove.
    const isContainerGone = state === "lost" && !platform.isRunning;
    const end = async () =>
      isContainerGone
        ? await account.destroyed(owner, lease.release(), "workspace")
        : await lifecycle.destroy(owner, "workspace");
    const destruction = task?.ownSandbox && (task.safe || isContainerGone) ? end() : undefined;
    background(Promise.all([recording, destruction]));
  }
}
