/** What a person decides about a sandbox's network: each question is kept until it is answered, and an answer of no until it expires. */
import { type NetworkPolicy, entriesBeyond } from "../shared/network-policy.ts";
import { LINK_ID_CHARS } from "../shared/file-link.ts";
import { sha256 } from "../shared/sha256.ts";
import { within } from "../shared/within.ts";
import type { Owner } from "./account-calls.ts";
import type { NetworkChoice, SandboxNetwork } from "./network.ts";
import type { SettingsChange } from "./settings.ts";

/** In the actor's storage: a question, under its id. */
const PREFIX = "decisions:";

/** How long a person has to decide, and how long a refusal holds, milliseconds. */
const DECIDE_MS = 900_000;

/** Questions that are kept at once; the one that expires first goes. */
const MAX_QUESTIONS = 20;

interface Kept {
  change: NetworkChoice;
  expires: number;
  isRefused: boolean;
}

/** Where a change stands: nothing to ask, or a question that is open or was refused. */
export type Asked = { state: "within" } | { state: "open" | "refused"; id: string; added: string[] };

/** A question as a person sees it. */
export interface NetworkQuestion {
  sandbox: string;
  /** What the sandbox could reach beyond what it reaches now; empty where that is everything. */
  added: string[];
}

export interface DecisionsHost {
  kv: SyncKvStorage;
  network: Pick<SandboxNetwork, "changed" | "policy" | "policyAfter">;
  change(owner: Owner, change: SettingsChange): Promise<void>;
}

export class NetworkDecisions {
  readonly #host: DecisionsHost;
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  constructor(host: DecisionsHost) {
    this.#host = host;
  }

  /**
   * Keeps a question, where a change lets the sandbox reach more. One that was asked before waits for its answer.
   * @throws {ToolError} for more than the operator allows
   */
  async ask(change: NetworkChoice, waitMs: number): Promise<Asked> {
    if (this.#added(change) === undefined) return { state: "within" };
    const digest = await sha256(JSON.stringify([change.internet, change.allowHosts?.toSorted()]));
    const id = digest.toBase64({ alphabet: "base64url", omitPadding: true }).slice(0, LINK_ID_CHARS);
    if (this.#find(id)) await this.#answered(id, waitMs);
    // What the sandbox reaches may be another now.
    const added = this.#added(change);
    if (added === undefined) return { state: "within" };
    const kept = this.#find(id) ?? this.#keep(id, change);
    return { state: kept.isRefused ? "refused" : "open", id, added };
  }

  /** A question that is open. */
  find(sandbox: string, id: string): NetworkQuestion | undefined {
    const kept = this.#find(id);
    const added = kept && !kept.isRefused ? this.#added(kept.change) : undefined;
    return added && { sandbox, added };
  }

  /** @returns whether there was such a question. @throws {ToolError} for what the operator no longer allows */
  async decide(owner: Owner, id: string, isAllowed: boolean): Promise<boolean> {
    const kept = this.#find(id);
    if (!kept || kept.isRefused) return false;
    if (isAllowed) {
      await this.#host.change(owner, { network: kept.change });
      this.#host.kv.delete(PREFIX + id);
    } else this.#host.kv.put<Kept>(PREFIX + id, { ...kept, isRefused: true });
    this.#waiting.get(id)?.resolve();
    return true;
  }

  /** The sandbox was destroyed. */
  destroyed(): void {
    for (const [key] of this.#host.kv.list({ prefix: PREFIX })) this.#host.kv.delete(key);
  }

  /** What a change adds to what the sandbox reaches; undefined where that is nothing. */
  #added(change: NetworkChoice): string[] | undefined {
    const { network } = this.#host;
    const next = network.policyAfter(network.changed(change));
    return isWider(next, network.policy) ? reachedBeyond(next, network.policy) : undefined;
  }

  #find(id: string): Kept | undefined {
    const kept = this.#host.kv.get<Kept>(PREFIX + id);
    return kept && kept.expires > Date.now() ? kept : undefined;
  }

  #keep(id: string, change: NetworkChoice): Kept {
    const { kv } = this.#host;
    const others = [...kv.list<Kept>({ prefix: PREFIX })].toSorted(([, a], [, b]) => a.expires - b.expires);
    for (const [index, [key, { expires }]] of others.entries())
      if (expires <= Date.now() || index <= others.length - MAX_QUESTIONS) kv.delete(key);
    const kept: Kept = { change, expires: Date.now() + DECIDE_MS, isRefused: false };
    kv.put(PREFIX + id, kept);
    return kept;
  }

  /** Waits until a question is answered, for a while. */
  async #answered(id: string, ms: number): Promise<void> {
    if (this.#find(id)?.isRefused) return;
    const waiting = this.#waiting.get(id) ?? Promise.withResolvers<void>();
    this.#waiting.set(id, waiting);
    await within(ms, waiting.promise);
    this.#waiting.delete(id);
  }
}

function isWider(next: NetworkPolicy, now: NetworkPolicy): boolean {
  if (next.internet === "full") return now.internet !== "full";
  return next.internet === "allowlist" && entriesBeyond(next.allowHosts, now).length > 0;
}

function reachedBeyond(next: NetworkPolicy, now: NetworkPolicy): string[] {
  return next.internet === "full" ? [] : entriesBeyond(next.allowHosts, now);
}
