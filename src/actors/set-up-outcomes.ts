/**
 * The outcomes of set-ups. An outcome is the files that a script left. The server expects that the same script with the same
 * inputs leaves the same files in every new sandbox of a principal. So the account stores the outcome under a hash of the script
 * and its inputs. The next sandbox starts from the outcome like a fork.
 */
import type { Variables } from "../../container/sandboxd/protocol.ts";
import { ToolError } from "../shared/errors.ts";
import type { NetworkPolicy } from "../shared/network-policy.ts";
import { SerialQueue } from "../shared/queue.ts";
import type { Secret } from "../shared/secrets.ts";
import { sha256 } from "../shared/sha256.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Workspace } from "./workspace.ts";
import { SETTINGS_CHANGED } from "./texts.ts";

export interface KeepPlan {
  key: string;
  /** Whether only the script has changed files, so that other sandboxes can start from the outcome. */
  isShared: boolean;
  network: string;
  /** The version of the variables; undefined if none was ever set. */
  variables?: number | undefined;
}

interface Restored {
  key: string;
  /** Milliseconds since the epoch. */
  savedAt: number;
}

interface SetUpOutcomesHost {
  workspace: Pick<Workspace, "installation" | "restoreOutcome" | "keepOutcome">;
  variables(): Variables | undefined;
  policy(): NetworkPolicy;
  secrets(): Secret[];
  isSaved: boolean;
  keepSharedMs: number;
  lifecycle: Pick<Lifecycle, "waitUntilReady" | "retryInNextContainer" | "restoreAgain">;
  account: Pick<AccountLink, "owner">;
  report(error: unknown): void;
}

export class SetUpOutcomes {
  readonly #host: SetUpOutcomesHost;
  readonly #beginnings = new SerialQueue();

  constructor(host: SetUpOutcomesHost) {
    this.#host = host;
  }

  /**
   * Returns the outcome that the sandbox's files already contain. Otherwise restores a stored outcome, if nothing else has run in
   * the sandbox. If there is none, returns a plan to keep the new outcome, or undefined if it cannot be kept. Never rejects: if
   * the restore fails, the script runs.
   * @param previousKey the key of the outcome that the sandbox's files already contain
   * @param isUsed whether something else has run in the container
   * @param isOver whether the script's run has ended
   */
  async begin(
    script: string,
    previousKey: string | undefined,
    isUsed = false,
    isOver = () => false,
  ): Promise<Restored | KeepPlan | undefined> {
    const { isSaved, workspace, lifecycle, account, report } = this.#host;
    if (!isSaved) return undefined;
    const begin = async () => {
      await lifecycle.waitUntilReady();
      const installation = await workspace.installation();
      const { system, isEmpty, savedAt } = installation;
      const network = this.#network;
      const variables = this.#host.variables();
      const key = await keyOf(script, variables, network, system);
      if (previousKey === key && savedAt !== undefined) return { key, savedAt };
      const isShared = isEmpty && !isUsed;
      const restoredAt = isShared ? await workspace.restoreOutcome(installation, key, lifecycle) : undefined;
      return restoredAt === undefined
        ? { key, isShared, network, variables: variables?.version }
        : { key, savedAt: restoredAt };
    };
    try {
      return await this.#beginnings.run(() => lifecycle.retryInNextContainer(account.owner, begin, isOver));
    } catch (error) {
      if (!isOver()) report(error);
      return undefined;
    }
  }

  /**
   * The part of the network settings that decides which requests of the script succeed. Values of secrets are left out,
   * because a new value does not change access.
   */
  get #network(): string {
    const { internet, allowHosts } = this.#host.policy();
    const hosts = internet === "allowlist" ? [...allowHosts].sort() : [];
    const secrets = this.#host.secrets().map(({ name, hosts: at, variable }) => [name, at, variable]);
    return JSON.stringify([internet, hosts, secrets]);
  }

  get areKept(): boolean {
    return this.#host.isSaved;
  }

  async keep({ key, isShared, network, variables }: KeepPlan): Promise<void> {
    const { workspace, keepSharedMs } = this.#host;
    // The script may have started with later variables than those of the key.
    const isSame = network === this.#network && variables === this.#host.variables()?.version;
    if (!isSame) throw new ToolError("file_system", SETTINGS_CHANGED);
    await workspace.keepOutcome(key, isShared ? Date.now() + keepSharedMs : undefined);
  }
}

async function keyOf(
  script: string,
  variables: Variables | undefined,
  network: string,
  system: string,
): Promise<string> {
  const set = (variables?.entries ?? []).flatMap(({ name, value }) =>
    value === null ? [] : [[name, value]],
  );
  set.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));
  return `setup:${(await sha256(JSON.stringify([script, set, network, system]))).toHex()}`;
}
