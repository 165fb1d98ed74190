/** A model of the sandbox without its actor, for lifecycle.test.ts: container, account and storage. Time is virtual. */
import { vi } from "vitest";
import type { Owner } from "../../../src/actors/account-calls.ts";
import type { Lifecycle } from "../../../src/actors/lifecycle.ts";

export const HOUR_MS = 3_600_000;

/** Faults that the test can set. Each happens once, except "saves fail", which lasts until the test removes it. */
export const FAULTS = [
  "start fails",
  "starts halfway",
  "restore fails",
  "save hangs",
  "upload hangs",
  "rollback fails",
  "refuse",
  "enforce fails",
  "saves fail",
  "end fails",
] as const;
export type Fault = (typeof FAULTS)[number];

export class FakeContainer {
  /** Undefined until the workspace is restored. */
  writes: Set<number> | undefined;
  isAlive = true;
  /** Whether it has died and the platform has not noticed yet. */
  isBroken = false;
  isEnding = false;
  /** Whether the sandbox was rolled back since this container started. */
  isOutdated = false;
  /** 1 for the first container that was started, 2 for the second, and so on. */
  readonly number: number;
  /** The network policy in force. */
  readonly policy: number;

  constructor(number: number, policy: number) {
    this.number = number;
    this.policy = policy;
  }
}

/** A call or a run in progress. */
export class Use implements Owner {
  readonly principalID = "p";
  readonly sandbox = "main";
  readonly mayStart: boolean | "ifKnown";
  readonly begunAt: number;
  /** Whether a container ran when the call or run began. */
  readonly isRunning: boolean;
  /** Whether a container may be started for it. */
  isStarter: boolean;
  /** The last container in which the call or run worked. */
  last: FakeContainer | undefined;
  /** The signal of that container while the call or run works in it. */
  container: AbortSignal | undefined;

  constructor({ turn, account, container }: World, mayStart: boolean | "ifKnown") {
    this.mayStart = mayStart;
    this.begunAt = turn;
    this.isRunning = container !== undefined;
    this.isStarter = mayStart === "ifKnown" ? account.isKnown || this.isRunning : mayStart;
  }
}

interface WorldActor {
  readonly lifecycle: Lifecycle;
  readonly pending: ReadonlySet<Promise<unknown>>;
  /** How many finished rollbacks `onRestore` has not reported yet. */
  readonly finishedRollbacks: number;
  follow(work: Promise<unknown>): void;
  reportEnd(): void;
}

/** The state that survives an eviction of the actor. `problems` has the violations that the checks found. */
export abstract class World {
  readonly problems: string[] = [];
  abstract actor: WorldActor;
  /** Counts how often time had to pass before anything else could happen. */
  waits = 0;
  /** Counts the turns of the test. */
  turn = 0;
  container: FakeContainer | undefined;
  account = { isKnown: false, isRunning: false, settings: 0 };
  settings = 0;
  /** The last acknowledged settings that no acknowledged destruction removed. A destruction that fails removes none. */
  acknowledgedSettings = 0;
  saved = new Set<number>();
  saves = 0;
  /** The acknowledged writes, without those that were lost in an allowed way. */
  acknowledged = new Set<number>();
  /** The container whose workspace was restored, according to the actor's storage. */
  restoredContainer: FakeContainer | undefined;
  isRollingBack = false;
  /** Whether the container must not be used any more, according to the actor's storage. */
  isContainerOver = false;
  policy = { version: 0, since: 0, isEnforced: true };
  usedAt = 0;
  keptAt = 0;
  readonly faults = new Set<Fault>();
  /** Counts what has happened, to explain the errors of calls. */
  readonly count = { starts: 0, faults: 0, interruptions: 0 };
  /** Whether a save has hung, so that calls may wait in vain. */
  hasHung = false;
  /** Whether a container ended and the account may not know. */
  isEndUnreported = false;
  /** Whether the account may count a container that an evicted actor did not start. */
  isLeaked = false;
  #operations: (() => void)[] = [];

  /** Creates the next actor. */
  protected abstract wake(): void;

  check(holds: boolean, problem: string): void {
    if (!holds) this.problems.push(problem);
  }

  /** Completes one waiting operation, and waits until everything that follows from it has happened. Returns false if none waits. */
  async complete(choice: number): Promise<boolean> {
    const [operation] = this.#operations.splice(choice % Math.max(1, this.#operations.length), 1);
    operation?.();
    await this.settle();
    return operation !== undefined;
  }

  async settle(): Promise<void> {
    this.turn++;
    vi.advanceTimersByTime(1);
    for (let step = 0; step < 50; step++) await Promise.resolve();
  }

  /** Completes all operations. When none is left, time passes. */
  async completeAll(): Promise<void> {
    await this.settle();
    let idle = 0;
    for (let turns = 0; this.actor.pending.size > 0 || this.#operations.length > 0; turns++) {
      const hasWork = (await this.complete(0)) || this.#operations.length > 0;
      idle = hasWork ? 0 : idle + 1;
      // What follows from an operation may take several turns, and the last work may end in the tenth.
      if (idle < 10 || this.actor.pending.size === 0) continue;
      if (vi.getTimerCount() === 0 || turns > 50_000) return this.check(false, "a call that never ends");
      this.waits++;
      vi.advanceTimersToNextTimer();
      idle = 0;
    }
  }

  /** An operation outside of the actor. */
  operation(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#operations.push(resolve);
    return promise;
  }

  /** Whether the current operation has this fault. A fault happens once, except "saves fail". */
  consumeFault(fault: Fault): boolean {
    const isSet = this.faults.has(fault);
    if (isSet) this.count.faults++;
    if (fault !== "saves fail") this.faults.delete(fault);
    return isSet;
  }

  /** The actor is evicted, and its container may die before the next actor. */
  evict(isKilled: boolean): void {
    this.policy.isEnforced = false;
    // clearAllTimers also resets the time.
    const now = Date.now();
    vi.clearAllTimers();
    vi.setSystemTime(now);
    const { container } = this;
    if (container && isKilled) {
      this.removeContainer(container);
      this.loseUnsaved();
    }
    if (this.container) this.container.isEnding = false;
    else {
      this.isLeaked = this.account.isRunning;
      this.isEndUnreported = true;
    }
    // Only the account may know a change of settings that the eviction interrupted.
    this.account.settings = this.settings = this.acknowledgedSettings = 0;
    this.wake();
    if (container && isKilled) this.actor.follow(this.operation().then(() => this.actor.reportEnd()));
  }

  /** The container dies. The platform notices later, and reports it after that. */
  async die(): Promise<void> {
    const { container } = this;
    if (!container?.isAlive || container.isBroken) return;
    container.isBroken = true;
    this.count.interruptions++;
    await this.operation();
    if (!container.isAlive) return;
    this.removeContainer(container);
    this.loseUnsaved();
    await this.operation();
    this.actor.reportEnd();
  }

  removeContainer(container: FakeContainer): void {
    container.isAlive = false;
    this.isEndUnreported = true;
    if (this.container === container) this.container = undefined;
  }

  loseUnsaved(): void {
    this.acknowledged = new Set([...this.acknowledged].filter((write) => this.saved.has(write)));
  }

  get isAllSaved(): boolean {
    return [...this.acknowledged].every((write) => this.saved.has(write));
  }

  /** Checks the state when no call, run or operation is in progress. */
  checkWhenIdle(): void {
    const { lifecycle } = this.actor;
    const isThere = this.container !== undefined;
    // Before the other checks, because `isRunning` and `isAlive` report a missing container to the account.
    const isCounted = this.account.isRunning === isThere;
    this.check(isCounted || (this.isLeaked && !isThere), "the account is wrong about the container");
    this.check(lifecycle.isRunning === isThere, "isRunning is wrong");
    this.check(lifecycle.isAlive === isThere, "isAlive is wrong");
    this.check(
      [this.settings, this.account.settings].every((one) => one === this.acknowledgedSettings),
      "settings are wrong",
    );
    const { container, policy } = this;
    const isEnforced = container === undefined || container.policy === policy.version;
    this.check(isEnforced || !policy.isEnforced, "an earlier network policy is in force");
    this.check(this.actor.finishedRollbacks === 0, "onRestore has not reported a rollback");
  }
}
