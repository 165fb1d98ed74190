/**
 * The store of OAuth on the local platform: miniflare's Workers KV. Its reads and deletions are always ready, and workerd looks for new
 * requests only when nothing is. So long sequences of them have pauses.
 */
import { Attempts as ProductionAttempts } from "../../src/actors/attempts.ts";
import { interceptStore } from "../../src/auth/oauth-store.ts";
import type { Env } from "../../src/shared/config.ts";
import { pause } from "../../src/shared/timers.ts";
import { changeOnce } from "./object-folder.ts";

/** The shortest time between two alarms that delete expired values, in milliseconds. */
const EXPIRY_MS = 2000;

/** The storage prefix of the keys of OAUTH_KV that expire. They sort by their expiry: the seconds have ten digits until 2286. */
const EXPIRIES = "expires:";

/** The storage prefix of the keys of OAUTH_KV, each with its expiry, so that the expiry can be forgotten. */
const EXPIRY_OF = "expiry of ";

export class Attempts extends ProductionAttempts {
  /**
   * Called when OAuth has stored a value. Plans its deletion. miniflare deletes expired values only when it lists keys, and then all
   * at once: 20,000 pages that strangers had opened blocked the server for 25 s.
   * @param expiresAt in seconds since the epoch
   */
  async deleteAt(key: string, expiresAt: number): Promise<void> {
    const { kv } = this.ctx.storage;
    this.forget(key);
    kv.put(`${EXPIRIES}${expiresAt} ${key}`, true);
    kv.put(EXPIRY_OF + key, expiresAt);
    await this.#planDeletion();
  }

  /**
   * Called when OAuth has deleted a value. Strangers may register 600 clients a minute, and the server keeps 500. The expiries of the
   * others would be stored for 90 days: 80 MB for each day.
   */
  forget(key: string): void {
    const { kv } = this.ctx.storage;
    const expiresAt = kv.get<number>(EXPIRY_OF + key);
    if (expiresAt === undefined) return;
    kv.delete(`${EXPIRIES}${expiresAt} ${key}`);
    kv.delete(EXPIRY_OF + key);
  }

  /** Deletes expired values of OAuth, and plans the next deletion. */
  override async alarm(): Promise<void> {
    for (let next = this.#nextExpiry(); next && next.expiresAt <= Date.now(); next = this.#nextExpiry()) {
      // miniflare deletes an expired value that is read. A value that was stored again with a later expiry stays.
      await this.env.OAUTH_KV.get(next.key);
      this.forget(next.key);
      // Without pauses, 1,500 values blocked all requests for 9.7 s.
      await pause(0);
    }
    await this.#planDeletion();
  }

  async #planDeletion(): Promise<void> {
    const next = this.#nextExpiry();
    if (!next) return;
    const at = Math.max(next.expiresAt, Date.now() + EXPIRY_MS);
    const planned = await this.ctx.storage.getAlarm();
    if (planned === null || planned > at) await this.ctx.storage.setAlarm(at);
  }

  /** The value that expires first, and when, in milliseconds since the epoch. */
  #nextExpiry() {
    const [first] = this.ctx.storage.kv.list({ prefix: EXPIRIES, limit: 1 });
    if (!first) return undefined;
    const [entry] = first;
    const separator = entry.indexOf(" ");
    const expiresAt = Number(entry.slice(EXPIRIES.length, separator)) * 1000;
    return { key: entry.slice(separator + 1), expiresAt };
  }
}

/**
 * The most keys of a list. A revocation deletes all tokens of a list at once, then asks for the next list: with 1,000 tokens, it
 * blocked all other requests for 11 s.
 */
const LISTED_KEYS = 10;

/** Makes the OAuth store delete expired values, and let others be served between two lists of keys. */
export const withExpiry = changeOnce((env: Pick<Env, "OAUTH_KV" | "Attempts">) => {
  const { OAUTH_KV: store, Attempts: namespace } = env;
  if (!store || !namespace) return env;
  const attempts = namespace as DurableObjectNamespace<Attempts>;
  const deleting = interceptStore(store, async (name, first, call, third) => {
    if (name === "list") {
      await pause(0);
      return store.list({ ...(first as KVNamespaceListOptions), limit: LISTED_KEYS });
    }
    const result = await call();
    if (name === "put") {
      const { expiration, expirationTtl } = (third ?? {}) as KVNamespacePutOptions;
      const expiresAt = expiration ?? (expirationTtl && Math.ceil(Date.now() / 1000) + expirationTtl);
      if (expiresAt) await attempts.getByName("expiry").deleteAt(String(first), expiresAt);
    }
    if (name === "delete") await attempts.getByName("expiry").forget(String(first));
    return result;
  });
  return { ...env, OAUTH_KV: deleting };
});
