/** A server's entry in a client's configuration file, with everything else in the file as it was, comments included. */
import { isDeepStrictEqual } from "node:util";
import { applyEdits, modify, type ParseError, parse } from "jsonc-parser";
import { parse as parseTOML, stringify as writeTOML } from "smol-toml";
import type { ClientKind } from "./clients.ts";
import { UserError } from "./errors.ts";

/** @throws {UserError} when the file is not what the client could read */
export function readContent(client: ClientKind, text: string): unknown {
  if (text.trim() === "") return {};
  if (client.format === "toml") {
    try {
      return parseTOML(text);
    } catch (error) {
      throw new UserError(`it is no TOML: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  const errors: ParseError[] = [];
  const content: unknown = parse(text, errors, { allowTrailingComma: true });
  if (errors.length > 0 || typeof content !== "object" || content === null || Array.isArray(content))
    throw new UserError(
      `it is no JSON object (${errors[0] ? `at character ${errors[0].offset}` : "another value"})`,
    );
  return content;
}

/** The entry that the file has under this name; undefined for none. */
export function entryIn(client: ClientKind, text: string, name: string): unknown {
  let at: unknown = readContent(client, text);
  for (const key of [...client.path(at), name])
    at = typeof at === "object" && at !== null ? (at as Record<string, unknown>)[key] : undefined;
  return at;
}

/**
 * The file with this entry, in place of one of the same name.
 * @throws {UserError} when the file cannot be changed without changing more
 */
export function withEntry(
  client: ClientKind,
  text: string,
  name: string,
  entry: Record<string, unknown>,
): string {
  const before = readContent(client, text);
  const path = [...client.path(before), name];
  const after = client.format === "toml" ? tomlWith(text, path, entry) : jsonWith(text, path, entry);
  // Nothing but the entry may have changed.
  const expected = structuredClone(before) as Record<string, unknown>;
  let at = expected;
  for (const key of path.slice(0, -1)) at = (at[key] ??= {}) as Record<string, unknown>;
  at[name] = entry;
  if (!isDeepStrictEqual(contentOf(client, after), plain(expected)))
    throw new UserError("it is written in a way that this command cannot change safely");
  return after;
}

function jsonWith(text: string, path: readonly string[], entry: object): string {
  const indented = /^(?<indent>[ \t]+)\S/m.exec(text)?.groups?.indent ?? "  ";
  const formattingOptions = {
    insertSpaces: !indented.startsWith("\t"),
    tabSize: indented.startsWith("\t") ? 1 : indented.length,
    eol: text.includes("\r\n") ? "\r\n" : "\n",
  };
  const base = text.trim() === "" ? "{}\n" : text;
  return applyEdits(base, modify(base, [...path], entry, { formattingOptions }));
}

/**
 * TOML's tables stand one after the other: those of the entry are cut out, and new ones put at the end. Comments before the next table
 * are about that one, and stay.
 */
function tomlWith(text: string, path: readonly string[], entry: Record<string, unknown>): string {
  let isOwn = false;
  const kept: string[] = [];
  let behindOwn: string[] = [];
  for (const line of text.split("\n")) {
    const header = /^\s*\[(?!\[)(.+?)\]\s*(#.*)?$/.exec(line)?.[1] ?? /^\s*\[\[(.+?)\]\]/.exec(line)?.[1];
    if (header !== undefined) {
      const keys = keysOf(header);
      isOwn = path.every((key, index) => keys[index] === key);
    }
    if (!isOwn) kept.push(...behindOwn, line);
    behindOwn = isOwn && /^\s*(#.*)?$/.test(line) ? [...behindOwn, line] : [];
  }
  kept.push(...behindOwn);
  const nested: Record<string, unknown> = path.reduceRight<Record<string, unknown>>(
    (inner, key) => ({ [key]: inner }),
    entry,
  );
  const own = writeTOML(nested).trim();
  const rest = kept.join("\n").trimEnd();
  return `${rest === "" ? "" : `${rest}\n\n`}${own}\n`;
}

/** The keys of a table's header, such as those of `a."b c"`. */
function keysOf(header: string): string[] {
  try {
    const keys: string[] = [];
    let at: unknown = parseTOML(`[${header}]`);
    while (typeof at === "object" && at !== null && Object.keys(at).length > 0) {
      const [key = ""] = Object.keys(at);
      keys.push(key);
      at = (at as Record<string, unknown>)[key];
    }
    return keys;
  } catch {
    return [];
  }
}

function contentOf(client: ClientKind, text: string): unknown {
  try {
    return plain(readContent(client, text));
  } catch {
    return undefined;
  }
}

/** Values without the classes and prototypes that the parsers give them. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
