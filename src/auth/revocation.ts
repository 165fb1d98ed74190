/**
 * Finds out which grant or token a revocation revoked, by watching the store: the provider always returns status 200 (RFC 7009,
 * 2.2). Remembers revoked grants, because another location may read such a grant for a minute.
 */
import * as z from "zod";
import { revocationsOf } from "../actors/attempts.ts";
import type { Env } from "../shared/config.ts";
import { interceptStore, withTimeLimit } from "./oauth-store.ts";

const GRANT = "grant:";

/** The provider's records, under `grant:<user>:<grant>` and `token:<user>:<grant>:<token>`. */
const grantRecord = z.object({
  clientId: z.string(),
  scope: z.array(z.string()),
  metadata: z.object({ via: z.string() }).optional(),
});
const tokenRecord = z.object({
  scope: z.array(z.string()).optional(),
  grant: z.object({ clientId: z.string(), scope: z.array(z.string()) }),
});

/** Wraps a store so that a grant is recorded as revoked before it is deleted. */
export function rememberRevocations(store: KVNamespace, env: Pick<Env, "Attempts">): KVNamespace {
  return interceptStore(store, async (name, key, call) => {
    if (name === "delete" && String(key).startsWith(GRANT))
      await revocationsOf(env)?.noteRevoked(String(key));
    return call();
  });
}

/** Whether a grant was revoked, in any location. @throws {StoreError} */
export function isRevoked(env: Pick<Env, "Attempts">, user: string, grant: string): Promise<boolean> {
  return withTimeLimit(
    async () => (await revocationsOf(env)?.isRevoked(`${GRANT}${user}:${grant}`)) ?? false,
  );
}

/** Wraps a store and records the values that are read, and the keys that are deleted. */
export function watchRevocations(store: KVNamespace) {
  const read = new Map<string, unknown>();
  const deleted: string[] = [];
  const observedStore = interceptStore(store, async (name, key, call) => {
    const result = await call();
    if (name === "get") read.set(String(key), result);
    if (name === "delete") deleted.push(String(key));
    return result;
  });

  /** The grant that was revoked, or else the token; undefined if nothing was. */
  function revokedRecord() {
    // A grant's tokens are deleted before the grant, without being read.
    const key = deleted.find((name) => name.startsWith(GRANT)) ?? deleted[0];
    if (key === undefined) return undefined;
    const [kind, user = "", id = ""] = key.split(":");
    return { key, kind, user, id };
  }

  /** The grant that was revoked; undefined if only a token was revoked, or nothing. */
  function revokedGrant() {
    const revoked = revokedRecord();
    return revoked?.kind === "grant" ? revoked : undefined;
  }

  async function findRevoked() {
    const revoked = revokedRecord();
    if (revoked === undefined) return undefined;
    const { key, kind, user, id } = revoked;
    const principal = decodeURIComponent(user);
    const record = read.get(key);
    if (kind === "grant") return { principal, ...grantFields(record) };
    const token = tokenRecord.safeParse(record).data;
    const { via } = grantFields(await store.get(`${GRANT}${user}:${id}`, "json"));
    const scope = (token?.scope ?? token?.grant.scope ?? []).join(" ");
    return { principal, via, client: token?.grant.clientId ?? "", scope };
  }

  return { store: observedStore, findRevoked, revokedGrant };
}

/** `via` is undefined if the grant no longer exists. */
function grantFields(record: unknown) {
  const { clientId: client = "", scope = [], metadata } = grantRecord.safeParse(record).data ?? {};
  return { client, scope: scope.join(" "), via: metadata?.via };
}
