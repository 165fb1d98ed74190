/**
 * What set-ups have left is part of the sandbox's state. A set-up whose script ran in a sandbox without one has the same outcome
 * in any of the principal's sandboxes: the registry keeps that state by a hash of all that the script saw, and the next sandbox
 * starts from it as a fork does.
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
import { NETWORK_CHANGED } from "./texts.ts";

/** How the outcome of a set-up is to be kept. */
export interface KeepPlan {
  key: string;
  /** Whether the sandbox previousKey no state before it. */
  isShared: boolean;
  /** What the script was to reach. */
  network: string;
}

/** An outcome that a container has got. */
export interface Restored {
  key: string;
  /** When it was kept, milliseconds since the epoch. */
  savedAt: number;
}

export interface SetUpOutcomesHost {
  workspace: Pick<Workspace, "installation" | "restoreOutcome" | "keepOutcome">;
  variables(): Variables | undefined;
  policy(): NetworkPolicy;
  secrets(): Secret[];
  /** Whether anything is saved. */
  isSaved: boolean;
  /** How long an outcome is kept, milliseconds. */
  keepMs: number;
  lifecycle: Pick<Lifecycle, "ready" | "retryInNextContainer" | "restoreAgain">;
  account: Pick<AccountLink, "owner">;
  /** Logs an unexpected error. */
  report(error: unknown): void;
}

export class SetUpOutcomes {
  readonly #host: SetUpOutcomesHost;
  readonly #beginnings = new SerialQueue();

  constructor(host: SetUpOutcomesHost) {
    this.#host = host;
  }

  /**
   * Gives a container in which nothing of the caller's has run what a set-up left earlier, or answers how to keep what it will
   * leave; undefined where that cannot be kept. Never rejects: the script does what could not be restored.
   * @param previousKey the key of the outcome that the sandbox's state holds
   * @param isUsed whether something else has run in the container before
   */
  begin(
    script: string,
    previousKey: string | undefined,
    isUsed = false,
  ): Promise<Restored | KeepPlan | undefined> {
    return this.#beginnings
      .run(() => this.#begin(script, previousKey, isUsed))
      .catch((error: unknown) => {
        this.#host.report(error);
        return undefined;
      });
  }

  async #begin(
    script: string,
    previousKey: string | undefined,
    isUsed: boolean,
  ): Promise<Restored | KeepPlan | undefined> {
    const { isSaved, workspace, lifecycle, account } = this.#host;
    if (!isSaved) return undefined;
    return await lifecycle.retryInNextContainer(account.owner, async () => {
      await lifecycle.ready();
      const installation = await workspace.installation();
      const { system, isEmpty, savedAt } = installation;
      const network = this.#network;
      const key = await keyOf(script, this.#host.variables(), network, system);
      if (previousKey === key && savedAt !== undefined) return { key, savedAt };
      const isShared = isEmpty && !isUsed;
      const keptAt = isShared ? await workspace.restoreOutcome(installation, key, lifecycle) : undefined;
      return keptAt === undefined ? { key, isShared, network } : { key, savedAt: keptAt };
    });
  }

  /** What decides which requests of the sandbox succeed. The values of secrets are not of it: they change for the same access. */
  get #network(): string {
    const { internet, allowHosts } = this.#host.policy();
    const hosts = internet === "allowlist" ? [...allowHosts].sort() : [];
    const secrets = this.#host.secrets().map(({ name, hosts: at, variable }) => [name, at, variable]);
    return JSON.stringify([internet, hosts, secrets]);
  }

  /** Whether outcomes are kept at all. */
  get areKept(): boolean {
    return this.#host.isSaved;
  }

  /** Keeps what a set-up has left. @throws {ToolError} with the reason, and errors of R2 and the sandbox */
  async keep({ key, isShared, network }: KeepPlan): Promise<void> {
    const { workspace, keepMs } = this.#host;
    if (network !== this.#network) throw new ToolError("file_system", NETWORK_CHANGED);
    await workspace.keepOutcome(key, isShared ? Date.now() + keepMs : undefined);
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
  // Of outcomes that earlier versions kept, in parts, none is found.
  return `setup:${(await sha256(JSON.stringify([2, script, set, network, system]))).toHex()}`;
}
