/**
 * The tokens of links to files. A token names the sandbox's actor and the link that the actor keeps, and has the server's signature: no
 * sandbox is asked for a token that somebody made up.
 */
import { z } from "zod";
import { ACTOR_NAME_SOURCE } from "./names.ts";
import { equal } from "./preview-address.ts";
import { sign } from "./sign.ts";

/** A link to a file of a sandbox. Earlier versions wrote all of it into the token, as JSON in base64url. */
const linkSchema = z.strictObject({
  /** The name of the sandbox's Durable Object, which holds the principal. */
  actor: z.string(),
  /** What ends with the container. */
  epoch: z.string(),
  direction: z.enum(["download", "upload"]),
  /** Absolute. */
  path: z.string(),
  /** Of an upload: bytes at most, and whether it may lead below /workspace and /tmp alone. */
  max: z.number().optional(),
  confined: z.boolean().optional(),
  /** Milliseconds since the epoch. */
  expires: z.number(),
  /** Random. */
  id: z.string(),
});

export type FileLink = z.infer<typeof linkSchema>;

/** A link for a download of what a run left, which outlives the sandbox. */
const runLinkSchema = z.strictObject({
  /** As above. */
  actor: z.string(),
  /** The run's id, and what of it: as addresses of resources have it. */
  run: z.string(),
  name: z.string(),
  /** Milliseconds since the epoch. */
  expires: z.number(),
});

export type RunLink = z.infer<typeof runLinkSchema>;

const anyLinkSchema = z.union([linkSchema, runLinkSchema]);

/** A link as its actor keeps it. */
export type KeptLink = Omit<FileLink, "actor" | "id"> | Omit<RunLink, "actor">;

/** The link that an actor keeps under this id. */
export interface LinkName {
  actor: string;
  id: string;
}

/** Where a link leads by which a person decides what a sandbox may reach; its token follows. */
export const DECISION_PATH = "/panel/decision";

/** Characters of a link's id, and of its signature, which has 96 bits: enough where each guess is a request. */
export const LINK_ID_CHARS = 12;
const SIGNATURE_CHARS = 16;

const TOKEN = new RegExp(`^(${ACTOR_NAME_SOURCE})\\.([\\w-]{${LINK_ID_CHARS}})([\\w-]{${SIGNATURE_CHARS}})$`);

/** Links of an earlier version are good for a day, so that this can go with the next but one. */
const WHOLE_TOKEN = /^([\w-]{1,20000})\.([\w-]{43})$/;

/** The token of a link; undefined without a key to sign it with. */
export async function writeToken(
  { actor, id }: LinkName,
  [key]: readonly CryptoKey[],
): Promise<string | undefined> {
  if (!key) return undefined;
  const signature = base64url(await sign(key, `link ${actor}.${id}`));
  return `${actor}.${id}${signature.slice(0, SIGNATURE_CHARS)}`;
}

/** What a token stands for; undefined where none of the keys has signed it. It may have expired. */
export async function readToken(
  token: string,
  keys: readonly CryptoKey[],
): Promise<LinkName | FileLink | RunLink | undefined> {
  const [, actor, id, end] = TOKEN.exec(token) ?? [];
  if (actor !== undefined && id !== undefined && end !== undefined)
    return (await isSigned(`link ${actor}.${id}`, end, keys)) ? { actor, id } : undefined;
  const [, text, signature] = WHOLE_TOKEN.exec(token) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  if (!(await isSigned(`file ${text}`, signature, keys))) return undefined;
  const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
  return anyLinkSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

/** Whether a signature, or its beginning, is this server's. */
async function isSigned(text: string, signature: string, keys: readonly CryptoKey[]): Promise<boolean> {
  const signatures = await Promise.all(keys.map((key) => sign(key, text)));
  // The texts are compared, because the last character of a signature has bits that decoding ignores.
  return signatures.some((own) => equal(signature, base64url(own).slice(0, signature.length)));
}

function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
