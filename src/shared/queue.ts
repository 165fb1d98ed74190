export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}

/** Does at most `count` pieces of work at once, the others in the order in which they were given. */
export class LimitedQueue {
  readonly #count: number;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#count = count;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running === this.#count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }
}

interface Item {
  id: string;
  begin: () => void;
  withdraw: () => void;
}

/** A queue for each key. Work that waits can be withdrawn, so that nothing keeps its input. */
export class KeyedQueue {
  /** The items of each queue; the running one is first. */
  readonly #queues = new Map<string, Item[]>();

  /**
   * Does the work after earlier work of the key.
   * @param ifWithdrawn what to return if the work is withdrawn; without it, the work cannot be withdrawn
   */
  async run<T>(key: string, id: string, work: () => Promise<T>, ifWithdrawn?: () => T): Promise<T> {
    const items = this.#queues.get(key) ?? [];
    this.#queues.set(key, items);
    const { promise: turn, resolve } = Promise.withResolvers<() => T | Promise<T>>();
    const item = {
      id,
      begin: () => resolve(work),
      withdraw: () => {
        if (!ifWithdrawn) return;
        items.splice(items.indexOf(item), 1);
        resolve(ifWithdrawn);
      },
    };
    items.push(item);
    if (items.length === 1) item.begin();
    try {
      return await (
        await turn
      )();
    } finally {
      // Withdrawn work has left the queue.
      if (items[0] === item) {
        items.shift();
        if (items.length === 0) this.#queues.delete(key);
        items[0]?.begin();
      }
    }
  }

  /** Withdraws work that still waits. Work that has begun continues. */
  withdraw(key: string, id: string): void {
    const [, ...waiting] = this.#queues.get(key) ?? [];
    waiting.find((item) => item.id === id)?.withdraw();
  }

  /** The ids of the work before `id`; the running work is first. */
  waitingFor(key: string, id: string): string[] {
    const ids = (this.#queues.get(key) ?? []).map((item) => item.id);
    return ids.slice(0, Math.max(0, ids.indexOf(id)));
  }
}
