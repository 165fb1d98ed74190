/** The order of changes of files. */
import type { Entry } from "./confinement.ts";

declare const turn: unique symbol;

/** The result of a change. Only `Turns` makes one, so a handler of a changing operation that forgets its turn does not compile. */
export type InTurn<T> = T & { readonly [turn]: true };

/** Makes one change of a file at a time, in the order of the calls. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** @param change gets the path to open */
  async take<T>({ path, target }: Entry, change: (path: string) => Promise<T>): Promise<InTurn<T>> {
    const begin = () => change(path);
    const taken = (this.#last.get(target) ?? Promise.resolve()).then(begin, begin);
    this.#last.set(target, taken);
    try {
      return (await taken) as InTurn<T>;
    } finally {
      if (this.#last.get(target) === taken) this.#last.delete(target);
    }
  }
}
