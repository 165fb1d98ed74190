export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}

export class KeyedQueue {
  readonly #queues = new Map<string, { queue: SerialQueue; ids: string[] }>();

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

  /** The ids of the work before `id`; the running work is first. */
  waitingFor(key: string, id: string): string[] {
    const ids = this.#queues.get(key)?.ids ?? [];
    return ids.slice(0, Math.max(0, ids.indexOf(id)));
  }
}
