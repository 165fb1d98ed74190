/** Stores a sandbox's network settings, keeps them within the principal's limits, enforces them, and explains refusals. */
import { CONNECTION_COLUMNS, type RefusedConnections, connectionLine } from "../shared/connection-log.ts";
import type { OutboundPolicy } from "../container/internet.ts";
import type { End } from "../runs/run-types.ts";
import { ConnectionHistory } from "./connection-history.ts";
import { ALL_HOSTS, type NetworkPlatform } from "./platform/platform.ts";
import { type NetworkLimits, policyOf } from "../shared/network-limits.ts";
import {
  ALLOWED_PORTS_LISTED,
  INTERNET,
  type Internet,
  type NetworkPolicy,
  allowsHost,
  canBeListed,
  entriesBeyond,
} from "../shared/network-policy.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import * as texts from "./texts.ts";

/** The choice from `configure_sandbox`. The operator's defaults apply to omitted parts. */
export interface NetworkChoice {
  internet?: Internet | undefined;
  allowHosts?: readonly string[] | undefined;
}

export interface NetworkHost {
  kv: KV;
  platform: NetworkPlatform;
  background(work: Promise<unknown>): void;
  limits(): NetworkLimits;
  principalID(): string | undefined;
  secretHosts(): readonly string[];
  gitHosts(): readonly string[];
  /** Routes requests to these hosts (or `ALL_HOSTS`) to the policy handler, now and in later containers. */
  intercept(hosts: readonly string[], policy: OutboundPolicy): Promise<void>;
}

export class SandboxNetwork {
  readonly connections: ConnectionHistory;
  readonly #host: NetworkHost;
  readonly #choice: StoredValue<NetworkChoice>;
  /** The hosts to which requests of the running container are intercepted. */
  readonly #intercepted: StoredValue<string[]>;
  #isStarting = false;
  /** What the platform enforces in the running container; undefined before the first time. */
  #enforced: { policy: string; hosts: ReadonlySet<string> } | undefined;

  constructor(host: NetworkHost) {
    this.#host = host;
    this.#choice = new StoredValue(host.kv, "network");
    this.#intercepted = new StoredValue(host.kv, "intercepted");
    this.connections = new ConnectionHistory({ kv: host.kv, connections: () => host.platform.connections() });
  }

  get policy(): NetworkPolicy {
    return policyOf(this.choice, this.#host.limits());
  }

  /**
   * The choice after these changes. A change with only `allowHosts` selects `allowlist`. @throws {ToolError} if it exceeds the
   * operator's limits
   */
  choiceAfter({ internet, allowHosts }: NetworkChoice): NetworkChoice {
    const { most } = this.#host.limits();
    const requested = internet ?? (allowHosts === undefined ? undefined : "allowlist");
    if (requested !== undefined && INTERNET.indexOf(requested) > INTERNET.indexOf(most.internet))
      throw texts.networkForbidden(`internet ${requested}`, `internet ${most.internet}`);
    const forbidden = entriesBeyond(allowHosts ?? [], most);
    if (forbidden.length > 0)
      throw texts.networkForbidden(forbidden.join(", "), most.allowHosts.join(", ") || "no host");
    return { internet: requested ?? this.choice.internet, allowHosts: allowHosts ?? this.choice.allowHosts };
  }

  policyAfter(change: NetworkChoice): NetworkPolicy {
    return policyOf(this.choiceAfter(change), this.#host.limits());
  }

  /** The entries that only the change allows, empty for unrestricted access; undefined if it allows no more than the policy. */
  addedHosts(change: NetworkChoice): string[] | undefined {
    const next = this.policyAfter(change);
    if (next.internet === "full") return this.policy.internet === "full" ? undefined : [];
    const added = next.internet === "allowlist" ? entriesBeyond(next.allowHosts, this.policy) : [];
    return added.length > 0 ? added : undefined;
  }

  get choice(): NetworkChoice {
    return this.#choice.value ?? {};
  }

  put(choice: NetworkChoice): void {
    this.#choice.value = choice;
  }

  onContainerEnd(): void {
    this.#host.background(this.connections.collect().catch(() => undefined));
  }

  forget(): void {
    this.#choice.value = undefined;
    this.#host.platform.forget();
    this.connections.forget();
  }

  /** Called when a container is about to start: the next `enforce` must send the policy again. */
  prepareStart(): void {
    this.#enforced = undefined;
    this.#isStarting = true;
    this.#intercepted.value = undefined;
    this.#host.platform.prepareStart();
  }

  /** Makes the platform enforce the current policy. @returns false if the running container keeps forbidden connections */
  async enforce(): Promise<boolean> {
    const policy: OutboundPolicy = { ...this.policy, principalID: this.#host.principalID() };
    const before = this.#intercepted.value ?? [];
    // The platform intercepts a host until the container ends, even if the host's secret was removed. Such a host gets the new
    // policy too, because its handler would keep the earlier one.
    const hosts = new Set([...before, ...this.#host.secretHosts(), ...this.#gitHosts(before)]);
    const { maxHosts = Infinity } = this.#host.platform;
    // The first hosts are those that are intercepted already, so they are the same until the container ends.
    const targets = new Set([...hosts].slice(0, maxHosts));
    if (hosts.size > maxHosts) targets.add(ALL_HOSTS);
    const wanted = { policy: JSON.stringify(policy), hosts: targets };
    const isSamePolicy = this.#enforced?.policy === wanted.policy;
    const isEnforcedHost = (host: string) => isSamePolicy && this.#enforced?.hosts.has(host) === true;
    const changed = [...targets].filter((host) => !isEnforcedHost(host));
    if (isSamePolicy && changed.length === 0) return true;
    this.#isStarting = false;
    // If this fails, the next call must send everything again, also the earlier policy.
    this.#enforced = undefined;
    const isEnforced = await this.#host.platform.enforce(policy);
    if (hosts.size > before.length) this.#intercepted.value = [...hosts];
    if (changed.length > 0) await this.#host.intercept(changed, policy);
    // If the policy is not enforced, the next call tries again, until the container with the forbidden connections has ended.
    if (isEnforced) this.#enforced = wanted;
    return isEnforced;
  }

  /**
   * The git hosts to which requests are intercepted, so that git gets a token. A container that started without any interception
   * might not trust the platform's certificates, so intercepted requests would fail there. Git gets a token only in the next
   * container.
   */
  #gitHosts(intercepted: readonly string[]): readonly string[] {
    const isTrusted =
      this.#isStarting || intercepted.length > 0 || this.#host.platform.isAlwaysTrusted === true;
    return isTrusted ? this.#host.gitHosts() : [];
  }

  async addRefusals(end: End, startedAt: number): Promise<End> {
    this.connections.collectSoon();
    // With full access, a run fails if it needs a refused host. Other runs end without the request to the platform.
    const isUnrestricted =
      this.policy.internet === "full" && this.#host.secretHosts().length + this.#host.gitHosts().length === 0;
    if (isUnrestricted && end.state === "succeeded") return end;
    const refusals = await this.refusalNote(startedAt).catch(() => undefined);
    return refusals === undefined ? end : { ...end, note: [end.note, refusals].filter(Boolean).join(" ") };
  }

  /** Names the requests that were refused after `since`, the call that would allow them, and unknown names. */
  async refusalNote(since: number): Promise<string | undefined> {
    const refused = await this.#host.platform.refusalsSince(since);
    const byPolicy = refused.filter(({ why }) => why === "policy" || why === "address");
    const mismatched = refused.filter(({ why }) => why === "mismatch");
    const unknown = refused.filter(({ why }) => why === "unknown");
    const sentences: string[] = [];
    if (byPolicy.length > 0) sentences.push(texts.refusedText(listed(byPolicy)), ...this.#remedies(byPolicy));
    if (mismatched.length > 0) sentences.push(texts.mismatchText(listed(mismatched)));
    if (unknown.length > 0) sentences.push(texts.unknownText(listed(unknown)));
    return sentences.length > 0 ? sentences.join(" ") : undefined;
  }

  #remedies(refused: readonly RefusedConnections[]): string[] {
    const { most } = this.#host.limits();
    const { internet, allowHosts } = this.policy;
    const listable = refused.filter(({ host, why }) => why === "policy" && canBeListed(host));
    const hosts = listable.filter(({ port }) => port === undefined).map(({ host }) => host);
    const missing = hosts.filter((host) => !allowsHost(this.policy, host));
    const possible =
      most.internet === "none" ? [] : missing.filter((host) => entriesBeyond([host], most).length === 0);
    const current = internet === "allowlist" ? allowHosts : [];
    const list = [...current, ...possible];
    const remedies: string[] = [];
    if (possible.length > 0) remedies.push(texts.allowText(possible, list));
    const forbidden = missing.filter((host) => !possible.includes(host));
    if (forbidden.length > 0) remedies.push(texts.operatorForbidsText(forbidden));
    const unlistable = new Set(
      refused.filter((refusal) => !listable.includes(refusal)).map(({ host }) => host),
    );
    if (unlistable.size > 0) remedies.push(texts.neverAllowedText(unlistable));
    if (missing.length < hosts.length) remedies.push(texts.ALLOWED_MEANWHILE);
    if (hosts.length < listable.length) remedies.push(texts.portsText(ALLOWED_PORTS_LISTED));
    return remedies;
  }

  /** The policy, the number of refused connections, and one line for each recent connection, oldest first. */
  async lines(): Promise<string> {
    const { refused, connections } = await this.connections.collect();
    const { internet, allowHosts } = this.policy;
    const list = internet === "allowlist" ? ` ${allowHosts.join(",")}` : "";
    const { unseen } = this.#host.platform;
    const notes = unseen === undefined || internet === "full" ? [] : [`# ${unseen}`];
    const head = [`# internet ${internet}${list}`, `# refused ${refused}`, ...notes];
    return [...head, `# ${CONNECTION_COLUMNS}`, ...connections.map(connectionLine)]
      .map((line) => `${line}\n`)
      .join("");
  }
}

function listed(refused: readonly RefusedConnections[]): string {
  const shown = refused.map(({ host, port, count }) => {
    const target = port === undefined ? host : `${host}:${port}`;
    return count === 1 ? target : `${target} (${count} times)`;
  });
  return shown.join(", ");
}
