/**
 * Finds out which grant or token a revocation revoked, by watching the store: the provider always returns status 200 (RFC 7009,
 * 2.2). Remembers revoked grants, because another location may read such a grant for a minute.
 */
import * as z from "zod";
import { revocationsOf } from "../actors/attempts.ts";
import type { Env } from "../shared/config.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { pause } from "../shared/timers.ts";
import { interceptStore, unlessStoreFails, withTimeLimit } from "./oauth-store.ts";

const GRANT = "grant:";

/** When a grant is deleted once more, in milliseconds: a refresh takes less. Cloudflare ends background work after 30 seconds. */
const DELETE_AGAIN_MS = 3000;

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

/** Wraps a store so that a grant is recorded as revoked before it is deleted, and deleted once more. */
export function rememberRevocations(store: KVNamespace, context: RequestContext): KVNamespace {
  return interceptStore(store, async (name, key, call) => {
    const grant = String(key);
    if (name !== "delete" || !grant.startsWith(GRANT)) return call();
    await revocationsOf(context.env)?.noteRevoked(grant);
    context.ctx.waitUntil(unlessStoreFails(context, "oauth", () => deleteAgain(store, grant)));
    return call();
  });
}

/** Deletes a grant and its tokens once more, because a refresh that began before the deletion may store both again. */
async function deleteAgain(store: KVNamespace, grant: string): Promise<void> {
  await pause(DELETE_AGAIN_MS);
  await withTimeLimit(async () => {
    const { keys } = await store.list({ prefix: `token:${grant.slice(GRANT.length)}:` });
    await Promise.all([grant, ...keys.map(({ name }) => name)].map((key) => store.delete(key)));
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
  async function findRevoked() {
    // A grant's tokens are deleted before the grant, without being read.
    const key = deleted.find((name) => name.startsWith(GRANT)) ?? deleted[0];
    if (key === undefined) return undefined;
    const [kind, user = "", id = ""] = key.split(":");
    const principal = decodeURIComponent(user);
    const record = read.get(key);
    if (kind === "grant") return { principal, ...grantFields(record) };
    const token = tokenRecord.safeParse(record).data;
    const { via } = grantFields(await store.get(`${GRANT}${user}:${id}`, "json"));
    const scope = (token?.scope ?? token?.grant.scope ?? []).join(" ");
    return { principal, via, client: token?.grant.clientId ?? "", scope };
  }

  return { store: observedStore, findRevoked };
}

/** `via` is undefined if the grant no longer exists. */
function grantFields(record: unknown) {
  const { clientId: client = "", scope = [], metadata } = grantRecord.safeParse(record).data ?? {};
  return { client, scope: scope.join(" "), via: metadata?.via };
}
