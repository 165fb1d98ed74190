/** Runs work one after another for each key, in the order of arrival; different keys run side by side. */
export class KeyedQueue {
  readonly #last = new Map<string, Promise<unknown>>();
  /** Ids of what is under way or waits, in the order of arrival. */
  readonly #ids = new Map<string, string[]>();

  /** Runs `work` once everything queued before it under `key` has ended, well or badly. */
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

  /** Ids of what `id` waits for, the one under way first. */
  ahead(key: string, id: string): string[] {
    const ids = this.#ids.get(key) ?? [];
    return ids.slice(0, Math.max(0, ids.indexOf(id)));
  }
}
