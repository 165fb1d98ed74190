/** The keys that sign the server's links, so that the server recognizes its links without a lookup. */
import { type Config, ownerTokens } from "../shared/config.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { sign } from "../shared/sign.ts";
import type { Attempts } from "./attempts.ts";

const LINK_KEY_NAME = "links";

type KeyContext = Pick<RequestContext, "config" | "env">;

interface KeyCache {
  derived: Map<string, Promise<CryptoKey>>;
  made?: string | undefined;
}

const caches = new WeakMap<Config, KeyCache>();

/** The accepted signing keys; the first one signs. Empty if there is none and the server cannot store a generated one. */
export async function linkKeys(context: KeyContext): Promise<CryptoKey[]> {
  const { derived } = cacheOf(context.config);
  const secrets = await secretsOf(context);
  return Promise.all(
    secrets.map((secret) => {
      const key = derived.get(secret) ?? derive(secret);
      derived.set(secret, key);
      return key;
    }),
  );
}

/** `LINK_KEY`, else the owner's tokens (two during a rotation), else a generated key. */
async function secretsOf({ config, env }: KeyContext): Promise<readonly string[]> {
  if (config.linkKey !== undefined) return [config.linkKey];
  const tokens = ownerTokens(config);
  if (tokens.length > 0) return tokens;
  const made = await generatedKey({ config, env });
  return made === undefined ? [] : [made];
}

/** Caches the key, not its promise: if the client of a request resets its connection, workerd never settles the request's promises. */
async function generatedKey({ config, env }: KeyContext): Promise<string | undefined> {
  const cache = cacheOf(config);
  const namespace = env.Attempts as DurableObjectNamespace<Attempts> | undefined;
  return (cache.made ??= await namespace?.getByName(LINK_KEY_NAME).linkKey());
}

function cacheOf(config: Config): KeyCache {
  const cache = caches.get(config) ?? { derived: new Map<string, Promise<CryptoKey>>() };
  caches.set(config, cache);
  return cache;
}

async function derive(secret: string): Promise<CryptoKey> {
  return importKey(await sign(await importKey(new TextEncoder().encode(secret)), "sandbox-mcp links"));
}

function importKey(bytes: Uint8Array): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}
