/**
 * Tests the lifecycle of a sandbox against a model of its container, account and saved workspace: random calls, runs, ends and
 * faults, with every operation completed in a random order. Time is virtual. A failure prints the seed.
 */
import * as fc from "../../setup/chance.ts";
import { beforeEach, expect, it, vi } from "vitest";
import { containerEnded, containerGone } from "../../../src/container/texts.ts";
import { ToolError, isGone } from "../../../src/shared/errors.ts";
import { Actor } from "./lifecycle-fakes.ts";
import { BEGINNINGS, EXAMPLES, type Step, steps } from "./lifecycle-steps.ts";
import { FAULTS, type Fault, HOUR_MS, Use, World } from "./lifecycle-world.ts";

const MAX_CONTAINERS = 3;
const SHORT_MS = 3;

interface CallOptions {
  mayStart?: Use["mayStart"] | undefined;
  /** Whether the call is repeated in the next container. */
  isRepeated?: boolean;
  waitMs?: number | undefined;
}

class Sandbox extends World {
  actor = new Actor(this);
  #writes = 0;
  #settingsCount = 0;
  #disconnectedAt = -1;

  protected wake(): void {
    this.actor = new Actor(this);
  }

  /** Does work that counts as a call. Returns whether it succeeded. */
  async #use(work: (use: Use) => Promise<void>, options: CallOptions = {}): Promise<boolean> {
    const { mayStart = true } = options;
    const { actor } = this;
    const use = new Use(this, mayStart);
    const before = { ...this.count };
    // The call finds that the container has died, like a call that began before.
    if (this.container?.isBroken) before.interruptions--;
    actor.uses.add(use);
    try {
      await work(use);
      return true;
    } catch (thrown) {
      const error = await actor.lifecycle.explainError(thrown);
      this.#checkError(error, use, before, options);
      return false;
    } finally {
      actor.uses.delete(use);
      const { releases } = actor;
      actor.lifecycle.release();
      this.check(actor.releases > releases, "onRelease was not called after the end of a call");
    }
  }

  /** Makes a call that uses the container, like the class `Calls`. */
  #call(
    work: (use: Use) => Promise<void>,
    { isRepeated = true, waitMs, mayStart }: CallOptions = {},
  ): Promise<boolean> {
    const { lifecycle } = this.actor;
    return this.#use(
      async (use) => {
        const attempt = async () => {
          while (!lifecycle.container) await lifecycle.waitUntilReady(waitMs);
          await work(use).finally(() => (use.container = undefined));
        };
        await lifecycle.admit(use);
        await (isRepeated ? lifecycle.retryInNextContainer(use, attempt) : attempt());
      },
      { isRepeated, waitMs, mayStart },
    );
  }

  /** Checks that an event during the call explains its error. */
  #checkError(
    error: unknown,
    { last, mayStart, isRunning }: Use,
    before: World["count"],
    { isRepeated = false, waitMs }: CallOptions,
  ): void {
    const code = error instanceof ToolError ? error.code : "internal";
    const interruptions = this.count.interruptions - before.interruptions;
    const isInterrupted = interruptions >= (isRepeated ? MAX_CONTAINERS : 1);
    // A container that the platform failed to end is not used any more.
    const isStillThere = last?.isAlive === true && !last.isEnding && !this.isContainerOver;
    const isFault = this.count.faults > before.faults;
    const explanations: Partial<Record<typeof code, boolean>> = {
      sandbox_restarted: isInterrupted && !isStillThere,
      connection_lost: isInterrupted && isStillThere,
      sandbox_unavailable: isFault,
      quota_exceeded: isFault,
      file_system: isFault,
      not_found: isFault || (mayStart !== true && (!isRunning || interruptions > 0)),
      no_answer: waitMs !== undefined || isFault || this.hasHung,
    };
    this.check(explanations[code] === true, `an error without a reason: ${String(error)}`);
  }

  /** Works in the container for some time, and completes the work if the container is still there. */
  async #work(use: Use, begin: (writes: Set<number>) => void, done: () => void = () => undefined) {
    const { container, writes, life } = this.actor.use(use);
    const begunAt = this.turn;
    begin(writes);
    await this.actor.waitForStep();
    if (life.aborted) throw containerEnded();
    if (container.isBroken || this.#disconnectedAt >= begunAt) throw containerGone();
    done();
  }

  write(options?: CallOptions): Promise<boolean> {
    const write = this.#writes++;
    const begin = (writes: Set<number>) => writes.add(write);
    return this.#call((use) => this.#work(use, begin, () => this.acknowledged.add(write)), options);
  }

  read(options?: CallOptions): Promise<boolean> {
    const begin = (writes: Set<number>) =>
      this.check(
        [...this.acknowledged].every((write) => writes.has(write)),
        "an acknowledged write is gone",
      );
    return this.#call((use) => this.#work(use, begin), options);
  }

  checkpoint(): Promise<boolean> {
    const begunAt = Date.now();
    return this.#use(async () => {
      await this.actor.lifecycle.checkpoint("", { forCheckpoint: undefined });
      this.check(
        this.keptAt <= begunAt,
        "a checkpoint claims to contain changes that came after its beginning",
      );
    });
  }

  #configure(): Promise<boolean> {
    const settings = ++this.#settingsCount;
    const register = () => this.actor.configure(settings);
    return this.#use(() =>
      this.actor.lifecycle.unlessDestroyed(register, () => {
        this.settings = this.acknowledgedSettings = settings;
      }),
    );
  }

  /** Starts a run, which outlasts its call. */
  async #run(isCancelled: boolean): Promise<void> {
    const { actor } = this;
    const { lifecycle, runs } = actor;
    const use = new Use(this, true);
    const { interruptions } = this.count;
    let isOver = false;
    let hasBegun = false;
    const begin = async () => {
      await lifecycle.waitUntilReadyForRun(() => isOver);
      hasBegun = true;
      if (!isOver) await this.#work(use, () => undefined);
    };
    const isAdmitted = await this.#use(async (call) => {
      await lifecycle.admit(call);
      runs.add(use);
    });
    if (!isAdmitted) return;
    const running = begin().catch((error: unknown) => {
      const mayFail = isOver || hasBegun || this.count.interruptions - interruptions >= MAX_CONTAINERS;
      const isExpected = error instanceof ToolError && (!isGone(error) || mayFail);
      this.check(isExpected, `a run failed: ${String(error)}`);
    });
    if (isCancelled) {
      await actor.waitForStep();
      isOver = true;
      use.isStarter = false;
    }
    await running;
    use.container = undefined;
    runs.delete(use);
    lifecycle.onRunEnd();
  }

  /** Checks that a stop leaves no earlier container. */
  async #checkStop(stop: () => Promise<boolean>): Promise<void> {
    const { starts } = this.count;
    if (!(await stop())) return;
    const { container, actor } = this;
    const isOther = (number: number | undefined) => number === undefined || number > starts;
    this.check(isOther(container?.number) && isOther(actor.starting), "a container that did not stop");
  }

  /** Checks that no save delays the end. */
  async #destroy(): Promise<void> {
    const { waits } = this;
    this.count.interruptions++;
    // Calls in the container fail from now on, even if its end has to wait for another one.
    if (this.container) this.container.isEnding = true;
    await this.actor.lifecycle.destroy(OWNER, "workspace");
    this.acknowledgedSettings = 0;
    this.check(this.waits === waits, "a destruction that waits");
  }

  async #reap(): Promise<boolean> {
    const { usedAt } = this;
    const isRemoved = await this.actor.lifecycle.destroyIfUnused(OWNER, () => this.usedAt > usedAt);
    if (isRemoved) this.acknowledgedSettings = 0;
    return isRemoved;
  }

  async #doOwnWork(): Promise<void> {
    const { actor } = this;
    const { lifecycle } = actor;
    actor.ownWork++;
    try {
      while (!lifecycle.container) await lifecycle.waitUntilReady();
      actor.use();
    } finally {
      actor.ownWork--;
    }
  }

  act(step: Step): void {
    const { lifecycle, uses, runs } = this.actor;
    const work: Record<Exclude<Step, Fault>, () => unknown> = {
      write: () => this.write(),
      read: () => this.read(),
      append: () => this.write({ isRepeated: false }),
      "read only": () => this.read({ mayStart: false }),
      "read if known": () => this.read({ mayStart: "ifKnown" }),
      "hurried read": () => this.read({ waitMs: SHORT_MS }),
      "set up": () => this.#call(() => this.actor.replaceState()),
      checkpoint: () => this.checkpoint(),
      configure: () => this.#configure(),
      run: () => this.#run(false),
      "cancelled run": () => this.#run(true),
      "own work": () => this.#doOwnWork(),
      idle: () => this.#checkStop(() => lifecycle.stopIfUnused()),
      room: () => this.#checkStop(() => lifecycle.makeRoom(SHORT_MS)),
      reap: () => this.#checkStop(() => this.#reap()),
      destroy: () => this.#destroy(),
      "roll back": () => this.#use(async () => void (await lifecycle.restoreCheckpoint("known", SETTINGS))),
      narrow: () => {
        this.policy = { version: this.policy.version + 1, since: this.turn, isEnforced: true };
        this.count.interruptions++;
        return lifecycle.enforceNetwork();
      },
      die: () => this.die(),
      disconnect: () => {
        this.#disconnectedAt = this.turn;
        this.count.interruptions++;
      },
      evict: () => this.evict(false),
      "evict and kill": () => this.evict(true),
      wait: () => vi.setSystemTime(Date.now() + 60_000),
      "is it in use?": () => this.check(lifecycle.isInUse === uses.size + runs.size > 0, "isInUse is wrong"),
      "is it running?": () =>
        this.check(!lifecycle.isRunning || this.container !== undefined, "isRunning is wrong"),
      "is it alive?": () => {
        const isThere = this.container !== undefined;
        this.check(lifecycle.isAlive ? isThere || this.account.isRunning : !isThere, "isAlive is wrong");
      },
    };
    if (isFault(step)) this.faults.add(step);
    else this.actor.follow(this.#perform(step, work[step]));
  }

  async #perform(step: Step, work: () => unknown): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.check(error instanceof ToolError, `${step} failed: ${String(error)}`);
    }
  }
}

const OWNER = { principalID: "p", sandbox: "main" };
const SETTINGS = { forCheckpoint: undefined };
const isFault = (step: Step): step is Fault => FAULTS.some((fault) => fault === step);

/** Each sequence of events ends with one of these ways to stop the sandbox. */
const STOPS: Record<string, (sandbox: Sandbox) => Promise<void>> = {
  async idle(sandbox) {
    const { lifecycle, uses } = sandbox.actor;
    const use = new Use(sandbox, true);
    uses.add(use);
    const { saves } = sandbox;
    expect(await completeWork(sandbox, lifecycle.stopIfUnused())).toBe(false);
    expect(sandbox.saves).toBe(saves);
    uses.delete(use);
    expect(
      await completeWork(
        sandbox,
        lifecycle.destroyIfUnused(OWNER, () => true),
      ),
    ).toBe(false);
    expect(await completeWork(sandbox, lifecycle.stopIfUnused())).toBe(true);
    expect(await completeWork(sandbox, lifecycle.makeRoom(SHORT_MS))).toBe(true);
  },
  async "for room"(sandbox) {
    const makeRoom = () => completeWork(sandbox, sandbox.actor.lifecycle.makeRoom(1000));
    expect(await makeRoom()).toBe(false);
    vi.setSystemTime(Date.now() + 31_000);
    sandbox.faults.add("save hangs");
    const beganAt = Date.now();
    const isSlow = sandbox.actor.lifecycle
      .makeRoom(1000)
      .then((hasRoom) => hasRoom || Date.now() - beganAt > 2000);
    expect(await completeWork(sandbox, isSlow)).toBe(false);
    expect(await makeRoom()).toBe(true);
  },
  async "for room after a checkpoint"(sandbox) {
    await completeWork(sandbox, sandbox.checkpoint());
    expect(await completeWork(sandbox, sandbox.actor.lifecycle.makeRoom(1000))).toBe(true);
  },
  async "unsaved after an hour"(sandbox) {
    sandbox.faults.add("saves fail");
    const stop = () => completeWork(sandbox, sandbox.actor.lifecycle.stopIfUnused());
    expect(await stop()).toBe(false);
    vi.setSystemTime(Date.now() + HOUR_MS / 2);
    expect(await stop()).toBe(false);
    vi.setSystemTime(Date.now() + HOUR_MS / 2);
    expect(await stop()).toBe(true);
  },
};

async function completeWork<T>(sandbox: Sandbox, work: Promise<T>): Promise<T> {
  sandbox.actor.follow(work);
  await sandbox.completeAll();
  expect(sandbox.problems).toEqual([]);
  return await work;
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));

const turns = fc.array(fc.nat(5), { maxLength: 8 });

it("after any sequence of calls, faults and ends, acknowledged changes exist, the account's records are correct, and the sandbox works", async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...BEGINNINGS),
    fc.array(fc.tuple(steps, turns), { minLength: 3, maxLength: 14 }),
    fc.constantFrom(...Object.keys(STOPS)),
    async (beginning, sequence, stop) => {
      vi.clearAllTimers();
      const sandbox = new Sandbox();
      for (const [index, [step, choices]] of sequence.entries()) {
        sandbox.act(beginning[index] ?? step);
        await sandbox.settle();
        for (const choice of choices) await sandbox.complete(choice);
      }
      await sandbox.completeAll();
      sandbox.faults.clear();
      sandbox.checkWhenIdle();
      expect(sandbox.problems).toEqual([]);
      // Whatever happened, the sandbox can be used.
      expect(await completeWork(sandbox, sandbox.read())).toBe(true);
      expect(await completeWork(sandbox, sandbox.write())).toBe(true);
      sandbox.checkWhenIdle();
      expect(sandbox.container?.policy).toBe(sandbox.policy.version);
      await STOPS[stop]?.(sandbox);
      sandbox.checkWhenIdle();
      expect(sandbox.container).toBeUndefined();
      expect(sandbox.problems).toEqual([]);
    },
  );
  await fc.assert(property, { numRuns: 3000, examples: EXAMPLES });
});

it("a container with an earlier network policy ends within a minute, although its save does not end", async () => {
  const sandbox = new Sandbox();
  expect(await completeWork(sandbox, sandbox.write())).toBe(true);
  sandbox.faults.add("save hangs");
  const begunAt = Date.now();
  sandbox.act("narrow");
  await sandbox.completeAll();
  expect(Date.now() - begunAt).toBeLessThan(60_000);
  expect(sandbox.container).toBeUndefined();
  expect(await completeWork(sandbox, sandbox.read())).toBe(true);
  expect(sandbox.container?.policy).toBe(sandbox.policy.version);
});

it.each([
  ["before", 0],
  ["during", 1],
])("a run that has ended %s the registration of its sandbox starts no container", async (_when, asked) => {
  const sandbox = new Sandbox();
  expect(await completeWork(sandbox, sandbox.write())).toBe(true);
  sandbox.act("destroy");
  await sandbox.completeAll();
  const { starts } = sandbox.count;
  let left = asked;
  const waiting = sandbox.actor.lifecycle.waitUntilReadyForRun(() => left-- <= 0);
  const outcome = waiting.then(
    () => "is ready",
    (error: unknown) => (isGone(error) ? "has ended" : error),
  );
  expect(await completeWork(sandbox, outcome)).toBe("has ended");
  expect(sandbox.count.starts).toBe(starts);
  expect(sandbox.account.isRunning).toBe(false);
});

it.each([0, 1, 2, 3, 4, 5])(
  "a write during the stop of an idle sandbox is in its next container, if it does not keep this one: after %d steps of the stop",
  async (already) => {
    const sandbox = new Sandbox();
    expect(await completeWork(sandbox, sandbox.write())).toBe(true);
    sandbox.act("idle");
    await sandbox.settle();
    for (let step = 0; step < already; step++) await sandbox.complete(0);
    const written = sandbox.write();
    sandbox.actor.follow(written);
    await sandbox.settle();
    // If the write does not wait for the stop, it gets ahead of it.
    for (let step = 0; step < 6; step++) await sandbox.complete(1);
    expect(await completeWork(sandbox, written)).toBe(true);
    expect(await completeWork(sandbox, sandbox.read())).toBe(true);
    expect(sandbox.container).toBeDefined();
  },
);

it("the server's own work starts no container after the last one has died", async () => {
  const sandbox = new Sandbox();
  expect(await completeWork(sandbox, sandbox.write())).toBe(true);
  sandbox.act("die");
  await sandbox.completeAll();
  const { starts } = sandbox.count;
  const work = sandbox.actor.lifecycle.waitUntilReady();
  await expect(completeWork(sandbox, work)).rejects.toSatisfy(isGone);
  expect(sandbox.count.starts).toBe(starts);
});
