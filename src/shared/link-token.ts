/** The tokens of file links: the actor and the id of the stored link, signed. A forged token reaches no sandbox. */
import * as z from "zod";
import { ACTOR_NAME_SOURCE, type ActorName } from "./names.ts";
import { areEqual } from "./preview-address.ts";
import { sign } from "./sign.ts";
import { parseSafely } from "./bounded.ts";

/** The name of the sandbox's Durable Object, which identifies the principal. The signature of the token covers it. */
const actorSchema = z.string().transform((name) => name as ActorName);

/** A link to a sandbox's file. Earlier versions put the whole link into the token, as base64url JSON. */
const linkSchema = z.strictObject({
  actor: actorSchema,
  /** Changes when the container ends. */
  epoch: z.string(),
  direction: z.enum(["download", "upload"]),
  /** Absolute. */
  path: z.string(),
  /** For uploads: the most bytes, and whether the path must stay below /workspace and /tmp. */
  max: z.number().optional(),
  confined: z.boolean().optional(),
  /** Milliseconds since the epoch. */
  expires: z.number(),
  id: z.string(),
});

/** The most bytes of an uploaded file. */
export const MAX_UPLOAD_BYTES = 5 * 1024 ** 3;

export type FileLink = z.infer<typeof linkSchema>;

/** A link to a run's output, which outlives the sandbox. */
const runLinkSchema = z.strictObject({
  actor: actorSchema,
  run: z.string(),
  name: z.string(),
  expires: z.number(),
});

export type RunLink = z.infer<typeof runLinkSchema>;

const anyLinkSchema = z.union([linkSchema, runLinkSchema]);

export type KeptLink = (Omit<FileLink, "actor" | "id"> | Omit<RunLink, "actor">) & {
  /** Whether an upload by this link is complete. */
  isUsedUp?: boolean;
};

export interface LinkName {
  actor: ActorName;
  id: string;
}

/** The path of links to decisions about network access. The token of the link follows. */
export const DECISION_PATH = "/panel/decision";

/** The path of the page on which people sign in to git hosts. The name of a host may follow. */
export const GIT_PATH = "/panel/git";

/** The length of a link's id, and of its signature. 96 bits are enough for the signature, because each guess needs a request. */
export const LINK_ID_CHARS = 12;
const SIGNATURE_CHARS = 16;

const TOKEN = new RegExp(`^(${ACTOR_NAME_SOURCE})\\.([\\w-]{${LINK_ID_CHARS}})([\\w-]{${SIGNATURE_CHARS}})$`);

/** The tokens of links from earlier versions. Such links are valid for a day, so a later version can remove this pattern. */
const WHOLE_TOKEN = /^([\w-]{1,20000})\.([\w-]{43})$/;

export async function writeToken({ actor, id }: LinkName, [key]: readonly CryptoKey[]) {
  if (!key) return undefined;
  const signature = base64url(await sign(key, `link ${actor}.${id}`));
  return `${actor}.${id}${signature.slice(0, SIGNATURE_CHARS)}`;
}

export async function readToken(
  token: string,
  keys: readonly CryptoKey[],
): Promise<LinkName | FileLink | RunLink | undefined> {
  const [, actor, id, end] = TOKEN.exec(token) ?? [];
  if (actor !== undefined && id !== undefined && end !== undefined)
    return (await isSigned(`link ${actor}.${id}`, end, keys)) ? { actor: actor as ActorName, id } : undefined;
  const [, text, signature] = WHOLE_TOKEN.exec(token) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  if (!(await isSigned(`file ${text}`, signature, keys))) return undefined;
  const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
  return anyLinkSchema.parse(parseSafely(new TextDecoder().decode(bytes)));
}

/** Whether this server made the signature, which may be cut to a prefix. */
async function isSigned(text: string, signature: string, keys: readonly CryptoKey[]): Promise<boolean> {
  const signatures = await Promise.all(keys.map((key) => sign(key, text)));
  // Compared as text, because decoding ignores some bits of the last character.
  return signatures.some((own) => areEqual(signature, base64url(own).slice(0, signature.length)));
}

export function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
