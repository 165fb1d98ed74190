/**
 * The host names of previews: `<port>-<sandbox id>-<token>.<domain>`. The domain is `PREVIEW_HOST`, and `localhost` for a
 * server that is called by a loopback name: browsers take every name below that for their own machine.
 *
 * A token is random characters and their signature, so that a label which somebody made up is refused without asking its
 * sandbox: asking makes an actor. A label of DNS has 63 characters. They leave 25 for the token, 129 bits, and less
 * behind a long name of a sandbox: 19, or 98 bits, behind the longest.
 */
import type { Config } from "./config.ts";
import { ACTOR_NAME_SOURCE } from "./names.ts";
import { sign } from "./sign.ts";

export interface PreviewAddress {
  port: number;
  /** The name of the sandbox's Durable Object. */
  actor: string;
  token: string;
}

/** Carries the token from the Worker to the actor of the sandbox. */
export const PREVIEW_TOKEN = "x-sandbox-mcp-preview-token";
/** On an answer of the actor's own: why it is not that of a server in the sandbox. */
export const PREVIEW_STATE = "x-sandbox-mcp-preview-state";

/**
 * `ended`: there is no such preview, or no more. `stopped`: its container is gone. `waiting`: nothing has answered on its
 * port so far; `silent`: something has, and does not any more. `tls`, `foreign`: what listens speaks TLS, or no HTTP.
 */
export type PreviewState = "ended" | "stopped" | "waiting" | "silent" | "tls" | "foreign";

const LABEL_CHARACTERS = 63;
const TOKEN_CHARACTERS = 25;

const LABEL = new RegExp(`^([1-9]\\d{3,4})-(${ACTOR_NAME_SOURCE})-([a-z0-9]{19,${TOKEN_CHARACTERS}})$`);

/**
 * What stands before the domain in a host name that can only be a preview's; undefined for any other host. Every name
 * below `PREVIEW_HOST` is one, and below `localhost` those that are made like ours.
 */
export function previewLabel({ hostname }: URL, { previewHost }: Pick<Config, "previewHost">) {
  const own = previewHost && `.${new URL(`https://${previewHost}`).hostname}`;
  if (own && hostname.endsWith(own)) return hostname.slice(0, -own.length);
  if (!hostname.endsWith(".localhost")) return undefined;
  const label = hostname.slice(0, -".localhost".length);
  // A name below a preview's shares its cookies.
  return LABEL.test(label.slice(label.lastIndexOf(".") + 1)) ? label : undefined;
}

export function writeLabel({ port, actor, token }: PreviewAddress): string {
  return `${port}-${actor}-${token}`;
}

/** The address in a label; undefined where none of the keys has signed it. */
export async function readLabel(
  label: string,
  keys: readonly CryptoKey[],
): Promise<PreviewAddress | undefined> {
  const [, digits, actor, token] = LABEL.exec(label) ?? [];
  if (digits === undefined || actor === undefined || token === undefined) return undefined;
  const port = Number(digits);
  const random = token.slice(0, Math.ceil(token.length / 2));
  for (const key of keys)
    if (equal(token, await signed(key, port, actor, random, token.length))) return { port, actor, token };
  return undefined;
}

/** A new token for a port of a sandbox; undefined without a key to sign it with. */
export async function makeToken(
  port: number,
  actor: string,
  [key]: readonly CryptoKey[],
): Promise<string | undefined> {
  if (!key) return undefined;
  const length = Math.min(TOKEN_CHARACTERS, LABEL_CHARACTERS - writeLabel({ port, actor, token: "" }).length);
  const random = base36(crypto.getRandomValues(new Uint8Array(32)), Math.ceil(length / 2));
  return signed(key, port, actor, random, length);
}

/** Whether two texts are the same, in time that does not depend on how much of them is. */
export function equal(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) => new TextEncoder().encode(text));
  return a !== undefined && b?.length === a.length && crypto.subtle.timingSafeEqual(a, b);
}

async function signed(key: CryptoKey, port: number, actor: string, random: string, length: number) {
  const signature = await sign(key, `preview ${writeLabel({ port, actor, token: random })}`);
  return random + base36(signature, length - random.length);
}

/** The last `digits` digits, in base 36, of the number that the bytes are. */
function base36(bytes: Uint8Array, digits: number): string {
  const number = BigInt(`0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`);
  return number.toString(36).slice(-digits);
}
