/** Whose sandbox this is, and what its principal's account is told of it. */
import { type Env, parseConfig } from "../shared/config.ts";
import { type SandboxEvent, log } from "../shared/log.ts";
import type { Account } from "./account.ts";
import { unwrap } from "../shared/errors.ts";
import { principalHash } from "../shared/names.ts";
import type { Settlement } from "./quota.ts";

/** Whose sandbox this is. The actor's own name already holds both, hashed; this is what it shows and registers. */
export interface Owner {
  principalID: string;
  /** The sandbox's name as the principal knows it. */
  sandbox: string;
  /** False for a caller who may only read: where no container runs there is nothing to read, and none is started. */
  mayStart?: boolean;
}

interface KnownOwner extends Owner {
  principalHash: string;
}

/** How long the registration in `Account` may lag behind, milliseconds. */
const REGISTER_EVERY = 60_000;

/** Where the time of the last use is written down, in the actor's storage, and how much earlier it may be. */
const USED = "used";
const WRITE_EVERY = 60_000;

export class AccountLink {
  readonly #ctx: DurableObjectState;
  readonly #env: Env;
  #owner: KnownOwner | undefined;
  #registeredAt = 0;
  /** When a call or a run last used the sandbox, as far as this actor has seen. */
  #usedAt = 0;
  #writtenAt = 0;
  /** Set while the account was told of a start that has not come: what it knew of the sandbox before. */
  #unstarted: "nothing" | "stopped" | undefined;
  /** What the account is told it is told one after the other. */
  #told: Promise<unknown> = Promise.resolve();

  constructor(ctx: DurableObjectState, env: Env) {
    this.#ctx = ctx;
    this.#env = env;
    this.#owner = ctx.storage.kv.get<KnownOwner>("owner");
  }

  /** Remembers the owner; answers whether that was news. */
  async meet({ principalID, sandbox }: Owner): Promise<boolean> {
    if (this.#owner) return false;
    this.#owner = { principalID, sandbox, principalHash: await principalHash(principalID) };
    this.#ctx.storage.kv.put("owner", this.#owner);
    return true;
  }

  get owner(): KnownOwner {
    if (!this.#owner) throw new Error("a sandbox without an owner has no runs");
    return this.#owner;
  }

  /** Whether the account knows that the sandbox is in use. */
  get isRegistered(): boolean {
    return this.#registeredAt > 0;
  }

  /** Where results of a run lie in R2. */
  prefix(runID: string): string {
    return `${this.owner.principalHash}/${runID}/`;
  }

  account(owner: Owner): DurableObjectStub<Account> {
    const accounts = this.#env.Account as DurableObjectNamespace<Account>;
    return accounts.getByName(owner.principalID);
  }

  /**
   * Tells the account that this sandbox is in use: before its first call, then in the background and rarely.
   * @throws {ToolError} `quota_exceeded` for one sandbox too many
   */
  async register(owner: Owner): Promise<void> {
    const now = Date.now();
    this.#usedAt = now;
    if (now - this.#writtenAt >= WRITE_EVERY) {
      this.#writtenAt = now;
      this.#ctx.storage.kv.put(USED, now);
    }
    if (now - this.#registeredAt < REGISTER_EVERY) return;
    const known = this.#registeredAt > 0;
    const answer = this.#tell(async () => unwrap(await this.account(owner).sandboxUsed(owner)));
    if (known) this.#ctx.waitUntil(answer.catch(() => undefined));
    else if (await answer) this.#unstarted = "nothing";
    else this.#unstarted ??= "stopped";
    this.#registeredAt = now;
  }

  /** How long ago the sandbox was used at the latest, milliseconds: by this actor, or by one before it. */
  get unusedMs(): number {
    const before = this.#ctx.storage.kv.get<number>(USED);
    const used = before === undefined ? Date.now() : before + WRITE_EVERY;
    return Math.max(0, Date.now() - Math.max(used, this.#usedAt));
  }

  /** Whether this actor has seen a use of the sandbox in the last so many milliseconds. */
  wasUsedWithin(ms: number): boolean {
    return Date.now() - this.#usedAt < ms;
  }

  /** Whether the account was told of a start that has not come. */
  get isUnstarted(): boolean {
    return this.#unstarted !== undefined;
  }

  /** There is a container. */
  started(): void {
    this.#unstarted = undefined;
  }

  /** No container came of what the account was told: it knows again what it knew before. */
  async withdraw(settlement: Promise<Settlement>): Promise<void> {
    const before = this.#unstarted;
    this.#unstarted = undefined;
    this.#registeredAt = 0;
    if (before === "nothing") await this.destroyed(this.owner, settlement);
    else await this.#tell(() => this.account(this.owner).sandboxStopped(this.owner.sandbox));
  }

  /** A run has ended, which is a use as well: what it left is not to be taken for long unused. */
  async used(): Promise<void> {
    this.#usedAt = Date.now();
    if (this.#registeredAt > 0) await this.register(this.owner);
  }

  /** Tells the account that the container stopped. */
  stopped(): void {
    this.#registeredAt = 0;
    this.note("stop");
    const owner = this.#owner;
    if (owner) this.#ctx.waitUntil(this.#tell(() => this.account(owner).sandboxStopped(owner.sandbox)));
  }

  /** Tells the account that the sandbox is no more. Answers whether the account knew of it. */
  async destroyed(owner: Owner, settlement: Promise<Settlement>): Promise<boolean> {
    const known = await this.#tell(async () =>
      this.account(owner).sandboxDestroyed(owner.sandbox, await settlement),
    );
    this.#registeredAt = 0;
    this.#unstarted = undefined;
    return known;
  }

  /** A line in the log. */
  note(action: SandboxEvent["action"]): void {
    if (!this.#owner) return;
    const { principalID: principal, sandbox } = this.#owner;
    log(parseConfig(this.#env), { event: "sandbox", action, principal, sandbox });
  }

  #tell<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#told.then(work);
    this.#told = mine.catch(() => undefined);
    return mine;
  }

  /** Tells the account how many bytes the sandbox holds, where that could be found out. */
  async measured(bytes: number | undefined): Promise<void> {
    const { owner } = this;
    if (bytes !== undefined) await this.#tell(() => this.account(owner).sandboxSize(owner.sandbox, bytes));
  }
}
