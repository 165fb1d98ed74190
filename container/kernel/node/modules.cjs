"use strict";
/** Modules that a cell imports. Compiles TypeScript syntax that Node cannot just remove, and finds the place of a syntax error. */
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const modules = require("node:module");
const { fileURLToPath } = require("node:url");
const execPath = process.execPath;
let lastFileURL;

/** Hooks into the loading of modules. Node before 22.15 lacks `registerHooks`, and loads modules unchanged. */
function watchModules() {
  modules.registerHooks?.({
    load(url, context, next) {
      lastFileURL = url.startsWith("file:") ? url : undefined;
      return (lastFileURL && transformModule(url)) ?? next(url, context);
    },
  });
}

/** Compiles enums, namespaces and parameter properties: Node itself only removes types. */
function transformModule(url) {
  const path = fileURLToPath(url);
  if (!/\.[cm]?ts$/.test(path) || path.includes("/node_modules/")) return undefined;
  let code;
  try {
    code = fs.readFileSync(path, "utf8");
    modules.stripTypeScriptTypes(code);
    return undefined;
  } catch (error) {
    if (error.code !== "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") return undefined;
  }
  const isCommon = path.endsWith(".cts") || (path.endsWith(".ts") && !/^\s*(?:import|export)\b/m.test(code));
  return {
    format: isCommon ? "commonjs" : "module",
    source: modules.stripTypeScriptTypes(code, { mode: "transform" }),
    shortCircuit: true,
  };
}

/** Adds the file and the line to a module's syntax error, because V8 prints them only to the terminal. */
function locateInModule(error) {
  if (!lastFileURL || !/\b(?:compileSourceTextModule|wrapSafe)\b/.test(error.stack)) return;
  const options = { encoding: "utf8", timeout: 5000, stdio: ["ignore", "ignore", "pipe"] };
  const { status, stderr } = spawnSync(execPath, ["--check", fileURLToPath(lastFileURL)], options);
  const head = stderr?.split(/\n\s*\n/)[0];
  if (status === 1 && head?.startsWith("/")) error.stack = `${head}\n${error.name}: ${error.message}`;
}

module.exports = { locateInModule, watchModules };
