/** The key that signs the addresses that the server hands out, so that it knows its own without looking anything up. */
import type { Config } from "./config.ts";
import { ownerTokens } from "./owner-tokens.ts";

/** By the secret that each is derived from. */
const keys = new WeakMap<Config, Map<string, Promise<CryptoKey>>>();

/** Signs new addresses: `LINK_KEY`, or a key derived from a secret that exists; undefined where there is none. */
export function linkKey(config: Config): Promise<CryptoKey> | undefined {
  const [secret] = secretsOf(config);
  return secret === undefined ? undefined : keyOf(secret, config);
}

/** Those whose signatures are accepted: during a rotation of the owner's token that of the one before, too. */
export function linkKeys(config: Config): Promise<CryptoKey[]> {
  return Promise.all(secretsOf(config).map((secret) => keyOf(secret, config)));
}

function secretsOf(config: Config): readonly string[] {
  if (config.linkKey !== undefined) return [config.linkKey];
  const tokens = ownerTokens(config);
  if (tokens.length > 0 || !config.github) return tokens;
  return [config.github.clientSecret];
}

function keyOf(secret: string, config: Config): Promise<CryptoKey> {
  const known = keys.get(config) ?? new Map<string, Promise<CryptoKey>>();
  keys.set(config, known);
  const key = known.get(secret) ?? derive(secret);
  known.set(secret, key);
  return key;
}

/** The signature of a text: 32 bytes. Each kind of address begins its text with a word of its own. */
export async function sign(key: CryptoKey, text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text)));
}

async function derive(secret: string): Promise<CryptoKey> {
  return imported(await sign(await imported(new TextEncoder().encode(secret)), "sandbox-mcp links"));
}

function imported(bytes: Uint8Array): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}
