import { Pace } from "../../container/sandboxd/pace.ts";

/**
 * A value for each principal, or for another id, created at its first use. Values that are not in use are removed when another
 * principal gets one.
 */
export class PerPrincipal<T> {
  readonly #values = new Map<string, T>();
  readonly #create: () => T;
  readonly #isUnused: (value: T) => boolean;

  /** @param isUnused without it, values are never removed, for ids that are few */
  constructor(create: () => T, isUnused: (value: T) => boolean = () => false) {
    this.#create = create;
    this.#isUnused = isUnused;
  }

  get usedCount(): number {
    return [...this.#values.values()].filter((value) => !this.#isUnused(value)).length;
  }

  of(principalID: string): T {
    const known = this.#values.get(principalID);
    if (known !== undefined) return known;
    for (const [id, value] of this.#values) if (this.#isUnused(value)) this.#values.delete(id);
    const value = this.#create();
    this.#values.set(principalID, value);
    return value;
  }
}

/** A rate limit for each principal, or for another id. */
export const pacesOf = (limit: { burst: number; perSecond: number }): PerPrincipal<Pace> =>
  new PerPrincipal(
    () => new Pace(limit),
    (pace) => pace.isFull,
  );

/** Takes an amount from a principal's limit. Returns how many milliseconds to wait; 0 if the principal is not known. */
export const takeOf = (paces: PerPrincipal<Pace>, principalID: string | undefined, amount: number): number =>
  principalID === undefined ? 0 : paces.of(principalID).take(amount);
