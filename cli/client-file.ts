/** Changes a server's entry in a client's configuration file, and keeps everything else, including comments. */
import { attempt } from "../container/sandboxd/file-error.ts";
import { isDeepStrictEqual } from "node:util";
import { applyEdits, modify, type ParseError, parse } from "jsonc-parser";
import { parse as parseTOML, stringify as writeTOML } from "smol-toml";
import { parseDocument } from "yaml";
import type { ClientKind } from "./clients.ts";
import { isRecord } from "../src/shared/is-record.ts";
import { UserError } from "./exit.ts";
import { CLIENT_FILE } from "./texts.ts";

/** The byte order mark, which some Windows editors write at the start of a file. */
const BOM = "\uFEFF";

/** @throws {UserError} if the file's format is not valid for the client */
function readContent(client: ClientKind, file: string): unknown {
  const text = withoutBOM(file);
  if (text.trim() === "") return {};
  if (client.format === "yaml") {
    const document = parseDocument(text);
    const content: unknown = document.toJS();
    if (document.errors.length === 0 && isRecord(content)) return content;
    throw new UserError(CLIENT_FILE.notYAML(document.errors[0]?.message.split("\n")[0]));
  }
  if (client.format === "toml") {
    try {
      return parseTOML(text);
    } catch (error) {
      throw new UserError(CLIENT_FILE.notTOML((error as Error).message.split("\n")[0]));
    }
  }
  const errors: ParseError[] = [];
  const content: unknown = parse(text, errors, { allowTrailingComma: true });
  if (errors.length > 0 || !isRecord(content)) throw new UserError(CLIENT_FILE.notJSON(errors[0]?.offset));
  return content;
}

const withoutBOM = (file: string) => (file.startsWith(BOM) ? file.slice(BOM.length) : file);

export function entryIn(client: ClientKind, text: string, name: string): unknown {
  let at: unknown = readContent(client, text);
  for (const key of [...client.path(at), name]) at = isRecord(at) ? at[key] : undefined;
  return at;
}

/** The file's text with this entry, which replaces an entry of the same name. @throws {UserError} if anything else would change */
export function setEntry(
  client: ClientKind,
  file: string,
  name: string,
  entry: Record<string, unknown>,
): string {
  const before = readContent(client, file);
  const table = client.path(before);
  const text = createTables(client, withoutBOM(file), before, table);
  const path = [...table, name];
  const after = WRITERS[client.format](text, path, entry);
  // Only the entry may have changed. Otherwise nothing is written.
  const expected = structuredClone(before) as Record<string, unknown>;
  let at = expected;
  for (const key of table) at = (isEmptyValue(at[key]) ? (at[key] = {}) : at[key]) as Record<string, unknown>;
  at[name] = entry;
  if (!isDeepStrictEqual(contentOf(client, after), toPlainValue(expected)))
    throw new UserError(CLIENT_FILE.unchangeable);
  return file.startsWith(BOM) ? `${BOM}${after}` : after;
}

/** Whether this is an empty value that some programs write for an empty table. */
function isEmptyValue(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}

/**
 * Returns the text with a table in place of `null` or `[]` on the path to the servers.
 * @throws {UserError} if another kind of value is on that path
 */
function createTables(client: ClientKind, text: string, content: unknown, table: readonly string[]): string {
  let at = content as Record<string, unknown>;
  for (const [index, key] of table.entries()) {
    const value = at[key];
    if (isEmptyValue(value)) {
      const path = table.slice(0, index + 1);
      return value === undefined || client.format !== "json"
        ? text
        : applyEdits(text, modify(text, path, {}, {}));
    }
    if (!isRecord(value)) throw new UserError(CLIENT_FILE.noTable(key));
    at = value;
  }
  return text;
}

const WRITERS = { json: setJSONEntry, toml: setTOMLEntry, yaml: setYAMLEntry };

function setYAMLEntry(text: string, path: readonly string[], entry: object): string {
  const document = parseDocument(text);
  for (let length = 1; length < path.length; length++)
    if (isEmptyValue(document.getIn(path.slice(0, length))))
      document.setIn(path.slice(0, length), document.createNode({}));
  document.setIn(path, document.createNode(entry));
  return document.toString();
}

function setJSONEntry(text: string, path: readonly string[], entry: object): string {
  const indented = /^(?<indent>[ \t]+)\S/m.exec(text)?.groups?.indent ?? "  ";
  const formattingOptions = {
    insertSpaces: !indented.startsWith("\t"),
    tabSize: indented.startsWith("\t") ? 1 : indented.length,
    eol: text.includes("\r\n") ? "\r\n" : "\n",
  };
  const base = text.trim() === "" ? "{}\n" : text;
  return applyEdits(base, modify(base, [...path], entry, { formattingOptions }));
}

/** Removes the entry's tables, and appends new ones. Comments before the next table belong to that table, and stay. */
function setTOMLEntry(text: string, path: readonly string[], entry: Record<string, unknown>): string {
  let isOwn = false;
  const keptLines: string[] = [];
  let trailingComments: string[] = [];
  for (const line of text.split("\n")) {
    const header = /^\s*\[(?!\[)(.+?)\]\s*(#.*)?$/.exec(line)?.[1] ?? /^\s*\[\[(.+?)\]\]/.exec(line)?.[1];
    if (header !== undefined) {
      const keys = keysOf(header);
      isOwn = path.every((key, index) => keys[index] === key);
    }
    if (!isOwn) keptLines.push(...trailingComments, line);
    trailingComments = isOwn && /^\s*(#.*)?$/.test(line) ? [...trailingComments, line] : [];
  }
  keptLines.push(...trailingComments);
  const nested: Record<string, unknown> = path.reduceRight<Record<string, unknown>>(
    (inner, key) => ({ [key]: inner }),
    entry,
  );
  const ownTable = writeTOML(nested).trim();
  const otherTables = keptLines.join("\n").trimEnd();
  return `${otherTables === "" ? "" : `${otherTables}\n\n`}${ownTable}\n`;
}

/** The keys of a table's header: `a` and `b c` for the header `a."b c"`. */
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
  return attempt(() => toPlainValue(readContent(client, text)), undefined);
}

/** Plain values, without the parsers' classes and prototypes. */
function toPlainValue(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
