/** The tokens of file links: the actor and the id of the stored link, signed. A forged token reaches no sandbox. */
import { ACTOR_NAME_SOURCE, type ActorName } from "./names.ts";
import { areEqual } from "./preview-address.ts";
import { sign } from "./sign.ts";

export interface LinkName {
  /** The name of the sandbox's Durable Object, which identifies the principal. The signature of the token covers it. */
  actor: ActorName;
  id: string;
}

/** A link to a sandbox's file. */
export interface FileLink extends LinkName {
  /** Changes when the container ends. */
  epoch: string;
  direction: "download" | "upload";
  /** Absolute. */
  path: string;
  /** For uploads: the most bytes, and whether the path must stay below /workspace and /tmp. */
  max?: number | undefined;
  confined?: boolean | undefined;
  /** Milliseconds since the epoch. */
  expires: number;
  /** Whether an upload by this link is complete. */
  isUsedUp?: boolean;
}

/** The most bytes of an uploaded file. */
export const MAX_UPLOAD_BYTES = 5 * 1024 ** 3;

/** A link to a run's output, which outlives the sandbox. */
export interface RunLink {
  actor: ActorName;
  run: string;
  name: string;
  expires: number;
}

export type KeptLink = Omit<FileLink, keyof LinkName> | Omit<RunLink, "actor">;

/** The path of links to decisions about network access. The token of the link follows. */
export const DECISION_PATH = "/panel/decision";

/** The path of the page on which people sign in to git hosts. The name of a host may follow. */
export const GIT_PATH = "/panel/git";

/** The length of a link's id, and of its signature. 96 bits are enough for the signature, because each guess needs a request. */
export const LINK_ID_CHARS = 12;
const SIGNATURE_CHARS = 16;

const TOKEN = new RegExp(`^(${ACTOR_NAME_SOURCE})\\.([\\w-]{${LINK_ID_CHARS}})([\\w-]{${SIGNATURE_CHARS}})$`);

export async function writeToken({ actor, id }: LinkName, [key]: readonly CryptoKey[]) {
  if (!key) return undefined;
  const signature = base64url(await sign(key, `link ${actor}.${id}`));
  return `${actor}.${id}${signature.slice(0, SIGNATURE_CHARS)}`;
}

export async function readToken(token: string, keys: readonly CryptoKey[]): Promise<LinkName | undefined> {
  const [, actor, id, end] = TOKEN.exec(token) ?? [];
  if (actor === undefined || id === undefined || end === undefined) return undefined;
  return (await isSigned(`link ${actor}.${id}`, end, keys)) ? { actor: actor as ActorName, id } : undefined;
}

/** Whether this server made the signature, which is cut to a prefix. */
async function isSigned(text: string, signature: string, keys: readonly CryptoKey[]): Promise<boolean> {
  const signatures = await Promise.all(keys.map((key) => sign(key, text)));
  // Compared as text, because decoding ignores some bits of the last character.
  return signatures.some((own) => areEqual(signature, base64url(own).slice(0, signature.length)));
}

export function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
