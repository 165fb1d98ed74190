/** The tokens of file links: the actor and the id of the stored link, signed. A forged token reaches no sandbox. */
import { ACTOR_NAME_SOURCE } from "./names.ts";
import { equal } from "./preview-address.ts";
import { sign } from "./sign.ts";

/** A link to a sandbox's file. */
export interface FileLink {
  /** The name of the sandbox's Durable Object, which identifies the principal. */
  actor: string;
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
  id: string;
}

/** A link to a run's output, which outlives the sandbox. */
export interface RunLink {
  actor: string;
  run: string;
  name: string;
  expires: number;
}

export type KeptLink = Omit<FileLink, "actor" | "id"> | Omit<RunLink, "actor">;

export interface LinkName {
  actor: string;
  id: string;
}

/** The path of links to decisions about network access. The token follows. */
export const DECISION_PATH = "/panel/decision";

/** The page on which people sign in to git hosts. The host that a call needs may follow. */
export const GIT_PATH = "/panel/git";

/** The length of a link's id, and of its signature with 96 bits: enough because each guess is a request. */
export const LINK_ID_CHARS = 12;
const SIGNATURE_CHARS = 16;

const TOKEN = new RegExp(`^(${ACTOR_NAME_SOURCE})\\.([\\w-]{${LINK_ID_CHARS}})([\\w-]{${SIGNATURE_CHARS}})$`);

export async function writeToken({ actor, id }: LinkName, [key]: readonly CryptoKey[]) {
  if (!key) return undefined;
  const signature = base64url(await sign(key, `link ${actor}.${id}`));
  return `${actor}.${id}${signature.slice(0, SIGNATURE_CHARS)}`;
}

export async function readToken(token: string, keys: readonly CryptoKey[]): Promise<LinkName | undefined> {
  const [, actor, id, signature] = TOKEN.exec(token) ?? [];
  if (actor === undefined || id === undefined || signature === undefined) return undefined;
  const signatures = await Promise.all(keys.map((key) => sign(key, `link ${actor}.${id}`)));
  // Compared as text, because decoding ignores some bits of the last character.
  const isSigned = signatures.some((own) => equal(signature, base64url(own).slice(0, SIGNATURE_CHARS)));
  return isSigned ? { actor, id } : undefined;
}

function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
