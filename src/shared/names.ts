/**
 * The names of sandboxes, agents, sessions and models, and the Durable Object that a name stands for, which no other principal can
 * reach. The panel imports this file too.
 */
import { sha256 } from "./sha256.ts";

/** Characters of a sandbox's name. */
export const MAX_SANDBOX_NAME = 63;

/** The flag lets its source be a `pattern` in HTML. */
export const SANDBOX_NAME = /^[a-z0-9](?:[a-z0-9._\-]{0,61}[a-z0-9])?$/v;

/** The rule in words, without a verb and as the end of a sentence about a name. */
export const SANDBOX_NAME_FORM = "1 to 63 of a-z, 0-9, -, _ and ., a letter or digit first and last";
export const SANDBOX_NAME_RULE = `must be ${SANDBOX_NAME_FORM}`;

export const DEFAULT_SANDBOX = "default";

/** The coding agents that can do a task. */
export const AGENT_NAMES = ["claude-code", "opencode"] as const;

/** The name of a session of commands, or of a context of code. The server's own sessions begin with `_`. */
export const SESSION_NAME = /^[a-z0-9-][a-z0-9._-]{0,63}$/;

/** The same as the end of a sentence about a name. */
export const SESSION_NAME_RULE = "must be 1 to 64 of a-z, 0-9, -, _ and ., neither _ nor . first";

/** The name of a model, of up to 100 characters; it may stand in a command line. */
export const MODEL_NAME = /^[A-Za-z0-9][\w.:/@[\]-]*$/;

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

/** The names that stand in a Durable Object's name as they are. Earlier versions allowed no others. */
const SHORT_NAME = /^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$/;

/** What `actorName` returns, without `^` and `$`. */
export const ACTOR_NAME_SOURCE = `(?:${SHORT_NAME.source.slice(1, -1)}|[a-z2-7]{16}-)-[a-z2-7]{16}`;

/**
 * The name of the Durable Object behind sandbox `name` of a principal: `<name>-<16 base32 characters>`, the first 80
 * bits of the SHA-256 of the principal's id. Two principals can use the same name and never meet; nobody can search
 * for an id that collides, and the host label of a preview made of it stays under the 63 characters of DNS.
 *
 * In the place of a long name, or one with `_` or `.`, stands its hash with a dash, which ends no short name.
 */
export async function actorName(name: string, principalID: string): Promise<string> {
  const label = SHORT_NAME.test(name) ? name : `${await hashOf(name)}-`;
  return `${label}-${await principalHash(principalID)}`;
}

/** Random characters of base32, each of 5 bits. */
export function randomLetters(count: number): string {
  const random = crypto.getRandomValues(new Uint8Array(count));
  return Array.from(random, (byte) => BASE32[byte & 31]).join("");
}

/** Hashes of principals that called lately, because every call needs one. */
const hashes = new Map<string, string>();
const MAX_HASHES = 1000;

/** The first 80 bits of the SHA-256 of a principal's id, as 16 lower-case base32 characters. */
export async function principalHash(principalID: string): Promise<string> {
  const hash = hashes.get(principalID) ?? (await hashOf(principalID));
  if (hashes.size >= MAX_HASHES) hashes.clear();
  hashes.set(principalID, hash);
  return hash;
}

async function hashOf(text: string): Promise<string> {
  const digest = await sha256(text);
  let bits = 0n;
  for (const byte of digest.subarray(0, 10)) bits = (bits << 8n) | BigInt(byte);
  return Array.from(
    { length: 16 },
    (_, index) => BASE32[Number((bits >> BigInt(75 - 5 * index)) & 31n)],
  ).join("");
}
