/** Splits long work into small steps, so that it does not block other work. */

/** How long a loop may keep other events waiting, in milliseconds. */
const TURN_MS = 20;

/** Await the returned function before each step of a loop, so that other events can run. */
export function yieldBetweenSteps(): () => Promise<void> | undefined {
  let until = Date.now() + TURN_MS;
  return () => {
    if (Date.now() <= until) return undefined;
    return new Promise((resolve) =>
      setImmediate(() => {
        until = Date.now() + TURN_MS;
        resolve();
      }),
    );
  };
}

/** Runs at most `most` steps concurrently. After a failure, `add` and `drain` throw it. */
export class SideBySide {
  readonly #most: number;
  readonly #underWay = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  async add(step: () => Promise<void>): Promise<void> {
    const taken = step().then(
      () => void this.#underWay.delete(taken),
      (error: unknown) => {
        this.#underWay.delete(taken);
        this.#failure ??= { error };
      },
    );
    this.#underWay.add(taken);
    while (this.#underWay.size >= this.#most) await Promise.race(this.#underWay);
    if (this.#failure) throw this.#failure.error;
  }

  async drain(): Promise<void> {
    await Promise.all(this.#underWay);
    if (this.#failure) throw this.#failure.error;
  }
}
