/** Knows a sandbox's owner, and reports the sandbox's use to the principal's `Account`. */
import { type Env, parseConfig } from "../shared/config.ts";
import { type SandboxEvent, log } from "../shared/log.ts";
import type { Account } from "./account.ts";
import type { Destroyed, DestroyExtent, EarlierState, Owner } from "./account-calls.ts";
import { accountOf } from "./account-of.ts";
import { isServiceState } from "../runs/command-executor.ts";
import type { RunRecord } from "../runs/run-store.ts";
import { unwrap } from "../shared/errors.ts";
import { principalHash } from "../shared/names.ts";
import { SerialQueue } from "../shared/queue.ts";
import { elapsedMs } from "../shared/timers.ts";
import { Lease } from "./lease.ts";
import { workspacesPrefix } from "./saved-states.ts";
import type { KV } from "./stored-value.ts";
import type { ListedSettings } from "./sandbox-registry.ts";

/** The owner as the sandbox's first call named it; `region` is where the actor was created. */
interface KnownOwner extends Owner {
  principalHash: string;
}

/** How often an active sandbox reports its use to the account. */
const REGISTER_MS = 60_000;

/** The storage key for the time of the last use. The stored time may be up to WRITE_MS milliseconds too old. */
const USED_AT = "used_at";
const WRITE_MS = 60_000;

/** The storage key of the time until which run seconds were reported to the account. */
const SETTLED_AT = "settled_at";

/** The storage key of the ended task whose sandbox is being destroyed. */
export const ENDED_TASK = "ended_task";

export class AccountLink {
  readonly #ctx: DurableObjectState;
  readonly #kv: KV;
  readonly #env: Env;
  readonly #setName: (sandbox: string) => Promise<void>;
  #owner: KnownOwner | undefined;
  #registeredAt = 0;
  /** Counts ended registrations. If the sandbox stops during a registration, that registration is not valid afterwards. */
  #endCount = 0;
  /** When a call or a run last used the sandbox, as far as this actor knows. */
  #usedAt = 0;
  /** The time of the last checkpoint, which contains all earlier changes. */
  #keptAt = 0;
  #writtenAt = 0;
  /** Whether the account has accepted a call for this sandbox. False in a new actor, and after the sandbox's end. */
  isAccepted = false;
  /** The git hosts that the principal has signed in to, as the account last reported them. */
  gitHosts: readonly string[] = [];
  /** Sends one report after another, so that they reach the account in order. */
  readonly #reports = new SerialQueue();
  readonly lease: Lease;

  constructor(ctx: DurableObjectState, kv: KV, env: Env, setName: (sandbox: string) => Promise<void>) {
    this.#ctx = ctx;
    this.#kv = kv;
    this.#env = env;
    this.#setName = setName;
    this.#owner = kv.get<KnownOwner>("owner");
    this.lease = new Lease({
      limits: parseConfig(env).limits,
      request: (request) => this.account().lease(this.owner, request),
      background: (work) => ctx.waitUntil(work),
      onSettled: () => kv.put(SETTLED_AT, Date.now()),
    });
  }

  async setOwner({ principalID, sandbox, region }: Owner): Promise<void> {
    if (this.#owner) return;
    this.#owner = { principalID, sandbox, region, principalHash: await principalHash(principalID) };
    this.#kv.put("owner", this.#owner);
    await this.#setName(sandbox);
  }

  get owner(): KnownOwner {
    if (!this.#owner) throw new Error("the sandbox has no owner yet");
    return this.#owner;
  }

  /**
   * The time up to which run seconds were reported, in milliseconds since the epoch; undefined if none were reported. The destruction of
   * a sandbox that never existed stores a time, but no owner. That actor has no runs.
   */
  get settledAt(): number | undefined {
    return this.#owner && this.#kv.get<number>(SETTLED_AT);
  }

  get principalID(): string | undefined {
    return this.#owner?.principalID;
  }

  /** Whether the sandbox was used or configured before, or has a saved workspace. */
  async isKnown(owner: Owner): Promise<boolean> {
    return this.account(owner).isKnown(owner.sandbox);
  }

  prefix(runID: string): string {
    return `${this.owner.principalHash}/${runID}/`;
  }

  get workspacesPrefix(): string {
    return workspacesPrefix(this.owner.principalHash);
  }

  account(owner: Pick<Owner, "principalID"> = this.owner): DurableObjectStub<Account> {
    return accountOf(this.#env, owner.principalID);
  }

  /**
   * Registers the sandbox as in use. The first call, and the first call after a stop, waits for the account. Later calls register
   * the sandbox in the background, at most once a minute.
   * @returns what the account knew before, if the call waited; otherwise undefined
   */
  async register(owner: Owner): Promise<EarlierState | undefined> {
    const now = Date.now();
    this.#recordUse(now);
    if (elapsedMs(this.#registeredAt) < REGISTER_MS) return undefined;
    const wasRegistered = this.#registeredAt > 0;
    const endCount = this.#endCount;
    const result = this.#reports.run(async () => {
      // The sandbox was destroyed meanwhile.
      if (wasRegistered && endCount !== this.#endCount) return undefined;
      const registered = unwrap(await this.account(owner).registerSandbox(owner));
      this.isAccepted = true;
      this.gitHosts = registered.gitHosts;
      return registered.before;
    });
    if (wasRegistered) this.#ctx.waitUntil(result.catch(() => undefined));
    const before = wasRegistered ? undefined : await result;
    if (endCount === this.#endCount) this.#registeredAt = now;
    return before;
  }

  #recordUse(now: number): void {
    this.#usedAt = now;
    if (elapsedMs(this.#writtenAt) < WRITE_MS) return;
    this.#writtenAt = now;
    this.#kv.put(USED_AT, now);
  }

  /**
   * Registers the settings of a sandbox, even if it was never used. Returns what the account knew before.
   * @throws {ToolError} `quota_exceeded`
   */
  recordSettings(owner: Owner, settings: ListedSettings): Promise<EarlierState> {
    // The account may be about to remove the sandbox as idle.
    this.#recordUse(Date.now());
    return this.#reports.run(async () => {
      const before = unwrap(await this.account(owner).sandboxConfigured(owner, settings));
      this.isAccepted = true;
      this.keepSandbox();
      return before;
    });
  }

  /** The sandbox is used from now on. If the destruction of an ended task's sandbox has failed, it must not be repeated. */
  keepSandbox(): void {
    if (this.#kv.get(ENDED_TASK) !== undefined) this.#kv.delete(ENDED_TASK);
  }

  /**
   * A lower bound for the time since the last use, in milliseconds. The stored time of the last use is only approximate. If the clock
   * was set back since the last use, the time begins now.
   */
  get unusedMs(): number {
    const now = Date.now();
    const before = this.#kv.get<number>(USED_AT) ?? now;
    const isSetBack = Math.max(elapsedMs(before), elapsedMs(this.#usedAt)) === Infinity;
    if (isSetBack) this.#recordUse(now);
    return isSetBack ? 0 : Math.max(0, now - Math.max(before + WRITE_MS, this.#usedAt));
  }

  wasUsedWithin(ms: number): boolean {
    return elapsedMs(this.#usedAt) < ms;
  }

  /** Whether the sandbox was used in the last `ms` milliseconds, and after its last checkpoint. */
  isInUse(ms: number): boolean {
    return this.wasUsedWithin(ms) && this.#usedAt >= this.#keptAt;
  }

  /** @param at the checkpoint contains all changes before this time, in milliseconds since the epoch */
  noteCheckpoint(at: number): void {
    this.#keptAt = at;
  }

  /** Undoes a registration. @param before what the account knew before the registration */
  async withdraw(before: EarlierState): Promise<void> {
    this.#endRegistration();
    // A saved workspace stays: a fork has one before its first use.
    const settlement = before === "stopped" ? undefined : this.lease.release();
    await this.#reports.run(async () => {
      const { sandbox } = this.owner;
      if (!settlement) return await this.account().sandboxStopped(sandbox);
      this.isAccepted = false;
      await this.account().sandboxWithdrawn(sandbox, await settlement);
    });
  }

  /**
   * A run's end counts as use, so that the sandbox is not removed as idle. The end of a service does not count. A lost
   * run does not count either: its sandbox may have been destroyed, and must not be registered again.
   */
  onRunEnd({ state, resumeState }: Pick<RunRecord, "state" | "resumeState">): void {
    if (state !== "lost" && !isServiceState(resumeState)) this.#ctx.waitUntil(this.noteUse());
  }

  async noteUse(): Promise<void> {
    this.#usedAt = Date.now();
    if (this.#registeredAt > 0) await this.register(this.owner);
  }

  reportStop(): void {
    this.#endRegistration();
    this.logEvent("stop");
    const owner = this.#owner;
    if (owner)
      this.#ctx.waitUntil(this.#reports.run(() => this.account(owner).sandboxStopped(owner.sandbox)));
  }

  async reportDestruction(owner: Owner, extent: DestroyExtent): Promise<Destroyed> {
    const settlement = this.lease.release();
    return await this.#reports.run(async () => {
      this.isAccepted = false;
      try {
        return await this.account(owner).sandboxDestroyed(owner.sandbox, await settlement, extent);
      } finally {
        this.#endRegistration();
      }
    });
  }

  #endRegistration(): void {
    this.#registeredAt = 0;
    this.#endCount++;
  }

  logEvent(action: SandboxEvent["action"]): void {
    if (!this.#owner) return;
    const { principalID: principal, sandbox } = this.#owner;
    log(parseConfig(this.#env), { event: "sandbox", action, principal, sandbox });
  }

  /** Reports the sandbox's size in bytes; undefined if it could not be measured. */
  async reportSize(bytes: number | undefined): Promise<void> {
    const { owner } = this;
    if (bytes !== undefined)
      await this.#reports.run(() => this.account(owner).sandboxSize(owner.sandbox, bytes));
  }
}
