/** How long a loop may keep other events waiting, in milliseconds. */
const TURN_MS = 20;

/** Await the returned function before each step of a loop, so that other events can run. */
export function yieldBetweenSteps(): () => Promise<void> | undefined {
  let until = performance.now() + TURN_MS;
  return () => {
    if (performance.now() <= until) return undefined;
    return new Promise((resolve) =>
      setImmediate(() => {
        until = performance.now() + TURN_MS;
        resolve();
      }),
    );
  };
}

/** Runs at most `limit` steps concurrently. After a step has failed, `add` and `drain` throw its error. */
export class BoundedConcurrency {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  async add(step: () => Promise<void>): Promise<void> {
    const running = step().then(
      () => void this.#running.delete(running),
      (error: unknown) => {
        this.#running.delete(running);
        this.#failure ??= { error };
      },
    );
    this.#running.add(running);
    while (this.#running.size >= this.#limit) await Promise.race(this.#running);
    if (this.#failure) throw this.#failure.error;
  }

  async drain(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failure) throw this.#failure.error;
  }
}
