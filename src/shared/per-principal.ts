/**
 * A value for each principal, or for another id, created at its first use. Values that are not in use are removed when another
 * principal gets one.
 */
export class PerPrincipal<T> {
  readonly #values = new Map<string, T>();
  readonly #create: () => T;
  readonly #isUnused: (value: T) => boolean;

  constructor(create: () => T, isUnused: (value: T) => boolean) {
    this.#create = create;
    this.#isUnused = isUnused;
  }

  of(principalID: string): T {
    const known = this.#values.get(principalID);
    if (known !== undefined) return known;
    for (const [id, value] of this.#values) if (this.#isUnused(value)) this.#values.delete(id);
    const value = this.#create();
    this.#values.set(principalID, value);
    return value;
  }

  /** Removes this value, so that the principal gets a new one. Does nothing if the principal already has another value. */
  remove(principalID: string, value: T): void {
    if (this.#values.get(principalID) === value) this.#values.delete(principalID);
  }
}
