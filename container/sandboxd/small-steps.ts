/** Long work in small steps, without keeping others from theirs. */

/** How long other events wait at most for steps that themselves wait for nothing, milliseconds. */
const TURN_MS = 20;

/** To be awaited before each step of a loop: now and then lets other events have their turn. */
export function turns(): () => Promise<void> | undefined {
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

/** Steps that are taken side by side, so many at most. */
export class SideBySide {
  readonly #most: number;
  readonly #underWay = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  /** Takes a step; resolves when there is room for the next. @throws what a step has thrown */
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

  /** Resolves when no step is under way. @throws what a step has thrown */
  async drain(): Promise<void> {
    await Promise.all(this.#underWay);
    if (this.#failure) throw this.#failure.error;
  }
}
