/**
 * The tokens of links to files. A token is all that its link is good for, as JSON in base64url, and the signature of that
 * text: the server looks nothing up, and asks no sandbox for a token that somebody made up.
 */
import { z } from "zod";
import type { Config } from "./config.ts";
import { linkKey, linkKeys, sign } from "./link-key.ts";
import { equal } from "./preview-address.ts";

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

const TOKEN = /^([\w-]{1,20000})\.([\w-]{43})$/;

/** The token of a link; undefined where the server has no secret to sign it with. */
export async function writeToken(link: FileLink | RunLink, config: Config): Promise<string | undefined> {
  const key = linkKey(config);
  if (!key) return undefined;
  const text = base64url(new TextEncoder().encode(JSON.stringify(link)));
  return `${text}.${base64url(await sign(await key, `file ${text}`))}`;
}

/** The link of a token; undefined where the token is none of this server's. It may have expired. */
export async function readToken(token: string, config: Config): Promise<FileLink | RunLink | undefined> {
  const [, text, signature] = TOKEN.exec(token) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  const signatures = (await linkKeys(config)).map((key) => sign(key, `file ${text}`));
  // The texts are compared, because the last character of a signature has bits that decoding ignores.
  const isOurs = (await Promise.all(signatures)).some((own) => equal(signature, base64url(own)));
  if (!isOurs) return undefined;
  const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
  return anyLinkSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
