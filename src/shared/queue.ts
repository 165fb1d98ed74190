/** Runs work one after another for each key, in the order of arrival. Different keys do not wait for each other. */
export class KeyedQueue {
  readonly #last = new Map<string, Promise<unknown>>();
  /** Ids of the work that runs or waits, in the order of arrival. */
  readonly #ids = new Map<string, string[]>();

  /** Runs `work` when everything queued before it under `key` has settled. */
  async run<T>(key: string, id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    const settled = mine.catch(() => undefined);
    const ids = this.#ids.get(key) ?? [];
    ids.push(id);
    this.#ids.set(key, ids);
    this.#last.set(key, settled);
    try {
      return await mine;
    } finally {
      ids.splice(ids.indexOf(id), 1);
      if (ids.length === 0) this.#ids.delete(key);
      if (this.#last.get(key) === settled) this.#last.delete(key);
    }
  }

  /** Ids of the work that `id` waits for, the one that runs first. */
  ahead(key: string, id: string): string[] {
    const ids = this.#ids.get(key) ?? [];
    return ids.slice(0, Math.max(0, ids.indexOf(id)));
  }
}
