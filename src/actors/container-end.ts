/** Saves the workspace before the server or the platform ends the container. */
import type { Kernels } from "../container/kernels/kernels.ts";
import { pause } from "../shared/timers.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { SandboxNetwork } from "./network.ts";
import type { RestartNotice } from "./restart-notice.ts";
import type { Sandboxd } from "../container/sandboxd.ts";
import type { Workspace } from "./workspace.ts";

/**
 * How many saves may fail before the server or the platform ends the container, and the pause after each save in milliseconds.
 * Another save follows if one fails, or if a call or run changes files meanwhile. Before the platform ends the container, calls go on,
 * and those that are refused count as changes, so there are at most MAX_SAVES.
 */
const MAX_FAILURES = 3;
const MAX_SAVES = 3;
const PAUSE_MS = 1000;

interface ContainerEndHost {
  sandboxd: Pick<Sandboxd, "isToken" | "report">;
  lifecycle: Pick<Lifecycle, "isRunning" | "isInUse">;
  kernels: Pick<Kernels, "refuse" | "stopAll">;
  workspace: Pick<Workspace, "prioritizeSaves" | "saveToStop" | "mayStop" | "isComplete" | "noteChange">;
  notice: Pick<RestartNotice, "noteEnding">;
  network: Pick<SandboxNetwork, "connections">;
  sync(): Promise<void>;
}

export class ContainerEnd {
  readonly #host: ContainerEndHost;

  constructor(host: ContainerEndHost) {
    this.#host = host;
  }

  get isSaved(): boolean {
    return this.#host.workspace.mayStop;
  }

  /** Saves before the server stops. Returns whether everything was saved. Calls and runs may still change files afterwards. */
  async saveForServer(): Promise<boolean> {
    const { lifecycle, workspace, notice, network, sync } = this.#host;
    workspace.prioritizeSaves();
    await this.#save();
    const { isSaved } = this;
    const mayLackChanges = lifecycle.isInUse || !workspace.isComplete;
    if (isSaved && lifecycle.isRunning) notice.noteEnding(mayLackChanges ? "unsaved_server" : "server");
    await network.connections.collect().catch(() => undefined);
    await sync();
    return isSaved;
  }

  /**
   * Saves before the platform ends the container. Returns false, without saving, if the token is wrong, or if sandboxd still
   * serves. It asks sandboxd because code in the sandbox can read the token and send this request too.
   */
  async saveForPlatform(token: string): Promise<boolean> {
    const { sandboxd, lifecycle, kernels, workspace, notice, sync } = this.#host;
    if (!sandboxd.isToken(token)) return false;
    if (!lifecycle.isRunning) return true;
    const isServing = async () => (await sandboxd.report())?.isServing === true;
    if (await isServing()) return false;
    // Code for kernels goes through the SDK's server and not through sandboxd, so sandboxd cannot refuse it.
    const hadCode = kernels.refuse(isServing);
    await this.#save(MAX_SAVES);
    if (hadCode) {
      await kernels.stopAll();
      workspace.noteChange();
      await this.#save(MAX_SAVES);
    }
    notice.noteEnding("platform");
    await sync();
    return true;
  }

  async #save(most = Infinity): Promise<void> {
    const { workspace } = this.#host;
    for (let saves = 0, failures = 0; saves < most && failures < MAX_FAILURES; saves++) {
      if (!(await workspace.saveToStop())) failures++;
      if (workspace.mayStop) return;
      await pause(PAUSE_MS);
    }
  }
}
