/**
 * Who may start the container of a sandbox: calls that came since it was last destroyed, and nobody while it is. What a
 * call has begun goes on after the call was cut, and would start a container that nobody knows of.
 */
import { OperationInterruptedError } from "@cloudflare/sandbox";

/** How often a container that starts while it is destroyed is ended, milliseconds. */
const END_AGAIN_MS = 100;

export class ContainerStarts {
  readonly #running: () => boolean;
  readonly #starts = new Set<Promise<void>>();
  /** Of a new actor: what an earlier one had begun is over with it. */
  #isOpen = true;
  /** Settles when the sandbox is destroyed; undefined while nobody destroys it. */
  #destroying: Promise<void> | undefined;

  /** @param running whether there is a container */
  constructor(running: () => boolean) {
    this.#running = running;
  }

  /** Whether what is begun now belongs to a sandbox that is there to stay. */
  get isOpen(): boolean {
    return this.#isOpen && !this.#destroying;
  }

  /** Whether a container is being started. */
  get isStarting(): boolean {
    return this.#starts.size > 0;
  }

  /** A call has come whose sandbox the account knows of. */
  open(): void {
    this.#isOpen = true;
  }

  /** What came before is over. */
  close(): void {
    this.#isOpen = false;
  }

  /** Resolves when nobody destroys the sandbox. */
  async passable(): Promise<void> {
    while (this.#destroying) await this.#destroying;
  }

  /** Whether the sandbox is being destroyed. */
  get isDestroying(): boolean {
    return this.#destroying !== undefined;
  }

  /** Starts the container, or connects to the one that runs. @throws {OperationInterruptedError} while that may not be */
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

  /** Starts none until the sandbox is destroyed, which `work` does. */
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

  /** Ends the container by `end`, and each one that a start under way still brings up. */
  async clear(end: () => Promise<void>): Promise<void> {
    await end();
    while (this.isStarting) {
      await Promise.race([...this.#starts, new Promise((resolve) => setTimeout(resolve, END_AGAIN_MS))]);
      await end();
    }
  }
}

const settled = [() => undefined, () => undefined] as const;

/** In the SDK's words, because the error passes through it. */
function refused(): OperationInterruptedError {
  return new OperationInterruptedError({
    code: "OPERATION_INTERRUPTED",
    message: "The sandbox was destroyed while the operation was pending.",
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
