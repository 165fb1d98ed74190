/** Rotates a token: makes a new one, and keeps the previous one valid for a while. */
import { createHash, randomBytes } from "node:crypto";
import { parseJSON } from "../src/shared/bounded.ts";
import { unknownToken, wrongTokenList } from "./texts.ts";

export const newToken = () => randomBytes(32).toString("base64url");

export const sha256 = (token: string) => createHash("sha256").update(token).digest("hex");

interface Rotation {
  token: string;
  /** The server's new variables. Angle brackets mark values that only the operator can fill in. */
  variables: Record<string, string>;
}

/** Rotates the owner's token. @param before the current token, if known */
export function rotateOwner(before: string | undefined, until: string): Rotation {
  const token = newToken();
  const variables = {
    SERVER_AUTH_TOKEN_PREVIOUS: before ?? "<the current token>",
    SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: until,
    SERVER_AUTH_TOKEN: token,
  };
  return { token, variables };
}

/** @param list the value of AUTH_TOKENS, if known @throws {CommandError} if it has no token of this name */
export function rotateNamed(name: string, list: string | undefined, until: string): Rotation {
  const token = newToken();
  const unknown = { name, sha256: "<the current sha256>", scopes: ["<as before>"] };
  const entries: Entry[] = list === undefined ? [unknown] : entriesOf(list);
  const entry = entries.find((each) => each.name === name);
  if (entry === undefined) throw unknownToken(name);
  const { sha256: before, ...rest } = entry;
  Object.assign(entry, { ...rest, sha256: sha256(token), previous_sha256: before, previous_until: until });
  return { token, variables: { AUTH_TOKENS: JSON.stringify(entries) } };
}

/**
 * Returns in words until when the previous token is valid; undefined if none is valid. While the previous token is valid,
 * `token rotate --write` needs `--yes`. A second rotation ends the previous token at once, even if clients still use it.
 * @param name the name of a token in AUTH_TOKENS; undefined for the owner's
 */
export function previousTokenEnd(
  variables: Readonly<Record<string, string>>,
  name: string | undefined,
): string | undefined {
  const entry =
    name === undefined
      ? undefined
      : entriesOf(variables.AUTH_TOKENS ?? "[]").find((each) => each.name === name);
  const [before, until] =
    name === undefined
      ? [variables.SERVER_AUTH_TOKEN_PREVIOUS, variables.SERVER_AUTH_TOKEN_PREVIOUS_UNTIL]
      : [entry?.previous_sha256, entry?.previous_until];
  if (!before) return undefined;
  if (!until) return "without an end date";
  return Date.parse(String(until)) > Date.now() ? `until ${String(until)}` : undefined;
}

type Entry = Record<string, unknown>;

function entriesOf(list: string): Entry[] {
  const entries = parseJSON(list);
  // The parser's message is left out, because it quotes the tokens' list.
  if (!Array.isArray(entries)) throw wrongTokenList();
  return entries;
}
