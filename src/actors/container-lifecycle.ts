/**
 * When the container of a sandbox starts and ends, as far as can be told: the SDK says `onStart` whenever it connects
 * again, and `onStop` late, sometimes when the next container is being started.
 */
import type { RestartNotice } from "./restart-notice.ts";
import { connectionLost, isGone } from "../shared/errors.ts";
import { within } from "../shared/within.ts";

/** How long the SDK's stop hook is waited for, milliseconds. */
const STOP_MS = 5000;

/** How long after an interrupted call the end of its container may show, milliseconds. */
const OUTLIVED_MS = 1000;

export interface LifecycleHost {
  running(): boolean;
  /** The SDK's `stop`. */
  stop(): Promise<void>;
  /** A container started that was not known. */
  started(): void;
  /** What there is here of a container is of no more use. */
  gone(): void;
}

export class Lifecycle {
  readonly #host: LifecycleHost;
  readonly #restartNotice: RestartNotice;
  /** Whether what there is here of a container belongs to one that, as far as is known, runs. */
  #isUp: boolean;
  /** Settles when the SDK has noticed that the container stopped. */
  #stopped = Promise.withResolvers<void>();
  /** Set once the SDK is to see to the end of the container before, until the next one has started. */
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
    // Only the next call may have started another container by now: it has ended what ran in this one.
    if (!this.#host.running()) this.#gone();
    this.#stopped.resolve();
  }

  /** Resolves when the SDK is done with the end of the container, which it then does not hang up on a next call for. */
  async ended(): Promise<void> {
    await this.#noticed();
    // The SDK may have an end to see to of which nobody was told here: that of a container that did not come up.
    this.#settled = undefined;
  }

  async #noticed(): Promise<void> {
    if (this.#isUp) await within(STOP_MS, this.#stopped.promise);
  }

  /** Does the work again, in the next container once that is `ready`, when this one turns out to be gone. */
  async again<T>(work: () => Promise<T>, ready: () => Promise<void>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.#noticed();
      await ready();
      return work();
    }
  }

  /**
   * Ends what ran in a container that is seen to be gone, before anything begins in the next one: the SDK's word of it
   * may come late, and would end that too.
   */
  async ready(): Promise<void> {
    if (this.#host.running()) return;
    this.#gone();
    // The SDK closes the old container's connection when it sees to its end: on its own time, or else when it starts the
    // next one, over the head of the call that waits for that. Of a container that does not run this is all that `stop`
    // does; once, because one that is just being started would get the signal.
    this.#settled ??= this.#host.stop().catch(() => undefined);
    await within(STOP_MS, this.#settled);
    await this.#stopping;
  }

  /** The SDK's error for an interrupted call says that the sandbox is gone; when it is not, the connection was. */
  async explained(error: unknown): Promise<unknown> {
    return isGone(error) && (await this.outlived()) ? connectionLost() : error;
  }

  /** Whether the container goes on although a call to it was interrupted. Its end can be known a moment later. */
  async outlived(): Promise<boolean> {
    for (let look = 0; look < OUTLIVED_MS / 100; look++) {
      if (!this.#host.running()) return false;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return this.#host.running();
  }

  #gone(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#host.gone();
  }
}
