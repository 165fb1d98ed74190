"use strict";
/**
 * Our prelude for JavaScript and TypeScript kernels, the same in the image and on the local platform.
 *
 * The executor is the program that the SDK starts as a kernel. We do not change it: each cell that we send is one call,
 * `__sandbox_mcp__({run, mark, files, cap_bytes, tail_bytes, language, code, variables?})`. The call runs the user's code and
 * returns one JSON document, the stdout of our reply. sandbox_mcp_kernel/__init__.py describes the document. The document is
 * pure ASCII: the SDK decodes each chunk of the executor's pipe separately, and a chunk may end in the middle of a character.
 *
 * Cells run in the realm of the prelude, and can declare or replace every global. So the prelude's files keep those that they use,
 * and work between cells with the original methods of built-in objects.
 */
const modules = require("node:module");
const { pathToFileURL } = require("node:url");
const vm = require("node:vm");
const { trustPlatform } = require("./node/authorities.cjs");
const { withBuiltins } = require("./node/builtins.cjs");
const { markChildren, listeningPart } = require("./node/children.cjs");
const { Evaluator } = require("./node/evaluate.cjs");
const { watchModules } = require("./node/modules.cjs");
const { Streams } = require("./node/streams.cjs");
const { Results, describe, trimStacks } = require("./node/present.cjs");
const { serveRequests } = require("./node/requests.cjs");
const { recordEnd } = require("./node/end.cjs");
const { Error, JSON, Number, Object, Promise, String, process } = globalThis;

/** Thrown by process.exit in user code, so that it ends only the cell and not the kernel. */
class ExitRequest extends Error {
  constructor(code) {
    super(`process.exit(${code}) was called; the kernel continues.`);
    // Not enumerable, so that it is not shown with the error.
    Object.defineProperty(this, "code", { value: code, enumerable: false });
    Object.defineProperty(this, "name", { value: "SystemExit", enumerable: false });
  }
}

const streams = new Streams();
const evaluator = new Evaluator();
const exit = process.exit.bind(process);
/** Saved here, because user code may replace them. */
const { stringify } = JSON;
const { nextTick } = process;
let results = new Results();
let exitCode = null;
let variablesVersion = 0;

async function run(spec) {
  let error = null;
  try {
    const cell = withBuiltins(() => begin(spec));
    const value = await evaluator.evaluate(cell);
    withBuiltins(() => value !== undefined && results.display(value));
  } catch (thrown) {
    if (thrown instanceof ExitRequest) exitCode = thrown.code;
    if (!(thrown instanceof ExitRequest && thrown.code === 0))
      error = withBuiltins(() => describe(thrown, evaluator.sources));
  }
  // Node reports a warning in the next tick.
  await new Promise((resolve) => nextTick(resolve));
  return withBuiltins(() => documentOf(spec, error));
}

/** Returns the cell, ready to be evaluated. */
function begin(spec) {
  results = new Results();
  exitCode = null;
  bindModules();
  markChildren(spec.run, spec.mark);
  if (spec.variables) setVariables(spec.variables);
  streams.begin(spec.files, spec.cap_bytes, spec.tail_bytes);
  return evaluator.prepare(spec.code, spec.language);
}

function documentOf(spec, error) {
  const document = {
    sandbox_mcp_run: 1,
    run: spec.run,
    ...streams.end(),
    serves: listeningPart(),
    results: results.finish(spec.run),
    error,
    exit: exitCode,
  };
  return ascii(stringify(document));
}

function setVariables({ version, entries }) {
  try {
    for (const { name, value, version: since } of entries) {
      if (since <= variablesVersion) continue;
      if (value === null) delete process.env[name];
      else process.env[name] = value;
    }
    variablesVersion = version;
  } catch {
    // The user's code has replaced process.env.
  }
}

function ascii(text) {
  return text.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

let boundTo;

/** Makes `require`, `import` and `module` work as in a file of the current directory. */
function bindModules() {
  let cwd = boundTo ?? "/workspace";
  try {
    cwd = process.cwd();
  } catch {
    // The current directory was removed. Cells must still run, for example to change to another directory.
  }
  if (cwd === boundTo) return;
  boundTo = cwd;
  const filename = `${cwd === "/" ? "" : cwd}/cell.js`;
  const cellRequire = modules.createRequire(filename);
  const main = new modules.Module(filename);
  main.filename = filename;
  main.paths = cellRequire.resolve.paths("x");
  // A cell counts as the main module: `if (require.main === module)` is true.
  cellRequire.main = main;
  Object.assign(globalThis, {
    require: cellRequire,
    module: main,
    exports: main.exports,
    __dirname: cwd,
    __filename: filename,
  });
  const url = pathToFileURL(filename).href;
  const resolve = (name) => (modules.isBuiltin(name) ? name : pathToFileURL(cellRequire.resolve(name)).href);
  defineHidden(globalThis, "__sandbox_mcp_meta__", { url, dirname: cwd, filename, main: true, resolve });
  evaluator.import = new vm.Script("(name, options) => import(name, options)", {
    filename,
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  }).runInThisContext();
}

/** `import()` for cells. If a module is missing, the error's stack names the line of the cell. */
async function importForCell(name, options) {
  const here = {};
  Error.captureStackTrace(here, importForCell);
  try {
    return await evaluator.import(name, options);
  } catch (error) {
    const [message, ...frames] = String(error?.stack).split("\n    at ");
    if (String(error?.code).startsWith("ERR_") && frames.every((frame) => frame.includes("node:"))) {
      error.stack = [message, ...here.stack.split("\n    at ").slice(1)].join("\n    at ");
    }
    throw error;
  }
}

function defineHidden(target, name, value) {
  Object.defineProperty(target, name, { value, enumerable: false, configurable: true, writable: false });
}

/** @param target the global object of the executor's context */
function start(target, language) {
  // The capture of the executor, which runs the cell that loads the prelude.
  const { stdin } = process;
  const print = process.stdout.write;
  defineHidden(target, "__sandbox_mcp__", run);
  defineHidden(globalThis, "__sandbox_mcp_import__", importForCell);
  defineHidden(globalThis, "display", (value) => results.display(value));
  trimStacks();
  watchModules();
  recordEnd(startedTicks());
  streams.install();
  trustPlatform();
  process.exit = (code) => {
    const request = new ExitRequest(Number(code ?? process.exitCode ?? 0));
    Error.captureStackTrace(request, process.exit);
    throw request;
  };
  // Prepended, because the executor's own handler would call our replacement of process.exit.
  process.prependListener("SIGTERM", () => exit(0));
  for (const event of ["uncaughtException", "unhandledRejection"]) {
    process.on(event, (error) => {
      if (error instanceof ExitRequest) return;
      streams.write("stderr", `Uncaught ${describe(error, evaluator.sources).traceback.join("\n")}\n`);
    });
  }
  // Node itself writes warnings to the executor's descriptor 2, which nobody reads.
  process.removeAllListeners("warning").on("warning", ({ name, code, message }) => {
    // Node's functions that this prelude uses cause such warnings, too.
    if (name === "ExperimentalWarning") return;
    streams.write("stderr", `(node:${process.pid}) ${code ? `[${code}] ` : ""}${name}: ${message}\n`);
  });
  if (language === "typescript") setImmediate(() => evaluator.warmUp());
  const hello = {
    sandbox_mcp_kernel: 1,
    pid: process.pid,
    started: startedTicks(),
    language,
    version: process.version,
  };
  serveRequests(stdin, target.eval, streams.writeReal.stdout);
  print(`${stringify(hello)}\n`);
}

/** The process's start in clock ticks since boot. It distinguishes the process from a later one with the same pid. */
function startedTicks() {
  const stat = require("node:fs").readFileSync("/proc/self/stat", "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
}

module.exports = { start };
