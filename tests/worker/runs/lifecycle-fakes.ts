/**
 * An actor with fakes of the parts that `Lifecycle` uses: platform, network, account and workspace. They check how `Lifecycle`
 * uses them. The test decides when each of their operations completes.
 */
import type { CheckpointSettings, RestoredCheckpoint } from "../../../src/actors/account-calls.ts";
import { Lifecycle } from "../../../src/actors/lifecycle.ts";
import type { EndReason, LifecycleParts, Subscriber } from "../../../src/actors/lifecycle-state.ts";
import type { Checkpoint } from "../../../src/actors/saved-states.ts";
import { containerEnded, containerGone } from "../../../src/container/texts.ts";
import { ToolError } from "../../../src/shared/errors.ts";
import { SerialQueue } from "../../../src/shared/queue.ts";
import { CALL_MS, pause, waitAtMost } from "../../../src/shared/timers.ts";
import { FakeContainer, HOUR_MS, Use, type World } from "./lifecycle-world.ts";

const never = new Promise<never>(() => undefined);
const CHECKPOINT: Checkpoint = {
  id: "known",
  sandbox: "main",
  label: "",
  savedAt: 0,
  files: 0,
  bytes: 0,
  expiresAt: 0,
};

/** One actor of the sandbox. */
export class Actor {
  readonly lifecycle: Lifecycle;
  readonly uses = new Set<Use>();
  /** Separate from `uses`, because runs outlast the calls that start them. */
  readonly runs = new Set<Use>();
  /** How many operations of the server itself are in progress. They may start a container if a call has registered it. */
  ownWork = 0;
  /** Counts calls of `onRelease`. */
  releases = 0;
  readonly pending = new Set<Promise<unknown>>();
  readonly #world: World;
  reportEnd = () => {};
  #isRegistered = false;
  /** Counts ends of registrations. */
  #unregisterings = 0;
  /** Reports reach the account in order. */
  readonly #reports = new SerialQueue();
  /** What the account knew before the last registration. */
  #before: "nothing" | "stopped" = "nothing";
  #isStarted: boolean;
  /** The last container that `onContainerReady` reported. */
  #ready: FakeContainer | undefined;
  #nextPolicy: number | undefined;
  /** Whether the network knows that a container is about to start. */
  #isStarting = false;
  /** How many containers are being ended, and how many have ended. */
  #ends = { running: 0, past: 0 };
  #notedEnd: string | undefined;
  #lastNote: string | undefined;
  /** Whether this actor began the rollback that is in progress. */
  #isRollingBack = false;
  #rollbackSettings: CheckpointSettings | undefined;
  finishedRollbacks = 0;
  /** The signal of the container that is saved. It is aborted when that container must not be used any more. */
  #life = AbortSignal.abort();
  #isSaving = false;
  readonly #saving = new SerialQueue();
  #usesAtSave: Use[] = [];
  /** The container to which another saved state is being restored. Until then, no container counts as restored. */
  #replaced: FakeContainer | undefined;
  /** The number of the container that is being started. */
  starting: number | undefined;

  constructor(world: World) {
    this.#world = world;
    this.#isStarted = world.container?.isAlive === true;
    const { restoredContainer } = world;
    this.lifecycle = new Lifecycle({
      environment: { variables: {} },
      platform: this.#platform(),
      account: this.#account(),
      network: this.#network(),
      workspace: this.#workspace(),
      notice: {
        noteEnding: (end) => (this.#notedEnd = end),
        noteCheckpoint: () => undefined,
        noteUnsavedShown: () => undefined,
      },
      activity: this.#activity(),
      background: (work) => this.follow(work),
    });
    this.lifecycle.subscribe(this.#subscriber());
    world.check(
      !restoredContainer || restoredContainer.isAlive || !world.restoredContainer,
      "the next actor does not report that the container has ended",
    );
  }

  get #isEvicted(): boolean {
    return this.#world.actor !== this;
  }

  /** Waits until the test completes this operation. Never continues in an evicted actor. */
  async waitForStep(): Promise<void> {
    await this.#world.operation();
    if (this.#isEvicted) await never;
  }

  follow(work: Promise<unknown>): void {
    const settled = work.catch(() => undefined).finally(() => this.pending.delete(settled));
    this.pending.add(settled);
  }

  get #isUsed(): boolean {
    return this.uses.size > 0 || this.runs.size > 0;
  }

  /** Checks that work may begin in the container now, and returns the container. */
  use(use?: Use): { container: FakeContainer; writes: Set<number>; life: AbortSignal } {
    const world = this.#world;
    const life = this.lifecycle.container;
    const { container } = world;
    if (!life) throw containerGone();
    const { writes } = container ?? {};
    if (!container?.isAlive || container.isEnding || !writes) {
      world.check(false, "a use of a container that is not there");
      throw containerGone();
    }
    world.check(!world.isRollingBack, "a use of a container with the state before a rollback");
    world.check(!world.isContainerOver, "a use of a container that an earlier actor began to end");
    world.check(!life.aborted, "a use of a container that is being ended");
    world.check(this.#ready === container, "a use before onContainerReady");
    if (use) {
      world.check(this.#isRegistered, "a use that the account does not know");
      const isEnforced = container.policy === world.policy.version || world.policy.since >= use.begunAt;
      world.check(isEnforced, "a use of a container with an earlier network policy");
      use.container = life;
      use.last = container;
    }
    if (container.isBroken) throw containerGone();
    return { container, writes, life };
  }

  #subscriber(): Subscriber {
    const world = this.#world;
    const { runs } = this;
    return {
      onContainerStart: () => {
        world.check(!this.#isStarted, "onContainerStart before onContainerEnd of the previous container");
        world.check(world.container !== undefined, "a start without a container");
        world.check(this.#lastNote === "start", "a start that is not in the log");
        this.#isStarted = true;
      },
      onContainerReady: () => {
        world.check(this.#isStarted, "ready before the start");
        world.check(world.restoredContainer === world.container, "ready before the restore");
        this.#ready = world.container;
      },
      onContainerEnd: (end) => this.#ended(end),
      onDestroy: () => {
        world.check(!world.container, "the container of a destroyed sandbox still runs");
        world.check(!world.isRollingBack, "a rollback continues in a destroyed sandbox");
        world.settings = 0;
        this.finishedRollbacks = 0;
      },
      onRestore: (settings) => {
        world.check(settings === this.#rollbackSettings, "a rollback with other settings");
        this.#rollbackSettings = undefined;
        world.check(this.finishedRollbacks === 1, "onRestore without exactly one finished rollback");
        this.finishedRollbacks = 0;
      },
      onRelease: (isUnused) => {
        this.releases++;
        world.check(
          isUnused() !== this.#isUsed,
          "onRelease reports wrongly whether calls or runs are in progress",
        );
      },
      get isBusy() {
        return runs.size > 0;
      },
    };
  }

  #ended(end: EndReason): void {
    const world = this.#world;
    const { container } = world;
    const atWork = [...this.uses, ...this.runs].filter((use) => use.container);
    const isUnsaved = end.startsWith("unsaved_");
    const isOrderly = /^(?:unsaved_)?(?:idle|room)$/.test(end);
    const isLost = !container || world.isContainerOver;
    world.check(end !== "lost" || isLost, "a container that runs is reported as lost");
    world.isContainerOver = true;
    world.check(end === "lost" || end === "destroy" || this.#notedEnd === end, "an end without a notice");
    world.check(!isOrderly || atWork.length === 0, `an end as ${end} during a use`);
    const isStillUsed = this.#usesAtSave.some((use) => this.uses.has(use) || this.runs.has(use));
    world.check(!isOrderly || !isStillUsed, `an end as ${end} for a sandbox in use`);
    world.check(
      end !== "network" || this.runs.size === 0,
      "an end with the reason network, which means that all is saved, during a run",
    );
    const isKeptLong = Date.now() - world.usedAt >= HOUR_MS;
    world.check(!isOrderly || !isUnsaved || isKeptLong, `an end as ${end} within an hour of the last use`);
    const mayLose = ["lost", "destroy"].includes(end) || isUnsaved;
    world.check(mayLose || world.isAllSaved, `an end as ${end} that loses acknowledged writes`);
    const isNeeded = !end.endsWith("network") || container?.policy !== world.policy.version;
    world.check(isNeeded, "an end to enforce a policy that is already in force");
    world.check(
      atWork.every((use) => use.container?.aborted),
      "a use that continues after the end of its container",
    );
    world.loseUnsaved();
    world.count.interruptions++;
    for (const run of this.runs) if (run.container) this.runs.delete(run);
    this.#isStarted = false;
    this.#ready = undefined;
    world.restoredContainer = undefined;
    this.#notedEnd = undefined;
  }

  #platform(): LifecycleParts["platform"] {
    const world = this.#world;
    return {
      get isRunning() {
        return world.container?.isAlive === true;
      },
      start: async () => {
        try {
          await this.#start();
        } finally {
          this.starting = undefined;
        }
      },
      end: async () => {
        const { container } = world;
        const uses = [...this.uses, ...this.runs];
        world.check(
          uses.every((use) => !use.container || use.container.aborted),
          "a container is ended before its uses are aborted",
        );
        world.check(this.#ends.running === 0, "two ends at the same time");
        this.#ends.running++;
        if (container) container.isEnding = true;
        await this.waitForStep();
        world.count.interruptions++;
        this.#ends.running--;
        this.#ends.past++;
        if (container && world.consumeFault("end fails")) {
          container.isEnding = false;
          world.policy.isEnforced = false;
          throw new ToolError("sandbox_unavailable", "the container did not end");
        }
        this.starting = undefined;
        const latest = world.container;
        if (latest) world.removeContainer(latest);
      },
      fetch: () => never,
      onEnd: (listener) => (this.reportEnd = listener),
      onIdle: () => undefined,
      noteUse: () => undefined,
    };
  }

  async #start(): Promise<void> {
    const world = this.#world;
    world.check(this.#isStarting, "a start that the network does not know");
    this.#isStarting = false;
    world.check(!world.container, "two containers");
    world.check(this.#ends.running === 0, "a start while a container is being ended");
    world.check(world.account.isRunning, "a start that the account does not count");
    world.check(this.#nextPolicy !== undefined, "a start without a network policy");
    this.starting = ++world.count.starts;
    const { past } = this.#ends;
    const isEnded = () => this.#ends.running > 0 || this.#ends.past > past;
    const refuse = async () => {
      await this.waitForStep();
      throw containerGone();
    };
    await this.waitForStep();
    if (isEnded()) await refuse();
    if (world.consumeFault("start fails")) throw new ToolError("sandbox_unavailable", "full");
    const container = new FakeContainer(this.starting, this.#nextPolicy ?? -1);
    world.container = container;
    await this.waitForStep();
    if (isEnded()) await refuse();
    if (world.consumeFault("starts halfway")) throw new ToolError("sandbox_unavailable", "no response");
    if (container.isAlive) return;
    // Calls that began after the container's death waited for this start too.
    world.count.interruptions++;
    throw containerGone();
  }

  #unregister(isKnown: boolean): Promise<void> {
    this.#isRegistered = false;
    this.#unregisterings++;
    return this.#reports.run(async () => {
      this.#world.isLeaked = false;
      this.#world.account = { ...this.#world.account, isKnown, isRunning: false };
    });
  }

  /** Stores settings of the sandbox in the account. */
  configure(settings: number): Promise<void> {
    return this.#reports.run(async () => {
      await this.waitForStep();
      this.#world.account = { ...this.#world.account, isKnown: true, settings };
    });
  }

  #network(): LifecycleParts["network"] {
    const world = this.#world;
    return {
      prepareStart: () => {
        const uses = [...this.uses, ...this.runs];
        world.check(
          uses.some(({ isStarter }) => isStarter || this.ownWork > 0),
          "a start although no call or run may start a container",
        );
        this.#isStarting = true;
        this.#nextPolicy = undefined;
      },
      enforce: async () => {
        const { container } = world;
        if (!container && this.#nextPolicy === world.policy.version) return true;
        await this.waitForStep();
        // A start that waited for this fails.
        if (container?.isAlive === false) world.count.interruptions++;
        if (world.consumeFault("enforce fails")) {
          world.policy.isEnforced = false;
          throw new ToolError("sandbox_unavailable", "no network");
        }
        const { version } = world.policy;
        this.#nextPolicy = version;
        return !world.container || world.container.policy === version;
      },
    };
  }

  #activity(): LifecycleParts["activity"] {
    const { uses } = this;
    return {
      get isBusy() {
        return uses.size > 0;
      },
      get hasCalls() {
        return uses.size > 0;
      },
    };
  }

  #account(): LifecycleParts["account"] {
    const world = this.#world;
    return {
      owner: { principalID: "p", sandbox: "main", principalHash: "h" },
      isKnown: async (owner) => {
        await this.waitForStep();
        if (owner instanceof Use && owner.mayStart === "ifKnown") owner.isStarter ||= world.account.isKnown;
        return world.account.isKnown;
      },
      register: async () => {
        world.usedAt = Date.now();
        if (this.#isRegistered) return undefined;
        const unregisterings = this.#unregisterings;
        return await this.#reports.run(async () => {
          await this.waitForStep();
          if (world.consumeFault("refuse")) throw new ToolError("quota_exceeded", "one too many");
          const before = world.account.isKnown ? "stopped" : "nothing";
          // Another call may have registered the sandbox meanwhile.
          if (!this.#isRegistered) this.#before = before;
          world.account = { ...world.account, isKnown: true, isRunning: true };
          world.isLeaked = false;
          if (unregisterings === this.#unregisterings) this.#isRegistered = true;
          return before;
        });
      },
      keepSandbox: () => undefined,
      withdraw: async (before) => {
        world.check(!world.container, "a withdrawal of a container that runs");
        world.check(
          before === this.#before,
          "a withdrawal to a state that is not the one before the registration",
        );
        await this.#unregister(before !== "nothing");
      },
      reportStop: () => {
        world.check(!world.container, "the end of a container that runs is reported");
        world.check(world.isEndUnreported, "the end of a container is reported twice");
        world.isEndUnreported = false;
        this.follow(this.#unregister(true));
      },
      reportDestruction: (_owner, ending) => {
        world.check(!world.container, "a sandbox is destroyed before its container ends");
        return this.#reports.run(async () => {
          await this.waitForStep();
          const wasKnown = world.account.isKnown;
          world.account = { isKnown: false, isRunning: false, settings: 0 };
          world.isLeaked = false;
          this.#isRegistered = false;
          if (ending === "workspace") world.saved = new Set();
          world.loseUnsaved();
          return { wasKnown, wasSaved: false, isKept: false, checkpoints: 0 };
        });
      },
      logEvent: (action) => (this.#lastNote = action),
      isInUse: (ms) => Date.now() - world.usedAt < ms && world.usedAt >= world.keptAt,
      get unusedMs() {
        return Date.now() - world.usedAt;
      },
      noteCheckpoint: (at) => (world.keptAt = at),
    };
  }

  #workspace(): LifecycleParts["workspace"] {
    const world = this.#world;
    const isSaving = () => this.#isSaving;
    const isWhole = () =>
      world.restoredContainer !== undefined &&
      world.restoredContainer === world.container &&
      !this.#life.aborted;
    const save = () => {
      const saving = this.#saving.run(async () => {
        const { container } = world;
        const writes = container?.writes;
        if (!isWhole() || !writes) return;
        const life = this.#life;
        const scanned = new Set(writes);
        this.#isSaving = true;
        world.saves++;
        try {
          if (world.consumeFault("save hangs")) {
            world.hasHung = true;
            await this.#hang(life);
          }
          // R2 does not respond, so the save outlasts its container.
          if (world.consumeFault("upload hangs")) {
            world.hasHung = true;
            await pause(2 * CALL_MS);
          }
          await this.waitForStep();
          if (life.aborted || !container.isAlive) throw containerEnded();
          if (container.isBroken) throw containerGone();
          if (world.consumeFault("saves fail")) throw new ToolError("file_system", "R2");
          world.check(!container.isOutdated, "a save of the state before a rollback");
          world.saved = scanned;
        } finally {
          this.#isSaving = false;
        }
      });
      this.follow(saving);
      return saving;
    };
    const rollBack = (): CheckpointSettings => {
      world.saved = new Set();
      world.loseUnsaved();
      if (world.container) world.container.isOutdated = true;
      this.#rollbackSettings = { env: {}, network: {}, setup: undefined };
      return this.#rollbackSettings;
    };
    return {
      resume: (life) => {
        if (!world.restoredContainer) return false;
        if (!world.isRollingBack) this.#life = life;
        return true;
      },
      restore: async (life) => {
        const { container } = world;
        world.check(
          !container || this.#replaced !== container,
          "a restore of a state that is being replaced",
        );
        world.check(
          !world.isRollingBack || this.#isRollingBack,
          "a restore to a container of an unfinished rollback",
        );
        world.restoredContainer = undefined;
        this.#life = life;
        await this.waitForStep();
        while (this.#replaced) await this.waitForStep();
        while (container?.isBroken && container.isAlive) await this.waitForStep();
        if (!container?.isAlive) throw new ToolError("no_answer", "no response");
        if (life.aborted) throw containerGone();
        if (world.consumeFault("restore fails")) throw new ToolError("file_system", "R2");
        container.writes ??= new Set(world.saved);
        world.restoredContainer = container;
      },
      saveToStop: async (waitMs) => {
        const saving = save().then(
          () => true,
          () => false,
        );
        const isSaved = (await waitAtMost(waitMs ?? CALL_MS, saving)) ?? false;
        this.#usesAtSave = [...this.uses, ...this.runs];
        return isSaved;
      },
      isComplete: true,
      get mayStop() {
        const writes = isWhole() ? (world.container?.writes ?? []) : [];
        return !isSaving() && [...writes].every((write) => world.saved.has(write));
      },
      get isContainerOver() {
        return world.isContainerOver;
      },
      set isContainerOver(isOver) {
        world.check(isOver || !world.container, "a start while the previous container runs");
        world.isContainerOver = isOver;
      },
      get isRestoringCheckpoint() {
        return world.isRollingBack;
      },
      beginCheckpointRestore: async (id, _settings, endSaved): Promise<RestoredCheckpoint> => {
        const isKept = isWhole();
        await this.waitForStep();
        if (id !== CHECKPOINT.id) throw new ToolError("not_found", "no such checkpoint");
        if (isKept) {
          const saved = save().then(() => true);
          if (!(await waitAtMost(CALL_MS, saved))) throw new ToolError("no_answer", "saving");
          if (this.#life.aborted) throw containerEnded();
          await endSaved(true);
        }
        world.isRollingBack = true;
        this.#isRollingBack = true;
        await this.waitForStep();
        if (world.consumeFault("rollback fails")) {
          world.isRollingBack = false;
          throw new ToolError("not_found", "no such checkpoint");
        }
        world.check(world.isAllSaved || this.#life.aborted, "a rollback that loses acknowledged writes");
        return { to: CHECKPOINT, settings: rollBack() };
      },
      repeatCheckpointRestore: async () => {
        await this.waitForStep();
        return rollBack();
      },
      finishCheckpointRestore: () => {
        world.check(world.isRollingBack, "a rollback is finished twice");
        world.check(!world.container, "a container with the old state after a rollback");
        world.isRollingBack = false;
        this.finishedRollbacks++;
      },
      checkpoint: async () => {
        const { acknowledged } = world;
        const needed = [...acknowledged];
        const life = this.#life;
        if (isWhole()) {
          await save();
          if (life.aborted) throw containerEnded();
        }
        await this.waitForStep();
        const isComplete = needed.every((write) => world.saved.has(write) || !world.acknowledged.has(write));
        world.check(isComplete, "a checkpoint without an acknowledged write");
        return CHECKPOINT;
      },
    };
  }

  /** Replaces the saved state, and restores it to the container. */
  replaceState(): Promise<void> {
    const world = this.#world;
    const { lifecycle } = this;
    return this.#saving.run(() =>
      lifecycle.restoreAgain(async () => {
        const { container } = world;
        world.check(lifecycle.isRunning, "a set-up of a container that is being ended");
        if (container?.writes) world.saved = new Set(container.writes);
        if (container) container.writes = undefined;
        world.restoredContainer = undefined;
        this.#replaced = container;
        await this.waitForStep();
        this.#replaced = undefined;
        if (container?.isOutdated) throw containerGone();
        if (world.consumeFault("restore fails")) throw new ToolError("file_system", "R2");
      }),
    );
  }

  /** A save that sandboxd does not finish before the container is aborted. */
  async #hang(life: AbortSignal): Promise<void> {
    const { promise, reject } = Promise.withResolvers<never>();
    life.addEventListener("abort", () => reject(containerGone()));
    if (life.aborted) throw containerGone();
    await waitAtMost(2 * CALL_MS, promise);
  }
}
