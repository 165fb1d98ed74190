/** A value that changes outside the page's components. */
import { useEffect, useState } from "preact/hooks";

export class Value<T> {
  #now: T;
  readonly #watchers = new Set<() => void>();

  constructor(first: T) {
    this.#now = first;
  }

  get(): T {
    return this.#now;
  }

  set(next: T): void {
    if (next === this.#now) return;
    this.#now = next;
    for (const watcher of this.#watchers) watcher();
  }

  /** Calls `watcher` after every change. @returns a function that stops it */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/** The current value. The component is rendered again when it changes. */
export function useValue<T>(value: Value<T>): T {
  const [now, setNow] = useState(() => value.get());
  useEffect(() => {
    const update = () => setNow(() => value.get());
    update();
    return value.watch(update);
  }, [value]);
  return now;
}
