/** The key-value store as OAuth uses it: what it cannot do is told apart from what it does not hold, and nobody waits for ever. */

/** What the store takes for a key, in bytes. */
const MAX_KEY = 512;

/** How long one operation may take, in milliseconds. The store itself takes under one second, seldom more. */
const PATIENCE = 10_000;

/** The store refused, or did not answer in time. The message is the store's own, by which the OAuth provider knows some. */
export class StoreError extends Error {
  override readonly name = "StoreError";
}

/** `store`, whose failures are all `StoreError`s. */
export function guarded(store: KVNamespace): KVNamespace {
  return new Proxy(store, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...given: unknown[]) => {
        // It holds nothing under a key that it does not take, and throws when it is asked.
        if (name === "get" && isTooLong(given[0])) return Promise.resolve(null);
        return inTime(async () => Reflect.apply(member, target, given));
      };
    },
  });
}

function isTooLong(key: unknown): boolean {
  return typeof key === "string" && bytesOf(key) > MAX_KEY;
}

/** The length of `text` in UTF-8. */
export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

async function inTime<T>(operation: () => Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("OAUTH_KV did not answer in time")), PATIENCE);
  });
  try {
    return await Promise.race([operation(), late]);
  } catch (error) {
    throw new StoreError(error instanceof Error ? error.message : String(error), { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
