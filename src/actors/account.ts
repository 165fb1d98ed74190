/** One principal's sandboxes and quota: a Durable Object that is never on the path of a warm call. */
import { DurableObject } from "cloudflare:workers";
import type { Stored } from "../runs/store.ts";
import { type TaskEntry, TaskIndex } from "../tasks/task-list.ts";
import { type Env, type Limits, parseConfig } from "../shared/config.ts";
import type { Outcome } from "../shared/errors.ts";
import { within } from "../shared/within.ts";
import { quotaError } from "./lease.ts";
import { actorName } from "../shared/names.ts";
import { type Grant, type LeaseRequest, Quota, type Settlement } from "./quota.ts";
import type { Spent } from "../shared/days.ts";
import type { Owner } from "./account-link.ts";
import type { Preview } from "./previews.ts";
import type { Condition, Sandbox } from "./sandbox.ts";

export interface SandboxRecord {
  name: string;
  /** Whether its container runs. A stopped sandbox starts with the next call, empty. */
  state: "running" | "stopped";
  /** ISO 8601. */
  created_at: string;
  /** ISO 8601, exact to a minute. */
  last_used_at: string;
  /** Bytes of its files, as of its last use or a minute before; left out where nobody has measured them. */
  size_bytes?: number;
  /** Its ports that can be reached from outside. */
  previews: Preview[];
}

/** A principal's sandboxes, and what of each limit is used. */
export interface AccountView {
  sandboxes: SandboxRecord[];
  limits: Limits;
  /** Seconds that runs have used today (UTC). */
  runSecondsToday: number;
  /** Tokens of the model that tasks have used today (UTC). */
  modelTokensToday: number;
  /** Bytes of records, logs, artifacts and archives, as of some seconds ago. */
  storedBytes: number;
}

/** How often idle sandboxes are looked for, milliseconds. */
const REAP_EVERY = 3_600_000;

const HOUR_MS = 3_600_000;

/** How long a sandbox may take to say whether it runs, milliseconds. */
const ASK_MS = 2000;

/** Stored as the size until the first measurement. */
const UNMEASURED = -1;

export class Account extends DurableObject<Env> {
  readonly #sql: SqlStorage;
  readonly #quota: Quota;
  readonly #tasks: TaskIndex;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#quota = new Quota(this.#sql, parseConfig(env).limits);
    this.#tasks = new TaskIndex(this.#sql, parseConfig(env).resultTTLDays);
    this.#sql.exec(
      "CREATE TABLE IF NOT EXISTS storage (sandbox TEXT PRIMARY KEY, bytes INTEGER NOT NULL, oldest INTEGER) WITHOUT ROWID",
    );
    this.#sql.exec(
      "CREATE TABLE IF NOT EXISTS sandboxes (name TEXT PRIMARY KEY, state TEXT NOT NULL, created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, size_bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    );
  }

  /** A sandbox is about to start, or is in use. Answers whether it is new, or the limit that it would exceed. */
  async sandboxUsed({ principalID, sandbox }: Owner): Promise<Outcome<boolean>> {
    const now = Date.now();
    const { limits } = parseConfig(this.env);
    const { known, count } = this.#sql
      .exec<{ known: number; count: number }>(
        "SELECT coalesce(sum(name = ?), 0) AS known, count(*) AS count FROM sandboxes",
        sandbox,
      )
      .one();
    if (!known && count >= limits.sandboxes) {
      const refused = { limit: "sandboxes", allowed: limits.sandboxes, used: count } as const;
      return { ok: false, failure: quotaError(refused).toFailure() };
    }
    const allowed = limits.runningSandboxes;
    // No await between the last look at the table and the INSERT below: two calls cannot both take the last place.
    for (let others = this.#running(sandbox); others.length >= allowed; others = this.#running(sandbox)) {
      if (await this.#makeRoom(principalID, others)) continue;
      const refused = { limit: "runningSandboxes", allowed, used: others.length } as const;
      return { ok: false, failure: quotaError(refused).toFailure() };
    }
    this.#sql.exec(
      `INSERT INTO sandboxes (name, state, created_at, last_used_at, size_bytes) VALUES (?1, 'running', ?2, ?2, ?3)
       ON CONFLICT (name) DO UPDATE SET state = 'running', last_used_at = ?2,
         size_bytes = CASE state WHEN 'stopped' THEN ?3 ELSE size_bytes END`,
      sandbox,
      now,
      UNMEASURED,
    );
    this.ctx.storage.kv.put("principal", principalID);
    if (!known && (await this.ctx.storage.getAlarm()) === null)
      await this.ctx.storage.setAlarm(now + REAP_EVERY);
    return { ok: true, value: !known };
  }

  /** Other sandboxes whose container runs or is being started, the least recently used first. None when `except` runs itself. */
  #running(except: string): string[] {
    const names = this.#sql
      .exec<{ name: string }>("SELECT name FROM sandboxes WHERE state = 'running' ORDER BY last_used_at")
      .toArray()
      .map(({ name }) => name);
    return names.includes(except) ? [] : names;
  }

  /** Stops one of these sandboxes, unless all are in use. */
  async #makeRoom(principalID: string, names: readonly string[]): Promise<boolean> {
    for (const name of names) {
      const actor = await this.#sandbox(principalID, name);
      const isStopped = await actor.stopIfIdle({ principalID, sandbox: name }).catch(() => false);
      if (!isStopped) continue;
      this.sandboxStopped(name);
      return true;
    }
    return false;
  }

  /** Counts tokens of the model, by day; answers what is used of today's. */
  spendModelTokens(spent: Spent): { used: number; allowed: number } {
    this.#quota.spendModelTokens(spent);
    const { modelTokensPerDay: allowed } = parseConfig(this.env).limits;
    return { used: this.#quota.modelTokensUsed(Date.now()), allowed };
  }

  /** How much a running sandbox holds. */
  sandboxSize(name: string, bytes: number): void {
    this.#sql.exec("UPDATE sandboxes SET size_bytes = ? WHERE name = ? AND state = 'running'", bytes, name);
  }

  /** The container of a known sandbox stopped; one that was destroyed stays gone. */
  sandboxStopped(name: string): void {
    this.#sql.exec("UPDATE sandboxes SET state = 'stopped', size_bytes = 0 WHERE name = ?", name);
  }

  /** Answers whether the sandbox was known. Its lease ends, and what its runs have used stays counted. */
  sandboxDestroyed(name: string, settlement: Settlement): boolean {
    this.#quota.settle(name, settlement);
    return this.#sql.exec("DELETE FROM sandboxes WHERE name = ?", name).rowsWritten > 0;
  }

  /**
   * Takes what the runs of a sandbox have stored. Beyond the limit the oldest runs of all sandboxes are removed; answers
   * whether it is still exceeded, because the runs that are left have not ended.
   */
  async sandboxStored({ principalID, sandbox }: Owner, stored: Stored): Promise<boolean> {
    this.#putStored(sandbox, stored);
    const { storageBytes } = parseConfig(this.env).limits;
    const tried = new Set<string>();
    for (let over = this.#stored() - storageBytes; over > 0; over = this.#stored() - storageBytes) {
      const [first, next] = this.#sql
        .exec<{ sandbox: string; oldest: number }>(
          "SELECT sandbox, oldest FROM storage WHERE oldest IS NOT NULL ORDER BY oldest",
        )
        .toArray()
        .filter(({ sandbox: name }) => !tried.has(name));
      if (!first) return true;
      const actor = await this.#sandbox(principalID, first.sandbox);
      const left = await actor.giveUpRuns(over, (next?.oldest ?? Date.now()) + 1).catch(() => undefined);
      if (left) this.#putStored(first.sandbox, left);
      // One that had nothing to remove is not asked again in this call.
      if (!left || left.oldest === first.oldest) tried.add(first.sandbox);
    }
    return false;
  }

  #putStored(sandbox: string, { bytes, oldest }: Stored): void {
    if (bytes === 0) this.#sql.exec("DELETE FROM storage WHERE sandbox = ?", sandbox);
    else this.#sql.exec("INSERT OR REPLACE INTO storage VALUES (?, ?, ?)", sandbox, bytes, oldest ?? null);
  }

  /** Bytes stored for all sandboxes, destroyed ones included. */
  #stored(): number {
    return this.#sql.exec<{ sum: number }>("SELECT coalesce(sum(bytes), 0) AS sum FROM storage").one().sum;
  }

  /** A task has started or ended. */
  taskSeen(task: TaskEntry): void {
    this.#tasks.put(task);
  }

  /** Tasks of all sandboxes, the newest first; those before the one of id `before` when it is given. */
  listTasks(limit: number, before?: string): TaskEntry[] {
    return this.#tasks.list(limit, before);
  }

  /** The names of the sandboxes, in their order, and whether each was running when it was last heard of. */
  sandboxes(): { name: string; isRunning: boolean }[] {
    return this.#sql
      .exec<{ name: string; state: string }>("SELECT name, state FROM sandboxes ORDER BY name")
      .toArray()
      .map(({ name, state }) => ({ name, isRunning: state === "running" }));
  }

  /** The most recently used sandbox first. */
  async view(): Promise<AccountView> {
    type Row = {
      name: string;
      state: SandboxRecord["state"];
      created_at: number;
      last_used_at: number;
      size_bytes: number;
    };
    const rows = this.#sql.exec<Row>("SELECT * FROM sandboxes ORDER BY last_used_at DESC, name").toArray();
    const running = rows.filter(({ state }) => state === "running").map(({ name }) => name);
    const conditions = await this.#conditions(running);
    const hasEnded = (name: string) => conditions.get(name)?.isAlive === false;
    return {
      sandboxes: rows.map(({ name, state, created_at, last_used_at, size_bytes }) => ({
        name,
        state: hasEnded(name) ? "stopped" : state,
        created_at: new Date(created_at).toISOString(),
        last_used_at: new Date(last_used_at).toISOString(),
        size_bytes: hasEnded(name) ? 0 : size_bytes === UNMEASURED ? undefined : size_bytes,
        previews: conditions.get(name)?.previews ?? [],
      })),
      limits: parseConfig(this.env).limits,
      runSecondsToday: this.#quota.secondsUsed(Date.now()),
      storedBytes: this.#stored(),
      modelTokensToday: this.#quota.modelTokensUsed(Date.now()),
    };
  }

  /**
   * Asks the sandboxes that are recorded as running whether they still are: a restart of the machine, or the loss of a
   * container while its actor slept, ends them without a report. The record stays, since a container may be starting.
   * A sandbox that does not answer in time is left out.
   */
  async #conditions(names: readonly string[]): Promise<ReadonlyMap<string, Condition>> {
    const principalID = this.ctx.storage.kv.get<string>("principal");
    if (principalID === undefined) return new Map();
    const asked = names.map(async (name): Promise<[string, Condition][]> => {
      const actor = await this.#sandbox(principalID, name);
      const condition = await within(ASK_MS, actor.condition()).catch(() => undefined);
      return condition ? [[name, condition]] : [];
    });
    return new Map((await Promise.all(asked)).flat());
  }

  /** Lends a sandbox what it asks for, after calling back what other sandboxes hold and do not use, where that is needed. */
  async lease(owner: Owner, request: LeaseRequest): Promise<Grant> {
    const grant = this.#quota.lease(owner.sandbox, request, Date.now());
    if (!grant.refused) return grant;
    await Promise.all(
      this.#quota.holders(owner.sandbox).map(async (sandbox) => {
        const actor = await this.#sandbox(owner.principalID, sandbox);
        // A lease that cannot be called back counts until it ends.
        const settlement = await actor.settleLease().catch(() => undefined);
        if (settlement) this.#quota.settle(sandbox, settlement);
      }),
    );
    return this.#quota.lease(owner.sandbox, { ...request, spent: new Map() }, Date.now());
  }

  /** Destroys sandboxes that nobody has used for too long. */
  override async alarm(): Promise<void> {
    const principalID = this.ctx.storage.kv.get<string>("principal");
    const idleMs = parseConfig(this.env).sandboxTTLHours * HOUR_MS;
    const before = Date.now() - idleMs;
    const idle = this.#sql
      .exec<{ name: string }>("SELECT name FROM sandboxes WHERE last_used_at < ?", before)
      .toArray();
    if (principalID !== undefined)
      for (const { name } of idle) {
        const actor = await this.#sandbox(principalID, name);
        // A failure waits for the next alarm, and must not keep the others from being destroyed.
        await actor.destroyIfIdle({ principalID, sandbox: name }, idleMs).catch(() => false);
      }
    const { left } = this.#sql.exec<{ left: number }>("SELECT count(*) AS left FROM sandboxes").one();
    if (left > 0) await this.ctx.storage.setAlarm(Date.now() + REAP_EVERY);
  }

  async #sandbox(principalID: string, name: string): Promise<DurableObjectStub<Sandbox>> {
    const sandboxes = this.env.Sandbox as DurableObjectNamespace<Sandbox>;
    return sandboxes.getByName(await actorName(name, principalID));
  }
}
