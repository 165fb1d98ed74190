/**
 * When the container of a sandbox starts and ends. The SDK's hooks alone do not say: it calls `onStart` whenever it
 * connects again, and `onStop` late, sometimes while the next container is being started.
 */
import type { RestartNotice } from "./restart-notice.ts";
import { EndingError, connectionLost, isGone } from "../shared/errors.ts";
import { pause, within } from "../shared/within.ts";

/** How long the SDK's stop hook is waited for, milliseconds. */
const STOP_MS = 5000;

/** How often the SDK's record is looked at, milliseconds. */
const LOOK_MS = 2;

/** How long after an interrupted call its container may still count as running although it ends, milliseconds. */
const OUTLIVED_MS = 3000;

export interface LifecycleHost {
  running(): boolean;
  /** The SDK's `stop`: of a container that does not run it sees to the end. */
  stop(): Promise<void>;
  /** Whether the SDK's own record says that the container runs: it is behind the container itself for a moment. */
  isRecordedAsRunning(): Promise<boolean>;
  /** A new container has started. */
  started(): void;
  /** The container has gone: what this actor holds of it is of no more use. */
  gone(): void;
}

export class Lifecycle {
  readonly #host: LifecycleHost;
  readonly #restartNotice: RestartNotice;
  /** Whether the container that this actor holds state of runs, as far as is known. */
  #isUp: boolean;
  /** The containers that have started in the time of this actor. */
  #starts = 0;
  /** Settles when the SDK has noticed that the container stopped. */
  #stopped = Promise.withResolvers<void>();
  /** Set from the SDK's `stop` for the previous container until the next one has started. */
  #settled: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(host: LifecycleHost, restartNotice: RestartNotice) {
    this.#host = host;
    this.#restartNotice = restartNotice;
    this.#isUp = host.running();
  }

  /** For the SDK's `onStart`. */
  onStart(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.#starts++;
    this.#settled = undefined;
    this.#stopped = Promise.withResolvers();
    this.#restartNotice.started();
    this.#host.started();
  }

  /** For the SDK's `onStop`, of which `work` is its own part. */
  onStop(work: () => Promise<void>): Promise<void> {
    this.#stopping = this.#end(work);
    return this.#stopping;
  }

  async #end(work: () => Promise<void>): Promise<void> {
    await work();
    // When a container runs, the next call has started it, and `ready` has cleaned up after the previous one.
    if (!this.#host.running()) this.#gone();
    this.#stopped.resolve();
  }

  /**
   * Runs the SDK's stop hook for a container that was just destroyed, and resolves when it has run: before that it would
   * close the connection of the next call. The SDK's own alarm runs it up to a second later. Called before the SDK's
   * record is up to date, `stop` would run the hook for the same end twice.
   */
  async ended(): Promise<void> {
    const deadline = Date.now() + STOP_MS;
    while (this.#isUp && Date.now() < deadline && (await this.#host.isRecordedAsRunning()))
      await pause(LOOK_MS);
    if (!this.#host.running())
      await within(
        STOP_MS,
        this.#host.stop().catch(() => undefined),
      );
    await this.#noticed();
    // A container that did not come up has no hook here, and the SDK still has to clean up after it.
    this.#settled = undefined;
  }

  async #noticed(): Promise<void> {
    if (this.#isUp) await within(STOP_MS, this.#stopped.promise);
  }

  /** Repeats `work` in the next container, once that is `ready`, when this one turns out to be gone: `tries` times in all. */
  async again<T>(work: () => Promise<T>, ready: () => Promise<void>, tries: number): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!isGone(error) || attempt === tries) throw error;
        await this.#noticed();
        await ready();
      }
    }
  }

  /**
   * Cleans up after a container that is gone, before anything begins in the next one: the SDK's stop hook may come late,
   * and would then end what runs in the next.
   */
  async ready(): Promise<void> {
    if (this.#host.running()) return;
    this.#gone();
    // The SDK closes the old container's connection when its alarm comes, or else while it starts the next container,
    // which breaks the call that waits for that. `stop` has it close the connection now, and does nothing else where no
    // container runs. Only once, because a container that is being started would be stopped by it.
    this.#settled ??= this.#host.stop().catch(() => undefined);
    await within(STOP_MS, this.#settled);
    await this.#stopping;
  }

  /** The SDK's error for an interrupted call says that the sandbox is gone, also when only the connection broke. */
  async explained(error: unknown): Promise<unknown> {
    if (error instanceof EndingError) return error;
    return isGone(error) && (await this.#outlived()) ? connectionLost() : error;
  }

  /** Whether the same container still runs after an interrupted call, OUTLIVED_MS later: its end can show late. */
  async #outlived(): Promise<boolean> {
    const starts = this.#starts;
    const isSame = () => this.#host.running() && this.#starts === starts;
    for (let look = 0; look < OUTLIVED_MS / 100 && isSame(); look++) await pause(100);
    return isSame();
  }

  #gone(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#host.gone();
  }
}
