/**
 * Who may start the container of a sandbox: each start takes a registration with the account, which a call or a run makes
 * first. The SDK starts a container for any of its calls, so that the server's own work, or work that goes on after its call
 * was cut, would start one that the account does not count.
 */
import { OperationInterruptedError } from "@cloudflare/sandbox";
import { pause } from "../shared/within.ts";

/** How often a container that starts while it is destroyed is ended, milliseconds. */
const END_AGAIN_MS = 100;

export class ContainerStarts {
  readonly #running: () => boolean;
  readonly #starts = new Set<Promise<void>>();
  /** Whether the account has registered the sandbox for a container that has not started yet. */
  #isOpen = false;
  /** Settles when the sandbox is destroyed; undefined while nobody destroys it. */
  #destroying: Promise<void> | undefined;

  /** @param running whether there is a container */
  constructor(running: () => boolean) {
    this.#running = running;
  }

  /** Whether work that begins now may start the container. */
  get isOpen(): boolean {
    return this.#isOpen && !this.#destroying;
  }

  /** Whether a container is being started. */
  get isStarting(): boolean {
    return this.#starts.size > 0;
  }

  /** Lets one container start, where none runs: the account has registered the sandbox. */
  open(): void {
    this.#isOpen = !this.#running();
  }

  /** Lets no container start before the next registration: one has started, or the registration is taken back. */
  close(): void {
    this.#isOpen = false;
  }

  /** Resolves when the sandbox is not being destroyed. */
  async #passable(): Promise<void> {
    while (this.#destroying) await this.#destroying;
  }

  /**
   * Does `work` for a sandbox that is not being destroyed: again where that has begun meanwhile, which undoes it. Then does
   * `done` at once, before anything can come between.
   */
  async undisturbed<T>(work: () => Promise<T>, done: (value: T) => void): Promise<void> {
    for (;;) {
      await this.#passable();
      const value = await work();
      if (!this.isDestroying) return done(value);
    }
  }

  /** Whether the sandbox is being destroyed. */
  get isDestroying(): boolean {
    return this.#destroying !== undefined;
  }

  /** Starts the container, or connects to the one that runs. @throws {OperationInterruptedError} while it may not start */
  async start(work: () => Promise<void>): Promise<void> {
    if (!this.isOpen && !this.#running()) throw refused();
    const started = work();
    const over = started.then(...settled);
    this.#starts.add(over);
    try {
      await started;
    } finally {
      this.#starts.delete(over);
    }
  }

  /** Destroys the sandbox by `work`; until that is done no call starts a container. */
  async destroy<T>(work: () => Promise<T>): Promise<T> {
    this.close();
    const destroyed = work();
    const over = destroyed.then(...settled);
    this.#destroying = over;
    try {
      return await destroyed;
    } finally {
      if (this.#destroying === over) this.#destroying = undefined;
    }
  }

  /** Ends the container by `end`, and again for each container that a start under way still brings up. */
  async clear(end: () => Promise<void>): Promise<void> {
    await end();
    while (this.isStarting) {
      await Promise.race([...this.#starts, pause(END_AGAIN_MS)]);
      await end();
    }
  }
}

const settled = [() => undefined, () => undefined] as const;

/** An error as the SDK makes it, because it passes through the SDK. */
function refused(): OperationInterruptedError {
  return new OperationInterruptedError({
    code: "OPERATION_INTERRUPTED",
    message: "The sandbox has no container, and this operation may not start one.",
    context: {
      reason: "sandbox_lifetime_changed",
      operation: "sandbox.start",
      phase: "startup",
      admitted: false,
      retryable: false,
    },
    httpStatus: 409,
    timestamp: new Date().toISOString(),
  });
}
