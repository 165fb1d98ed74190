/** The key-value store for OAuth: failures are `StoreError`s, and every operation has a time limit. */
import type { Env } from "../shared/config.ts";
import { logError } from "../shared/log.ts";
import type { SignInName } from "../shared/principal.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { valueWithin } from "../shared/timers.ts";
import { messageOf } from "../shared/text.ts";

const MAX_KEY_BYTES = 512;

/** The time limit of one operation. Most take less than a second. */
const TIMEOUT_MS = 10_000;

/** The store failed or timed out. Keeps the store's message, because the OAuth provider recognizes some messages. */
export class StoreError extends Error {
  override readonly name = "StoreError";
}

export function guardStore(store: KVNamespace): KVNamespace {
  return interceptStore(store, (name, key, call) => {
    // No value has a key that is too long, and the store would throw for such a key.
    const isTooLong = typeof key === "string" && bytesOf(key) > MAX_KEY_BYTES;
    return name === "get" && isTooLong ? Promise.resolve(null) : withTimeLimit(call);
  });
}

/** The keys of the sign-in methods' own values: a name, a colon and the rest (docs/internals/storage.md). */
export const METHOD_KEYS = {
  "github-login": {
    id: "<login>",
    holds:
      "the numeric id of the GitHub account that first signed in under this login of `GITHUB_ALLOWED_USERS`",
    kept: "until it is deleted by hand",
  },
} satisfies Partial<Record<`${SignInName}-${string}`, { id: string; holds: string; kept: string }>>;

type MethodKey<Name extends SignInName> = Extract<keyof typeof METHOD_KEYS, `${Name}-${string}`>;

export interface MethodStore<Name extends SignInName = SignInName> {
  get(key: MethodKey<Name>, id: string): Promise<string | null>;
  put(key: MethodKey<Name>, id: string, value: string): Promise<void>;
}

export function methodStore({ OAUTH_KV }: Pick<Env, "OAUTH_KV">): MethodStore {
  if (!OAUTH_KV) throw new StoreError("OAUTH_KV is not bound");
  const store = guardStore(OAUTH_KV);
  return {
    get: (key, id) => store.get(`${key}:${id}`),
    put: (key, id, value) => store.put(`${key}:${id}`, value),
  };
}

/**
 * Wraps a store.
 * @param intercept gets each method's name, its first argument, a function that makes the call, and its third and second arguments
 */
export function interceptStore(
  store: KVNamespace,
  intercept: (
    name: string | symbol,
    key: unknown,
    call: () => Promise<unknown>,
    options: unknown,
    value: unknown,
  ) => unknown,
): KVNamespace {
  return new Proxy(store, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...given: unknown[]) =>
        intercept(name, given[0], async () => Reflect.apply(member, target, given), given[2], given[1]);
    },
  });
}

export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

/** @throws {StoreError} if the operation fails or takes too long */
export async function withTimeLimit<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await valueWithin(TIMEOUT_MS, operation(), () => new Error("the store did not respond in time"));
  } catch (error) {
    throw new StoreError(messageOf(error), { cause: error });
  }
}

/** The result of the work. If the store failed, logs the error and returns undefined. */
export async function unlessStoreFails<T>(context: RequestContext, where: string, work: () => Promise<T>) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    logError(context, where, error);
    return undefined;
  }
}
