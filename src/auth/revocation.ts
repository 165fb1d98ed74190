/** Logs what a revocation revoked, by watching the store: the provider returns 200 in any case (RFC 7009, 2.2). */
import * as z from "zod";
import { log } from "../shared/log.ts";
import type { RequestContext } from "../shared/request-context.ts";

export interface Revoked {
  principal: string;
  client: string;
  /** Undefined if the grant no longer exists. */
  via?: string;
  scope: string;
}

/** As the provider stores them, under `grant:<user>:<grant>` and `token:<user>:<grant>:<token>`. */
const grantRecord = z.object({
  clientId: z.string(),
  scope: z.array(z.string()),
  metadata: z.object({ via: z.string() }).optional(),
});
const tokenRecord = z.object({
  scope: z.array(z.string()).optional(),
  grant: z.object({ clientId: z.string(), scope: z.array(z.string()) }),
});

/** Wraps a store without changing it. The returned function says what was revoked. */
export function watched(store: KVNamespace) {
  const read = new Map<string, unknown>();
  const deleted: string[] = [];
  const seen = new Proxy(store, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return async (...given: unknown[]) => {
        const result: unknown = await Reflect.apply(member, target, given);
        if (name === "get") read.set(String(given[0]), result);
        if (name === "delete") deleted.push(String(given[0]));
        return result;
      };
    },
  });

  async function revoked(): Promise<Revoked | undefined> {
    // A grant's tokens are deleted before the grant, without being read.
    const key = deleted.find((name) => name.startsWith("grant:")) ?? deleted[0];
    const [kind, user = "", id = ""] = key?.split(":") ?? [];
    if (key === undefined) return undefined;
    const principal = decodeURIComponent(user);
    const record = read.get(key);
    if (kind === "grant") return { principal, ...ofGrant(record) };
    const token = tokenRecord.safeParse(record).data;
    const { via } = ofGrant(await store.get(`grant:${user}:${id}`, "json"));
    return {
      principal,
      via,
      client: token?.grant.clientId ?? "",
      scope: (token?.scope ?? token?.grant.scope ?? []).join(" "),
    };
  }

  return { store: seen, revoked };
}

export function logRevoked(revoked: Revoked, route: string, { config, requestID }: RequestContext): void {
  log(config, { event: "token", request_id: requestID, action: "revoke", ...revoked, route });
}

function ofGrant(record: unknown): Omit<Revoked, "principal"> {
  const { clientId: client = "", scope = [], metadata } = grantRecord.safeParse(record).data ?? {};
  return { client, scope: scope.join(" "), via: metadata?.via };
}
