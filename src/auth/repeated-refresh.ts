/**
 * Lets a client use a refresh token again for a short time, because the response can get lost, and because two processes of a client
 * may refresh at once. The provider alone would accept the token until the new one is used, and the second use would replace the
 * first one's new token.
 */

import { interceptStore } from "./oauth-store.ts";

/** How long after its first use a refresh token works again, in milliseconds. */
const REPEAT_MS = 60_000;

/** The parts of the provider's record of a grant that change with a refresh, and when its previous token was first used. */
interface Grant {
  refreshTokenId?: string;
  refreshTokenWrappedKey?: string;
  previousRefreshTokenId?: string;
  previousUsedAt?: number;
}

/**
 * Wraps the store for a request with a refresh token. A grant's record has only the newest token, and the last of two simultaneous
 * requests writes it. So each new token also has a record of its own until it is used, with its key to the grant.
 */
export function keepRepeatedRefreshes(store: KVNamespace, token: string): KVNamespace {
  const grantID = token.slice(0, token.lastIndexOf(":"));
  const keyOf = (id: string) => `refresh:${grantID}:${id}`;
  let usedAt = Date.now();

  async function read(): Promise<Grant | null> {
    const id = await idOf(token);
    const [grant, wrappedKey] = await Promise.all([
      store.get<Grant>(`grant:${grantID}`, "json"),
      store.get(keyOf(id)),
    ]);
    if (!grant || grant.refreshTokenId === id) return grant;
    if (wrappedKey !== null) return { ...grant, refreshTokenId: id, refreshTokenWrappedKey: wrappedKey };
    if (grant.previousRefreshTokenId !== id) return grant;
    usedAt = grant.previousUsedAt ?? usedAt;
    return Date.now() - usedAt > REPEAT_MS ? { ...grant, previousRefreshTokenId: undefined } : grant;
  }

  async function write(value: string, options: KVNamespacePutOptions): Promise<void> {
    const grant = JSON.parse(value) as Grant;
    const { expiration } = options;
    await store.put(keyOf(grant.refreshTokenId ?? ""), grant.refreshTokenWrappedKey ?? "", { expiration });
    await store.put(`grant:${grantID}`, JSON.stringify({ ...grant, previousUsedAt: usedAt }), options);
    await store.delete(keyOf(await idOf(token)));
  }

  return interceptStore(store, (name, key, call, options, value) => {
    if (key !== `grant:${grantID}`) return call();
    if (name === "get") return read();
    return name === "put" ? write(value as string, options as KVNamespacePutOptions) : call();
  });
}

/** The provider's id of a token. */
async function idOf(token: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token))).toHex();
}
