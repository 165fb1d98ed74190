"use strict";
/**
 * Evaluates cells in V8's REPL mode, which allows top-level await, returns the last expression's value, and lets later cells use
 * and repeat declarations. Cells run in the process's own realm, so that `fetch`, `URL` and `instanceof` are as in a file.
 *
 * V8's REPL mode has no `import`, so imports are changed to calls. The text is changed only where V8's own parser finds an
 * import, and lines keep their numbers.
 */
const inspector = require("node:inspector");
const vm = require("node:vm");
const { restoreBuiltins, withBuiltins } = require("./builtins.cjs");
const { locateInModule } = require("./modules.cjs");
const { explain, forget, placeInCell, toJavaScript } = require("./typescript.cjs");
const { Map, Math, Number, Object, Promise, String, SyntaxError } = globalThis;
const DYNAMIC = /(?<![.\w$#])import(?=\s*\()/g;
const STATIC =
  /import\s*(?:(?<name>[\w$]+)?\s*,?\s*(?:\*\s*as\s+(?<all>[\w$]+)|\{(?<named>[^}]*)\})?\s*from\s*)?(?<from>"[^"\n]*"|'[^'\n]*')(?:\s*with\s*(?<attributes>\{[^}]*\}))?/y;
const KEPT_SOURCES = 500;

class Evaluator {
  constructor() {
    this.session = new inspector.Session();
    this.session.connect();
    this.sources = new Map();
    this.count = 0;
    this.import = undefined;
    // The inspector returns only descriptions of values. `readValue` makes it call this function with the value itself.
    const take = (value) => (this.taken = value);
    Object.defineProperty(globalThis, "__sandbox_mcp_take__", { value: take, enumerable: false });
  }

  /** @throws SyntaxError of TypeScript */
  prepare(code, language) {
    const name = `cell-${++this.count}.${language === "typescript" ? "ts" : "js"}`;
    this.sources.set(name, code);
    this.sources.delete(`cell-${this.count - KEPT_SOURCES}.js`);
    this.sources.delete(`cell-${this.count - KEPT_SOURCES}.ts`);
    forget(`cell-${this.count - KEPT_SOURCES}.ts`);
    const plain = language === "typescript" ? toJavaScript(code, name) : code;
    return { expression: `${prepare(plain)}\n//# sourceURL=${name}`, name };
  }

  /** Loads TypeScript's transformer, which takes about 50 ms, before the first cell. */
  warmUp() {
    try {
      toJavaScript("let a: number", "warm");
    } catch {
      // The first cell will report the error.
    }
  }

  async evaluate({ expression, name }) {
    const evaluated = new Promise((resolve, reject) => {
      const done = (error, reply) => withBuiltins(() => settle(error, reply));
      const settle = (error, reply) => {
        if (error) return reject(error);
        const thrown = reply.exceptionDetails;
        if (!thrown) return resolve(this.readValue(reply.result));
        const value = this.readValue(thrown.exception);
        if (value instanceof SyntaxError) {
          // An error without a stack comes from compiling the cell, not from code that the cell ran.
          const isCell = thrown.scriptId !== undefined && !thrown.stackTrace;
          if (!isCell) locateInModule(value);
          else locate(value, name, this.sources.get(name), thrown.lineNumber, thrown.columnNumber);
        }
        reject(value);
      };
      const putBack = restoreBuiltins();
      const parameters = {
        expression,
        replMode: true,
        awaitPromise: true,
        // Read last, when `post` has looked for the method toJSON of its message. Then the cell begins.
        get objectGroup() {
          putBack();
          return "cell";
        },
      };
      this.session.post("Runtime.evaluate", parameters, done);
    });
    try {
      return await evaluated;
    } finally {
      withBuiltins(() => this.session.post("Runtime.releaseObjectGroup", { objectGroup: "cell" }));
    }
  }

  readValue(remote) {
    if (remote.objectId === undefined) {
      if (remote.unserializableValue === undefined) return remote.value;
      return vm.runInThisContext(remote.unserializableValue);
    }
    this.session.post("Runtime.callFunctionOn", {
      functionDeclaration: "function (value) { __sandbox_mcp_take__(value); }",
      objectId: remote.objectId,
      arguments: [{ objectId: remote.objectId }],
    });
    const value = this.taken;
    this.taken = undefined;
    return value;
  }
}

function locate(error, name, source, line, column) {
  const [row, place] = placeInCell(name, line + 1, column + 1);
  const text = (source ?? "").split("\n")[row - 1] ?? "";
  explain(error, text, place - 1);
  const mark = " ".repeat(Math.min(place - 1, text.length)) + "^";
  error.stack = `${name}:${row}\n${text}\n${mark}\n${error.name}: ${error.message}`;
}

/** The syntax error of this text as the body of an async function, or undefined. */
function problemOf(code) {
  try {
    vm.compileFunction(`(async () => {${code}\n})`, [], { filename: "prepare" });
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Prepares a cell for REPL mode: puts parentheses around an object literal, and turns imports into calls. */
function prepare(code) {
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code) && !problemOf(`return (${code}\n)`)) return `(${code}\n)`;
  if (!/\b(?:import|export)\b/.test(code)) return code;
  return dynamicImports(staticImports(code));
}

/** Replaces each `import(` in code with our function. It leaves `import(` in strings, comments and patterns unchanged. */
function dynamicImports(code) {
  let text = code;
  for (const found of [...code.matchAll(DYNAMIC)].toReversed()) {
    const before = text.slice(0, found.index);
    const after = text.slice(found.index + "import".length);
    // An @ is a syntax error in code, and harmless in a string, comment or pattern.
    if (problemOf(`${before}@${after}`)) text = `${before}__sandbox_mcp_import__${after}`;
  }
  return text;
}

/**
 * Turns `import a, {b as c} from "m"` into `const {default: a, b: c} = await import("m")`, `import.meta` into an object, and
 * drops `export`.
 */
function staticImports(code) {
  let text = code;
  for (let round = 0; round < 200; round++) {
    const problem = problemOf(text);
    const offset =
      problem && /^Cannot use (?:import statement|'import\.meta')|'export'/.test(problem.message)
        ? placeOf(problem, text)
        : -1;
    if (offset < 0) return text;
    if (problem.message.includes("import.meta")) {
      // The reported place is the word `meta`.
      const start = text.slice(0, offset).search(/import\s*\.\s*$/);
      if (start < 0) return text;
      text = `${text.slice(0, start)}__sandbox_mcp_meta__${text.slice(offset + "meta".length)}`;
      continue;
    }
    if (text.startsWith("export", offset)) {
      text =
        text.slice(0, offset) +
        text.slice(offset).replace(/^export(\s+default(?=\s))?/, (word) => " ".repeat(word.length));
      continue;
    }
    STATIC.lastIndex = offset;
    const match = STATIC.exec(text);
    if (!match) return text;
    const { name, all, named, from, attributes } = match.groups;
    const rest = named?.replace(/\bas\b/g, ":").replace(/[^\S\n]*:[^\S\n]*/g, ": ");
    const call = `await __sandbox_mcp_import__(${from}${attributes ? `, {with: ${attributes}}` : ""})`;
    const kept = `${rest ?? ""}${attributes ?? ""}`;
    const lines = "\n".repeat(match[0].split("\n").length - kept.split("\n").length);
    const parts = [name && `default: ${name}`, rest].filter((part) => part).join(", ");
    let statement = call;
    if (all) statement = `const ${all} = ${call}${name ? `, {default: ${name}} = ${all}` : ""}`;
    else if (parts) statement = `const {${parts}} = ${call}`;
    // The semicolon keeps the next line from being read as part of the call.
    text = `${text.slice(0, offset)}${statement};${lines}${text.slice(offset + match[0].length)}`;
  }
  return text;
}

/** Returns the offset of a syntax error. The error's stack has the line's number, and a marker below the column. */
function placeOf(error, text) {
  const [head, , marker] = String(error.stack).split("\n");
  const line = Number(head?.split(":").at(-1)) - 1;
  const lines = text.split("\n");
  if (!(line >= 0 && line < lines.length) || marker === undefined) return -1;
  const column = marker.indexOf("^") - (line === 0 ? "(async () => {".length : 0);
  return lines.slice(0, line).reduce((sum, one) => sum + one.length + 1, 0) + column;
}

module.exports = { Evaluator };
