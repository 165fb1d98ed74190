/** The names of sandboxes, agents, sessions and models, and the Durable Object that a name stands for, which no other principal can reach. */
import { z } from "zod";
import { sha256 } from "./sha256.ts";

/** 1 to 20 of `a-z`, `0-9` and `-`, no dash first or last. */
export const SANDBOX_NAME = /^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$/;

/** The same as the end of a sentence about a name. */
export const SANDBOX_NAME_RULE = "must be 1 to 20 of a-z, 0-9 and -, without a dash at either end";

export const DEFAULT_SANDBOX = "default";

/** The coding agents that can do a task. */
export const AGENT_NAMES = ["claude-code", "opencode"] as const;

/** The name of a session of commands, or of a context of code. */
export const SESSION_NAME = /^[a-z0-9-]{1,32}$/;

/** The same as the end of a sentence about a name. */
export const SESSION_NAME_RULE = "must be 1 to 32 of a-z, 0-9 and -";

/** The name of a model, of up to 100 characters; it may stand in a command line. */
export const MODEL_NAME = /^[A-Za-z0-9][\w.:/@[\]-]*$/;

export function modelName() {
  return z.string().max(100).regex(MODEL_NAME, "must be the name of a model");
}

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

/**
 * The name of the Durable Object behind sandbox `name` of a principal: `<name>-<16 base32 characters>`, the first 80
 * bits of the SHA-256 of the principal's id. Two principals can use the same name and never meet; nobody can search
 * for an id that collides, and the host label of a preview made of it stays under the 63 characters of DNS.
 */
export async function actorName(name: string, principalID: string): Promise<string> {
  return `${name}-${await principalHash(principalID)}`;
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

async function hashOf(principalID: string): Promise<string> {
  const digest = await sha256(principalID);
  let bits = 0n;
  for (const byte of digest.subarray(0, 10)) bits = (bits << 8n) | BigInt(byte);
  return Array.from(
    { length: 16 },
    (_, index) => BASE32[Number((bits >> BigInt(75 - 5 * index)) & 31n)],
  ).join("");
}
