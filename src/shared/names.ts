/** Names of sandboxes, agents, sessions, models, and sandboxes' Durable Objects. The panel imports this file too. */
import { remember } from "../../container/sandboxd/remember.ts";
import { sha256 } from "./sha256.ts";

export const MAX_SANDBOX_NAME = 128;

/** The HTML attribute `pattern` uses the same source, and applies the flag `v`. */
export const SANDBOX_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._\-:@]{0,126}[A-Za-z0-9])?$/v;

export const SANDBOX_NAME_FORM =
  "1 to 128 characters (A-Z, a-z, 0-9, -, _, ., :, @), a letter or digit first and last";

/** Says what a name must be, and proposes a valid name that is similar to this one. */
export function sandboxNameRule(name: unknown): string {
  const proposal = String(name)
    .slice(0, 2 * MAX_SANDBOX_NAME)
    .replaceAll(/[^A-Za-z0-9._:@-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .slice(0, MAX_SANDBOX_NAME)
    .replace(/[^A-Za-z0-9]+$/, "");
  return `must be ${SANDBOX_NAME_FORM}, such as "${proposal || "sandbox"}"`;
}

export const DEFAULT_SANDBOX = "default";

export const AGENT_NAMES = ["claude-code", "opencode"] as const;

/** The name of a command session or code context. The server's own names begin with `_`. */
export const SESSION_NAME = /^[a-z0-9-][a-z0-9._-]{0,63}$/;

export const SESSION_NAME_RULE = "must be 1 to 64 characters (a-z, 0-9, -, _, .), neither _ nor . first";

/** A model's name, which is safe in a command line. Schemas limit its length. */
export const MODEL_NAME = /^[A-Za-z0-9][\w.:/@[\]-]*$/;

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

/** Short names are part of a Durable Object's name. Longer ones are hashed. */
const SHORT_NAME = /^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$/;

/** The classes of sandboxes, one for each size. */
export const SANDBOX_CLASSES = ["Sandbox"] as const;

export type SandboxClass = (typeof SANDBOX_CLASSES)[number];

/** The Worker's Durable Objects. Each has a binding of the same name. */
export const DURABLE_OBJECTS = [...SANDBOX_CLASSES, "Account", "Attempts"] as const;

declare const ofActor: unique symbol;
/** A result of `actorName`. The mark lets the compiler tell it from the name of a sandbox. */
export type ActorName = string & { readonly [ofActor]: true };

/** The form of `actorName`'s results, without `^` and `$`. */
export const ACTOR_NAME_SOURCE = `(?:${SHORT_NAME.source.slice(1, -1)}|[a-z2-7]{16}-)-[a-z2-7]{16}`;

/**
 * The Durable Object's name for a principal's sandbox: `<name>-<16 base32 characters>`, the first 80 bits of the SHA-256 of the
 * principal's id. So principals can use the same names without conflicts. Nobody can find a principal id with the same hash. The
 * host label of a preview stays within DNS's 63 characters.
 *
 * A name that is not short is replaced by its hash and a dash. No short name ends with a dash, so the two forms differ.
 */
export async function actorName(name: string, principalID: string): Promise<ActorName> {
  const label = SHORT_NAME.test(name) ? name : `${await hashOf(name)}-`;
  return `${label}-${await principalHash(principalID)}` as ActorName;
}

/** The principal of an actor, as its hash. */
export const principalOf = (actor: ActorName): string => actor.slice(-16);

export function randomLetters(count: number): string {
  const random = crypto.getRandomValues(new Uint8Array(count));
  return Array.from(random, (byte) => BASE32[byte & 31]).join("");
}

/** Hashes of recent principals, because every call needs one. */
const hashes = new Map<string, string>();
const MAX_HASHES = 1000;

export async function principalHash(principalID: string): Promise<string> {
  const hash = hashes.get(principalID) ?? (await hashOf(principalID));
  remember(hashes, principalID, hash, MAX_HASHES);
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
