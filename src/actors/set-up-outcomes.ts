/**
 * What set-ups have left, kept for the next container: the files of the workspace and what was installed beside it.
 *
 * A set-up whose script ran in an empty workspace has the same outcome in any of the principal's sandboxes, so that is found by
 * a hash of all that it saw. One that met a workspace depends on that too: its outcome has a random name behind the hash, and
 * is found only from a sandbox whose workspace goes back to that run. The registry keeps both as archives.
 */
import type { Variables } from "../../container/sandboxd/protocol.ts";
import { ToolError } from "../shared/errors.ts";
import { randomLetters } from "../shared/names.ts";
import type { NetworkPolicy } from "../shared/network-policy.ts";
import { SerialQueue } from "../shared/queue.ts";
import type { Secret } from "../shared/secrets.ts";
import { sha256 } from "../shared/sha256.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Installation, Workspace } from "./workspace.ts";
import { NETWORK_CHANGED } from "./texts.ts";

/** How the outcome of a set-up is to be kept. */
export interface KeepPlan {
  key: string;
  /** Whether the workspace is of it: else the sandbox's own state has that. */
  hasWorkspace: boolean;
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
  workspace: Pick<Workspace, "installation" | "noteSystem" | "restoreOutcome" | "keepOutcome">;
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
   * @param previousKey the key of the outcome that the workspace goes back to
   */
  begin(script: string, previousKey: string | undefined): Promise<Restored | KeepPlan | undefined> {
    return this.#beginnings
      .run(() => this.#begin(script, previousKey))
      .catch((error: unknown) => {
        this.#host.report(error);
        return undefined;
      });
  }

  async #begin(script: string, previousKey: string | undefined): Promise<Restored | KeepPlan | undefined> {
    const { isSaved, workspace, lifecycle, account } = this.#host;
    if (!isSaved) return undefined;
    return await lifecycle.retryInNextContainer(account.owner, async () => {
      await lifecycle.ready();
      return await this.#beginIn(await workspace.installation(), script, previousKey);
    });
  }

  async #beginIn(
    installation: Installation,
    script: string,
    previousKey: string | undefined,
  ): Promise<Restored | KeepPlan> {
    const { workspace, lifecycle } = this.#host;
    const { system, isEmpty } = installation;
    const network = this.#network;
    const key = await keyOf(script, this.#host.variables(), network, system);
    // The outcome upon a workspace is of no use without that.
    const known = isEmpty
      ? key
      : previousKey === key || previousKey?.startsWith(`${key}.`)
        ? previousKey
        : undefined;
    if (known !== undefined) {
      const savedAt = await workspace.restoreOutcome(installation, known, isEmpty, lifecycle);
      if (savedAt !== undefined) return { key: known, savedAt };
    }
    await workspace.noteSystem(installation);
    return isEmpty
      ? { key, hasWorkspace: true, network }
      : { key: `${key}.${randomLetters(12)}`, hasWorkspace: false, network };
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
  async keep({ key, hasWorkspace, network }: KeepPlan): Promise<void> {
    const { workspace, keepMs } = this.#host;
    if (network !== this.#network) throw new ToolError("file_system", NETWORK_CHANGED);
    await workspace.keepOutcome(key, hasWorkspace, Date.now() + keepMs);
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
