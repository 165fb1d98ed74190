/**
 * The host names of previews: `<port>-<sandbox id>-<token>.<domain>`. The domain is `PREVIEW_HOST`. For a server with a loopback
 * name it can be `localhost`, because browsers resolve every name below `localhost` to their own machine.
 *
 * A token consists of random characters and a signature, so that a forged label is refused without a call to its sandbox. A call
 * would create an actor. A DNS label has at most 63 characters. That leaves 25 characters for the token (129 bits), or 19 (98
 * bits) after the longest sandbox name.
 */
import type { Config } from "./config.ts";
import { ACTOR_NAME_SOURCE, type ActorName } from "./names.ts";
import { sign } from "./sign.ts";

export interface PreviewAddress {
  port: number;
  /** The name of the sandbox's Durable Object. */
  actor: string;
  token: string;
}

/** Passes the token from the Worker to the sandbox's actor. */
export const PREVIEW_TOKEN = "x-sandbox-mcp-preview-token";
/** A header of the actor's own responses: why the program in the sandbox did not respond. */
export const PREVIEW_STATE = "x-sandbox-mcp-preview-state";

/**
 * `ended`: the preview does not exist or has ended. `stopped`: its container is gone. `waiting`: no program has responded on
 * its port yet. `silent`: a program responded earlier, but does not any more. `tls`: the program speaks TLS. `foreign`: the
 * program does not speak HTTP.
 */
export type PreviewState = "ended" | "stopped" | "waiting" | "silent" | "tls" | "foreign";

const LABEL_CHARACTERS = 63;
const TOKEN_CHARACTERS = 25;

const LABEL = new RegExp(`^([1-9]\\d{3,4})-(${ACTOR_NAME_SOURCE})-([a-z0-9]{19,${TOKEN_CHARACTERS}})$`);

/**
 * Returns the label before the domain if the host name is that of a preview, else undefined. Every name below `PREVIEW_HOST` is a
 * preview. Below `localhost`, only names that end with such a label are previews.
 */
export function previewLabel(url: URL, { previewHost }: Pick<Config, "previewHost">) {
  // A name with a final dot is the same host.
  const hostname = url.hostname.replace(/\.$/, "");
  const hostSuffix = previewHost && `.${new URL(`https://${previewHost}`).hostname}`;
  if (hostSuffix && hostname.endsWith(hostSuffix)) return hostname.slice(0, -hostSuffix.length);
  if (!hostname.endsWith(".localhost")) return undefined;
  const label = hostname.slice(0, -".localhost".length);
  // Names below a preview's name share its cookies, so they count as that preview.
  return LABEL.test(label.slice(label.lastIndexOf(".") + 1)) ? label : undefined;
}

export function writeLabel({ port, actor, token }: PreviewAddress): string {
  return `${port}-${actor}-${token}`;
}

export async function readLabel(
  label: string,
  keys: readonly CryptoKey[],
): Promise<(PreviewAddress & { actor: ActorName }) | undefined> {
  const [, digits, actor, token] = LABEL.exec(label) ?? [];
  if (digits === undefined || actor === undefined || token === undefined) return undefined;
  const port = Number(digits);
  const random = token.slice(0, Math.ceil(token.length / 2));
  for (const key of keys)
    if (areEqual(token, await signToken(key, port, actor, random, token.length)))
      return { port, actor: actor as ActorName, token };
  return undefined;
}

export async function makeToken(port: number, actor: string, [key]: readonly CryptoKey[]) {
  if (!key) return undefined;
  const length = Math.min(TOKEN_CHARACTERS, LABEL_CHARACTERS - writeLabel({ port, actor, token: "" }).length);
  const random = base36(crypto.getRandomValues(new Uint8Array(32)), Math.ceil(length / 2));
  return signToken(key, port, actor, random, length);
}

/** Compares in constant time. */
export function areEqual(first: string, second: string): boolean {
  const [a, b] = [first, second].map((text) => new TextEncoder().encode(text));
  return a !== undefined && b?.length === a.length && crypto.subtle.timingSafeEqual(a, b);
}

async function signToken(key: CryptoKey, port: number, actor: string, random: string, length: number) {
  const signature = await sign(key, `preview ${writeLabel({ port, actor, token: random })}`);
  return random + base36(signature, length - random.length);
}

function base36(bytes: Uint8Array, digits: number): string {
  return BigInt(`0x${bytes.toHex()}`).toString(36).slice(-digits);
}
