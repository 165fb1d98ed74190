/** The key that signs the addresses that the server hands out, so that it knows its own without looking anything up. */
import type { Config } from "./config.ts";

const keys = new WeakMap<Config, Promise<CryptoKey>>();

/** `LINK_KEY`, or a key derived from a secret that exists; undefined where there is none. */
export function linkKey(config: Config): Promise<CryptoKey> | undefined {
  const secret = config.linkKey ?? config.serverAuthToken ?? config.github?.clientSecret;
  if (secret === undefined) return undefined;
  const key = keys.get(config) ?? derive(secret);
  keys.set(config, key);
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
