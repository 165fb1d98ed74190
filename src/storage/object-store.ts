/** Objects under keys, beside the databases: logs, what tasks and workspaces leave, definitions. R2 holds them, and only this file knows it. */

/** An object, or the range of it that was asked for. */
export interface StoredObject {
  /** Bytes of the whole object. */
  size: number;
  body: ReadableStream<Uint8Array>;
  bytes(): Promise<Uint8Array>;
}

/** Keys with a prefix, in their order. */
export interface KeyPage {
  keys: string[];
  /** Whether there are more. */
  truncated: boolean;
}

/** Its methods throw what the store answers where that cannot be reached. */
export interface ObjectStore {
  put(key: string, content: Uint8Array): Promise<void>;
  /** Undefined where there is no such object. */
  get(key: string, range?: { offset: number; length: number }): Promise<StoredObject | undefined>;
  /** Deletes any number of objects. One that is not there is no error. */
  delete(keys: readonly string[]): Promise<void>;
  /** @param delimiter leaves out keys that have it behind the prefix */
  list(prefix: string, delimiter?: string): Promise<KeyPage>;
}

/** Deletes every object whose key has this prefix. */
export async function deleteBelow(store: ObjectStore, prefix: string): Promise<void> {
  for (;;) {
    const { keys, truncated } = await store.list(prefix);
    await store.delete(keys);
    if (!truncated) return;
  }
}

/** Objects that R2 deletes in one call. */
const DELETE_BATCH = 1000;

/** The store behind a binding. @param binding an R2 bucket; its type says so nowhere else, so that nothing else uses it */
export function objectStore(binding: object): ObjectStore {
  const bucket = binding as R2Bucket;
  return {
    async put(key, content) {
      await bucket.put(key, content);
    },
    async get(key, range) {
      return (await bucket.get(key, { range })) ?? undefined;
    },
    async delete(keys) {
      for (let at = 0; at < keys.length; at += DELETE_BATCH)
        await bucket.delete(keys.slice(at, at + DELETE_BATCH));
    },
    async list(prefix, delimiter) {
      const { objects, truncated } = await bucket.list({ prefix, delimiter });
      return { keys: objects.map(({ key }) => key), truncated };
    },
  };
}
