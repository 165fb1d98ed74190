/** Objects by key: logs, results of tasks, saved workspaces, definitions. Only this file calls R2. */
import type { Env } from "../shared/config.ts";
import { pause } from "../shared/timers.ts";

export interface StoredObject {
  /** Bytes of the whole object. */
  size: number;
  body: ReadableStream<Uint8Array>;
  bytes(): Promise<Uint8Array>;
}

type Content = Uint8Array | ReadableStream<Uint8Array>;

/** Methods throw the store's error if it is unavailable. */
export interface ObjectStore {
  /** @param content a stream must be a `FixedLengthStream` */
  put(key: string, content: Content): Promise<void>;
  get(key: string, range?: { offset: number; length: number }): Promise<StoredObject | undefined>;
  /** Deletes any number of objects. Missing ones are ignored. */
  delete(keys: readonly string[]): Promise<void>;
  /** @param delimiter the list omits keys that contain this text after the prefix */
  list(prefix: string, delimiter?: string): Promise<{ keys: string[]; truncated: boolean }>;
}

export async function deleteBelow(store: ObjectStore, prefix: string): Promise<void> {
  for (;;) {
    const { keys, truncated } = await store.list(prefix);
    await store.delete(keys);
    if (!truncated) return;
  }
}

/** The methods of R2 that the store uses. A stand-in for R2 must have them. */
export interface Bucket {
  put(key: string, content: Content): Promise<unknown>;
  get(key: string, options: { range?: { offset: number; length: number } }): Promise<StoredObject | null>;
  delete(keys: string[]): Promise<void>;
  list(options: {
    prefix: string;
    delimiter?: string;
  }): Promise<{ objects: { key: string }[]; truncated: boolean }>;
}

/** The most objects that R2 deletes per call. */
const R2_DELETE_BATCH = 1000;

/** The pause before a failed read is repeated, once, because R2 sometimes fails for a moment. */
const REPEAT_MS = 200;

/** The server's store. Another store than R2 needs its binding in `Env`, and a stand-in for local servers. */
export function objectStore({ RESULTS }: Pick<Env, "RESULTS">): ObjectStore {
  const bucket: Bucket = RESULTS as R2Bucket;
  return {
    async put(key, content) {
      await bucket.put(key, content);
    },
    async get(key, range) {
      const read = () => bucket.get(key, { range });
      return (await read().catch(() => pause(REPEAT_MS).then(read))) ?? undefined;
    },
    async delete(keys) {
      for (let at = 0; at < keys.length; at += R2_DELETE_BATCH)
        await bucket.delete(keys.slice(at, at + R2_DELETE_BATCH));
    },
    async list(prefix, delimiter) {
      const { objects, truncated } = await bucket.list({ prefix, delimiter });
      return { keys: objects.map(({ key }) => key), truncated };
    },
  };
}
