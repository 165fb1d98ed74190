/** A person's decisions about a sandbox's network. Open and refused questions are stored until they expire. */
import type { SandboxKV } from "../storage/sandbox-schema.ts";
import type { NetworkPolicy } from "../shared/network-policy.ts";
import { base64url, LINK_ID_CHARS } from "../shared/link-token.ts";
import { SerialQueue } from "../shared/queue.ts";
import { sha256 } from "../shared/sha256.ts";
import { Waiters } from "../shared/waiters.ts";
import type { Owner } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { EndReason } from "./lifecycle-state.ts";
import type { NetworkChoice, SandboxNetwork } from "./network.ts";
import type { SandboxSettings } from "./settings.ts";

const PREFIX = "decisions:";

/** How long a question is stored, open or refused. */
const DECISION_LIFETIME_MS = 900_000;

/** The most stored questions. Beyond it, the question that expires first is dropped. */
const MAX_QUESTIONS = 20;

interface StoredDecision {
  change: NetworkChoice;
  expires: number;
  isRefused: boolean;
}

/**
 * `within`: the change gives no more access than the sandbox has, so no person is asked. Otherwise the question about the change
 * is open, or a person has refused it.
 */
export type ChangeState =
  | { state: "within"; change: NetworkPolicy }
  | { state: "open" | "refused"; id: string; added: string[] };

export interface NetworkQuestion {
  sandbox: string;
  /** What the sandbox could reach in addition; empty for unrestricted access. */
  added: string[];
}

interface DecisionsHost {
  kv: SandboxKV;
  network: Pick<SandboxNetwork, "policyAfter" | "addedHosts">;
  settings: Pick<SandboxSettings, "configure">;
  account: Pick<AccountLink, "principalID" | "owner">;
}

export class NetworkDecisions {
  readonly #host: DecisionsHost;
  readonly #waiters = new Waiters();
  /** A decision may take time until it has its effect. A second one about the same question waits, and then finds it decided. */
  readonly #decisions = new SerialQueue();

  constructor(host: DecisionsHost) {
    this.#host = host;
  }

  /**
   * Stores a question if the change gives more access. If the question exists already, waits for a decision.
   * @throws {ToolError} if the operator forbids the change
   */
  async ask(change: NetworkChoice, waitMs: number): Promise<ChangeState> {
    // The question is about the whole policy, because another call may change the settings that this change omits.
    const { network } = this.#host;
    const next = network.policyAfter(change);
    if (network.addedHosts(next) === undefined) return { state: "within", change: next };
    const digest = await sha256(JSON.stringify([next.internet, next.allowHosts.toSorted()]));
    const id = base64url(digest).slice(0, LINK_ID_CHARS);
    await this.#waiters.until(() => this.#find(id)?.isRefused !== false, waitMs);
    // The policy may have changed during the wait.
    const added = network.addedHosts(next);
    if (added === undefined) return { state: "within", change: next };
    const stored = this.#find(id) ?? this.#store(id, next);
    return { state: stored.isRefused ? "refused" : "open", id, added };
  }

  /** An open question, for the holder of its link. */
  find(id: string): NetworkQuestion | undefined {
    const { account, network } = this.#host;
    const stored = account.principalID === undefined ? undefined : this.#find(id);
    const added = stored && !stored.isRefused ? network.addedHosts(stored.change) : undefined;
    return added && { sandbox: account.owner.sandbox, added };
  }

  /** @returns whether the question was open @throws {ToolError} if the operator no longer allows the change */
  decide(owner: Owner, id: string, isAllowed: boolean): Promise<boolean> {
    return this.#decisions.run(() => this.#decide(owner, id, isAllowed));
  }

  async #decide(owner: Owner, id: string, isAllowed: boolean): Promise<boolean> {
    const stored = this.#find(id);
    // Another decision may have given the same access meanwhile.
    if (!stored || !this.find(id)) return false;
    if (isAllowed) {
      await this.#host.settings.configure(owner, { network: stored.change });
      this.#host.kv.delete(`${PREFIX}${id}`);
    } else this.#host.kv.put<StoredDecision>(`${PREFIX}${id}`, { ...stored, isRefused: true });
    this.#waiters.wakeAll();
    return true;
  }

  onContainerEnd(end: EndReason): void {
    if (end !== "destroy") return;
    for (const [key] of this.#host.kv.list({ prefix: PREFIX })) this.#host.kv.delete(key);
  }

  #find(id: string): StoredDecision | undefined {
    const stored = this.#host.kv.get<StoredDecision>(`${PREFIX}${id}`);
    return stored && stored.expires > Date.now() ? stored : undefined;
  }

  #store(id: string, change: NetworkChoice): StoredDecision {
    const { kv } = this.#host;
    const others = [...kv.list<StoredDecision>({ prefix: PREFIX })].toSorted(
      ([, a], [, b]) => a.expires - b.expires,
    );
    for (const [index, [key, { expires }]] of others.entries())
      if (expires <= Date.now() || index <= others.length - MAX_QUESTIONS) kv.delete(key);
    const stored: StoredDecision = { change, expires: Date.now() + DECISION_LIFETIME_MS, isRefused: false };
    kv.put(`${PREFIX}${id}`, stored);
    return stored;
  }
}
