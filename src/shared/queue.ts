/** Runs work one after another, in the order of arrival, whatever becomes of the work before. */
export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}

/** A serial queue for each key. Different keys do not wait for each other. */
export class KeyedQueue {
  /** With the ids of the work that runs or waits, in the order of arrival. */
  readonly #queues = new Map<string, { queue: SerialQueue; ids: string[] }>();

  /** Runs `work` when everything queued before it under `key` has settled. */
  async run<T>(key: string, id: string, work: () => Promise<T>): Promise<T> {
    const { queue, ids } = this.#queues.get(key) ?? { queue: new SerialQueue(), ids: [] };
    this.#queues.set(key, { queue, ids });
    ids.push(id);
    try {
      return await queue.run(work);
    } finally {
      ids.splice(ids.indexOf(id), 1);
      if (ids.length === 0) this.#queues.delete(key);
    }
  }

  /** Ids of the work that `id` waits for, the one that runs first. */
  waitingFor(key: string, id: string): string[] {
    const ids = this.#queues.get(key)?.ids ?? [];
    return ids.slice(0, Math.max(0, ids.indexOf(id)));
  }
}
