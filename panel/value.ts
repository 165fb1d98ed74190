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

  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

export function useValue<T>(value: Value<T>): T {
  const [now, setNow] = useState(() => value.get());
  useEffect(() => {
    const update = () => setNow(() => value.get());
    update();
    return value.watch(update);
  }, [value]);
  return now;
}
