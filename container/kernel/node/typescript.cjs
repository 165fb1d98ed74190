"use strict";
/** Compiles the TypeScript of cells to JavaScript, either with the same lines or with a map to the original lines. */
const modules = require("node:module");
const { Buffer, JSON, Map, Number, Set, String, SyntaxError } = globalThis;
const MAP = "//# sourceMappingURL=data:application/json;base64,";
const maps = new Map();

/** @throws SyntaxError with line and source in its stack */
function toJavaScript(code, name) {
  try {
    return modules.stripTypeScriptTypes(code);
  } catch (error) {
    if (error.code !== "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") throw asSyntaxError(error, name, code);
  }
  let made;
  try {
    // Enums, namespaces and parameter properties are code and not only types, so they must be compiled.
    made = modules.stripTypeScriptTypes(code, { mode: "transform", sourceMap: true });
  } catch (error) {
    throw asSyntaxError(error, name, code);
  }
  const end = made.lastIndexOf(MAP);
  if (end < 0) return newEnums(made);
  maps.set(name, new modules.SourceMap(JSON.parse(Buffer.from(made.slice(end + MAP.length), "base64"))));
  return newEnums(made.slice(0, end));
}

/** Makes a cell define its enums anew. The transformer's code would extend a variable of the same name from an earlier cell. */
function newEnums(code) {
  const names = new Set(
    [...code.matchAll(/^(?:export )?var ([\w$]+) = \/\*#__PURE__\*\/ function\(\1\) \{$/gm)].map(
      (found) => found[1],
    ),
  );
  let text = code;
  // Changes only an enum's first declaration in a cell, because later declarations extend the first one.
  for (const name of names) text = text.replace(`\n}(${name} || {});`, "\n}({});");
  return text;
}

/** Returns Node's error as a SyntaxError. Node puts the place and the source at the beginning of its error's stack. */
function asSyntaxError(error, name, code) {
  const found = new SyntaxError(error.message.split("\n", 1)[0]);
  const [, line, snippet] = /^[^\n]*:(\d+)\n([^]*?)\n+SyntaxError/.exec(String(error.stack)) ?? [];
  explain(found, code.split("\n")[Number(line) - 1] ?? "");
  const head = line === undefined ? name : `${name}:${line}\n${snippet.replace(/^\n+/, "")}`;
  found.stack = `${head}\nSyntaxError: ${found.message}`;
  return found;
}

/** Maps a place in the JavaScript to the cell; lines and columns count from 1. */
function placeInCell(name, line, column) {
  const entry = maps.get(name)?.findEntry(line - 1, column - 1);
  if (entry?.originalLine === undefined) return [line, column];
  return [entry.originalLine + 1, entry.originalColumn + 1];
}

function mapPlaces(text) {
  return text.replace(/\b(cell-\d+\.ts):(\d+):(\d+)/g, (_all, name, line, column) =>
    [name, ...placeInCell(name, Number(line), Number(column))].join(":"),
  );
}

/** Adds to the message what to write instead of unsupported syntax. @param column counts from 0; undefined if unknown */
function explain(error, line, column) {
  const before = line.slice(0, column ?? 0);
  if (line[column] === "@") {
    error.message += ". Decorators do not work here: call the decorator as a function.";
  } else if (/\baccessor\s+$/.test(before)) {
    error.message += ". `accessor` does not work here: write get and set.";
  } else if (/<\/[\w.]*\s*>|<[\w.]+(?:\s[^<>]*)?\/>/.test(line)) {
    error.message += ". JSX does not work here: write a file and compile it with run_command (npx esbuild).";
  }
}

module.exports = { explain, forget: (name) => maps.delete(name), mapPlaces, placeInCell, toJavaScript };
