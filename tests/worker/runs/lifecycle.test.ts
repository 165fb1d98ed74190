/**
 * Tests the lifecycle of a sandbox against a model of its platform, account and saved workspace, with random calls, runs, ends and
 * faults. A scheduler resolves every await in a random order.
 */
import * as fc from "fast-check";
import { expect, it } from "vitest";
import { Lifecycle } from "../../../src/actors/lifecycle.ts";
import type { Subscriber } from "../../../src/actors/lifecycle-state.ts";
import type { ContainerPlatform } from "../../../src/actors/platform/platform.ts";
import { containerGone } from "../../../src/container/texts.ts";
import { ToolError, isGone } from "../../../src/shared/errors.ts";

/** A container of the platform. */
interface Box {
  /** The writes in this container; undefined until its workspace is restored. */
  writes: Set<number> | undefined;
  isAlive: boolean;
  /** Whether its end was requested. */
  isEnding: boolean;
}

const OWNER = { principalID: "p", sandbox: "main" };
const never = new Promise<never>(() => undefined);

const steps = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("write", "read", "run", "cancelled run") },
  { weight: 2, arbitrary: fc.constantFrom("read only", "idle", "room", "reap", "destroy") },
  { weight: 2, arbitrary: fc.constantFrom("die", "narrow", "go back", "go back nowhere", "evict") },
  { weight: 2, arbitrary: fc.constantFrom("start fails", "starts halfway", "restore fails", "refuse") },
);
type Step = typeof steps extends fc.Arbitrary<infer T> ? T : never;

class Model {
  readonly #scheduler: fc.Scheduler;
  lifecycle!: Lifecycle;
  /** Counts the actors. Calls of an earlier actor never complete. */
  #actor = 0;
  box: Box | undefined;
  /** The state of the account. */
  account = { isKnown: false, isRunning: false };
  saved = new Set<number>();
  /** The acknowledged writes that no later loss removed. */
  acknowledged = new Set<number>();
  /** The container that is complete according to the storage, and whether the sandbox is to be rolled back. */
  #whole: Box | undefined;
  #isRestoringCheckpoint = false;
  #fault: Step | undefined;
  #isNarrow = false;
  #boxEnded = () => {};
  /** Calls and runs of this actor, and those that may start a container. */
  #tickets = { calls: 0, starters: 0 };

  #writes = 0;
  readonly problems: string[] = [];
  pending: Promise<unknown>[] = [];

  constructor(scheduler: fc.Scheduler) {
    this.#scheduler = scheduler;
    this.#wake();
  }

  #check(holds: boolean, what: string): void {
    if (!holds) this.problems.push(what);
  }

  /** An operation of this actor that takes some time. */
  async #later(name: string): Promise<void> {
    const actor = this.#actor;
    await this.#scheduler.schedule(Promise.resolve(), name);
    if (actor !== this.#actor) await never;
  }

  #takeFault(fault: Step): boolean {
    const isThere = this.#fault === fault;
    if (isThere) this.#fault = undefined;
    return isThere;
  }

  /** Creates an actor. */
  #wake(): void {
    const actor = ++this.#actor;
    const tickets = { calls: 0, starters: 0 };
    this.#tickets = tickets;
    let ends = 0;
    let ended = 0;
    this.pending = [];
    const isOver = () => actor !== this.#actor;
    // The end that an earlier actor began does not continue.
    if (this.box) this.box.isEnding = false;
    const later = async (name: string) => {
      if (isOver()) await never;
      await this.#later(name);
    };
    let isStarted = this.box?.isAlive === true;
    const events: Subscriber = {
      started: () => {
        this.#check(!isStarted, "a container started before the one before had ended");
        isStarted = true;
      },
      ended: (end) => {
        // A destruction loses these writes, even if its actor is evicted before the account knows.
        if (end === "unsaved_network" || end === "destroy") this.#lose();
        if (isOver()) return;
        isStarted = false;
        this.#whole = undefined;
      },
      isBusy: false,
    };
    const box = () => this.box;
    const platform: ContainerPlatform = {
      get isRunning() {
        return box()?.isAlive === true;
      },
      start: async () => {
        if (isOver()) await never;
        this.#check(!this.box?.isAlive, "two containers");
        this.#check(ends === 0, "a start while a container was being ended");
        this.#check(this.account.isRunning, "a start that the account does not count");
        this.#check(tickets.starters > 0, "a start for nobody who may start one");
        const before = ends + ended;
        await later("start");
        if (this.#takeFault("start fails")) throw new ToolError("sandbox_unavailable", "full");
        // The container may be ended during its start.
        if (ends + ended > before) throw containerGone();
        this.box = { writes: undefined, isAlive: true, isEnding: false };
        await later("ports");
        if (this.#takeFault("starts halfway")) throw new ToolError("sandbox_unavailable", "no answer");
        if (!this.box?.isAlive) throw containerGone();
      },
      end: async () => {
        if (isOver()) await never;
        ends++;
        if (this.box) this.box.isEnding = true;
        await later("end");
        if (this.box) this.box.isAlive = false;
        this.box = undefined;
        ends--;
        ended++;
      },
      fetch: () => never,
      onEnd: (listener) => (this.#boxEnded = listener),
      onIdle: () => undefined,
      used: () => undefined,
      onSweep: () => undefined,
      scheduleSweep: async () => undefined,
    };
    const save = async () => {
      const saving = this.box;
      const writes = saving?.writes && new Set(saving.writes);
      await later("save");
      if (!writes || this.box !== saving || this.#whole !== saving || saving?.isEnding) throw containerGone();
      this.saved = writes;
    };
    const isSaved = () => [...(this.box?.writes ?? [])].every((write) => this.saved.has(write));
    const goesBack = () => this.#isRestoringCheckpoint;
    this.lifecycle = new Lifecycle({
      platform,
      environment: { variables: {} },
      account: {
        owner: { ...OWNER, principalHash: "h" },
        isKnown: async () => {
          await later("known");
          return this.account.isKnown;
        },
        register: async () => {
          await later("register");
          if (this.#takeFault("refuse")) throw new ToolError("quota_exceeded", "one too many");
          const before = this.account.isKnown ? "stopped" : "nothing";
          const wasRunning = this.account.isRunning;
          this.account = { isKnown: true, isRunning: true };
          return wasRunning ? undefined : before;
        },
        withdraw: async (before) => {
          if (isOver()) return;
          this.#check(!this.box?.isAlive, "a withdrawal of a container that runs");
          this.account = { isKnown: before !== "nothing", isRunning: false };
        },
        stopped: () => {
          if (isOver()) return;
          this.#check(!this.box?.isAlive, "an end reported of a container that runs");
          this.account.isRunning = false;
        },
        destroyed: async (_owner, ending) => {
          await later("destroyed");
          this.#check(!this.box?.isAlive, "the container of a destroyed sandbox still runs");
          const wasKnown = this.account.isKnown;
          this.account = { isKnown: false, isRunning: false };
          if (ending === "workspace") this.saved = new Set();
          this.#lose();
          return { wasKnown, wasSaved: false, isKept: false, checkpoints: 0 };
        },
        note: () => undefined,
        isInUse: () => false,
        unusedMs: 86_400_000,
        noteCheckpoint: () => undefined,
      },
      network: {
        starting: () => undefined,
        enforce: async () => {
          await later("enforce");
          const isEnough = !this.#isNarrow || !this.box?.isAlive;
          this.#isNarrow = false;
          return isEnough;
        },
      },
      workspace: {
        resume: () => this.#whole !== undefined,
        restore: async (container) => {
          const restoring = this.box;
          await later("restore");
          if (container.aborted || !restoring || this.box !== restoring) throw containerGone();
          if (this.#takeFault("restore fails")) throw new ToolError("file_system", "R2");
          restoring.writes ??= new Set(this.saved);
          this.#whole = restoring;
        },
        saveToStop: async () => {
          if (this.#whole) await save().catch(() => undefined);
          return true;
        },
        get mayStop() {
          return isSaved();
        },
        get isRestoringCheckpoint() {
          return goesBack();
        },
        beginCheckpointRestore: async (id) => {
          if (isOver()) await never;
          if (this.#whole) await save();
          this.#isRestoringCheckpoint = true;
          await later("go back");
          if (id !== "known") {
            this.#isRestoringCheckpoint = false;
            throw new ToolError("not_found", "no such checkpoint");
          }
          this.saved = new Set();
          this.#lose();
          return { to: { id } as never };
        },
        finishCheckpointRestore: () => (this.#isRestoringCheckpoint = false),
        checkpoint: () => never,
      },
      notice: { ending: () => undefined },
      activity: {
        get isBusy() {
          return tickets.calls > 0;
        },
        get hasCalls() {
          return tickets.calls > 0;
        },
      },
      background: (work) => {
        if (actor === this.#actor) this.pending.push(work.catch(() => undefined));
      },
    });
    this.lifecycle.subscribe(events);
    this.#check(!this.#whole || platform.isRunning, "an end that the parts of the next actor are not told");
  }

  /** Works in the container as a call does: in the same turn in which it finds the container. */
  #use(): Set<number> {
    if (!this.lifecycle.container) throw containerGone();
    const { box } = this;
    this.#check(box?.isAlive === true && !box.isEnding, "a use of a container that ends");
    this.#check(box?.writes !== undefined, "a use of a container without its workspace");
    return box?.writes ?? new Set();
  }

  async #call(work: () => Promise<void>, mayStart: boolean): Promise<void> {
    const { lifecycle } = this;
    const tickets = this.#tickets;
    const owner = { ...OWNER, mayStart };
    tickets.calls++;
    if (mayStart) tickets.starters++;
    try {
      await lifecycle.admit(owner);
      await lifecycle.retryInNextContainer(owner, async () => {
        await lifecycle.ready();
        await work();
      });
    } finally {
      tickets.calls--;
      if (mayStart) tickets.starters--;
      lifecycle.release();
    }
  }

  async #run(isCancelled: boolean): Promise<void> {
    const { lifecycle } = this;
    let started = 0;
    let isOver = false;
    const tickets = this.#tickets;
    tickets.calls++;
    tickets.starters++;
    const begin = async () => {
      await lifecycle.readyForRun(() => isOver);
      if (isOver) return;
      this.#use();
      started++;
    };
    const run = begin();
    // The call may fail before the cancellation.
    run.catch(() => undefined);
    if (isCancelled) {
      await this.#later("cancel");
      isOver = true;
    }
    await run.finally(() => {
      tickets.calls--;
      tickets.starters--;
      lifecycle.release();
    });
    this.#check(started <= 1, "a run that began twice");
  }

  /** Loses unsaved writes, and checks that the notice says so. */
  #lose(): void {
    this.acknowledged = new Set([...this.acknowledged].filter((write) => this.saved.has(write)));
  }

  #die(): void {
    const { box } = this;
    if (!box?.isAlive) return;
    box.isAlive = false;
    this.#lose();
    const actor = this.#actor;
    const hook = async () => {
      await this.#scheduler.schedule(Promise.resolve(), "hook");
      if (actor === this.#actor) this.#boxEnded();
    };
    this.pending.push(hook());
  }

  act(what: Step): void {
    const { lifecycle } = this;
    const work: Record<Step, () => unknown> = {
      write: () =>
        this.#call(async () => {
          const writes = this.#use();
          const write = this.#writes++;
          writes.add(write);
          this.acknowledged.add(write);
        }, true),
      read: () =>
        this.#call(async () => {
          const writes = this.#use();
          const isThere = [...this.acknowledged].every((write) => writes.has(write));
          this.#check(isThere, "an acknowledged write is gone");
        }, true),
      "read only": () => this.#call(async () => void this.#use(), false),
      run: () => this.#run(false),
      "cancelled run": () => this.#run(true),
      idle: () => lifecycle.stopIfUnused(),
      room: () => lifecycle.makeRoom(1000),
      reap: () => lifecycle.destroyIfUnused(OWNER, () => false),
      destroy: () => lifecycle.destroy(OWNER, "workspace"),
      "go back": () => lifecycle.restoreCheckpoint("known", { kept: undefined }),
      "go back nowhere": () => lifecycle.restoreCheckpoint("unknown", { kept: undefined }),
      narrow: () => {
        this.#isNarrow = true;
        return lifecycle.enforceNetwork();
      },
      die: () => this.#die(),
      evict: () => this.#wake(),
      "start fails": () => (this.#fault = what),
      "starts halfway": () => (this.#fault = what),
      "restore fails": () => (this.#fault = what),
      refuse: () => (this.#fault = what),
    };
    this.pending.push(this.#answered(what, work[what]));
  }

  async #answered(what: Step, work: () => unknown): Promise<void> {
    try {
      await work();
    } catch (error) {
      const isExpected = error instanceof ToolError && (isGone(error) || EXPECTED.has(error.code));
      this.#check(isExpected, `${what} failed: ${String(error)}`);
    }
  }

  /** Resolves when no operation is in progress. */
  async rest(): Promise<void> {
    while (this.pending.length > 0) await this.#scheduler.waitFor(Promise.all(this.pending.splice(0)));
  }
}

const EXPECTED = new Set(["sandbox_unavailable", "quota_exceeded", "file_system", "not_found"]);

it("the lifecycle never uses, starts or counts a container wrongly, after any sequence of events", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(fc.tuple(steps, fc.nat(8)), { maxLength: 12 }),
      async (scheduler, taken) => {
        const model = new Model(scheduler);
        for (const [one, turns] of taken) {
          model.act(one);
          for (let turn = 0; turn < turns; turn++) {
            if (scheduler.count() > 0) await scheduler.waitOne();
            // The scheduler learns of its effects some turns later.
            for (let settled = 0; settled < 20; settled++) await Promise.resolve();
          }
        }
        await model.rest();
        expect(model.problems).toEqual([]);
        // An actor that was evicted together with its container may not know of the end yet.
        model.act("read");
        await model.rest();
        expect(model.problems).toEqual([]);
        expect(model.account.isRunning || model.box?.isAlive !== true).toBe(true);
      },
    ),
    { numRuns: 800 },
  );
});
