/** The keys that sign the addresses that the server hands out, so that it knows its own without looking anything up. */
import type { Config } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { ownerTokens } from "../shared/owner-tokens.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { sign } from "../shared/sign.ts";
import type { Attempts, MadeKey } from "./attempts.ts";

/** Name of the one object that keeps the key. */
const LINK_KEY_NAME = "links";

/** The longest that a link or a preview lives: `expires_seconds` of the tools. */
const MAX_LIFE_MS = DAY_MS;

interface Known {
  /** Derived keys by their secrets. */
  derived: Map<string, Promise<CryptoKey>>;
  made?: Promise<MadeKey | undefined> | undefined;
}

const known = new WeakMap<Config, Known>();

/**
 * The keys whose signatures are accepted; the first signs new addresses. Empty where no variable holds a secret to derive
 * one from and the server has nowhere to keep one of its own.
 */
export async function linkKeys({
  config,
  env,
}: Pick<RequestContext, "config" | "env">): Promise<CryptoKey[]> {
  const { derived } = knownOf(config);
  const secrets = await secretsOf({ config, env });
  return Promise.all(
    secrets.map((secret) => {
      const key = derived.get(secret) ?? derive(secret);
      derived.set(secret, key);
      return key;
    }),
  );
}

/** `LINK_KEY`, else the owner's tokens (two during a rotation), else a key that the server made for itself. */
async function secretsOf({
  config,
  env,
}: Pick<RequestContext, "config" | "env">): Promise<readonly string[]> {
  if (config.linkKey !== undefined) return [config.linkKey];
  const tokens = ownerTokens(config);
  if (tokens.length > 0) return tokens;
  const made = await madeKey({ config, env });
  if (!made) return [];
  // Earlier versions signed with GitHub's secret. What they handed out is good until it expires.
  const { GITHUB_CLIENT_SECRET: earlier } = config.values;
  const isEarlierGood = earlier !== undefined && Date.now() < made.madeAt + MAX_LIFE_MS;
  return isEarlierGood ? [made.key, earlier] : [made.key];
}

function madeKey({ config, env }: Pick<RequestContext, "config" | "env">): Promise<MadeKey | undefined> {
  const own = knownOf(config);
  const namespace = env.Attempts as DurableObjectNamespace<Attempts> | undefined;
  own.made ??= Promise.resolve(namespace?.getByName(LINK_KEY_NAME).linkKey());
  // A failure is not remembered.
  own.made.catch(() => (own.made = undefined));
  return own.made;
}

function knownOf(config: Config): Known {
  const own = known.get(config) ?? { derived: new Map<string, Promise<CryptoKey>>() };
  known.set(config, own);
  return own;
}

async function derive(secret: string): Promise<CryptoKey> {
  return imported(await sign(await imported(new TextEncoder().encode(secret)), "sandbox-mcp links"));
}

function imported(bytes: Uint8Array): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}
