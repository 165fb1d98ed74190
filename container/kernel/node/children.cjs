"use strict";
/**
 * Child processes that code starts. sandboxd finds them by the run's mark. A child gets the run's streams, not our descriptors
 * 0 to 2.
 */
const childProcess = require("node:child_process");
const { syncBuiltinESMExports } = require("node:module");
const { Server } = require("node:net");
const { Array, Map, Reflect, Set, String, process } = globalThis;
const { spawnSync } = childProcess;
/** The mark of the current run; undefined once this process has the mark. */
let unsetMark;
/** The current run's children that have not ended. */
let children = new Set();
/** Whether the current run has made this process listen on a port. */
let isListening = false;

/** Marks the children started from now on, so that sandboxd finds them: see `_mark` in sandbox_mcp_kernel/__init__.py. */
function markChildren(run, mark) {
  // Where limits cannot be set, sandboxd searches for this variable.
  process.env.SANDBOX_MCP_RUN = run;
  unsetMark = mark;
  children = new Set();
  isListening = false;
}

/** Says what may listen on a port: this process (`itself`) or a child. In both cases, sandboxd looks for the run's ports. */
function listeningPart() {
  if (isListening) return "itself";
  return children.size > 0 ? "child" : undefined;
}

/**
 * Sets the mark, a limit of this process. Runs set it only when they start a child or listen on a port, because Node needs
 * another program (prlimit) to set a limit.
 */
function markSelf() {
  if (unsetMark === undefined) return;
  spawnSync("/usr/bin/prlimit", ["--pid", String(process.pid), `--locks=${unsetMark}:`], { stdio: "ignore" });
  unsetMark = undefined;
}

/** Makes children that inherit descriptors get the run's streams and not the executor's channel. */
function patchChildren(streams) {
  const { ChildProcess } = childProcess;
  const spawn = ChildProcess.prototype.spawn;
  ChildProcess.prototype.spawn = function (options) {
    markSelf();
    const runChildren = children;
    runChildren.add(this);
    this.once("exit", () => runChildren.delete(this)).once("error", () => runChildren.delete(this));
    const { stdio, replaced } = replaceOwnDescriptors(options.stdio);
    const result = Reflect.apply(spawn, this, [{ ...options, stdio }]);
    for (const index of replaced) {
      const name = index === 1 ? "stdout" : "stderr";
      this.stdio[index]?.on("data", (data) => streams.write(name, data));
      this[name] = null;
    }
    return result;
  };
  for (const name of ["spawnSync", "execSync", "execFileSync"]) {
    const real = childProcess[name];
    childProcess[name] = (...args) => {
      markSelf();
      const at = args.findLastIndex((argument) => argument?.stdio !== undefined);
      const options = args[at];
      if (!options?.stdio) return real(...args);
      const { stdio, replaced } = replaceOwnDescriptors(options.stdio);
      if (replaced.length === 0) return real(...args.with(at, { ...options, stdio }));
      return withFiles(streams, stdio, replaced, (files) =>
        real(...args.with(at, { ...options, stdio: files })),
      );
    };
  }
  const { listen } = Server.prototype;
  Server.prototype.listen = function (...args) {
    markSelf();
    isListening = true;
    return Reflect.apply(listen, this, args);
  };
  syncBuiltinESMExports();
}

/** A synchronous child writes to the run's files itself, because this process reads nothing while it waits. */
function withFiles(streams, stdio, replaced, call) {
  const logs = new Map(replaced.map((index) => [index, streams.share(index === 1 ? "stdout" : "stderr")]));
  try {
    return call(stdio.map((entry, index) => (logs.has(index) ? (logs.get(index)?.file ?? "ignore") : entry)));
  } finally {
    for (const log of logs.values()) log?.recount();
  }
}

/**
 * Returns `stdio` as an array without our descriptors 0, 1 and 2. `replaced` has the indexes where a pipe has replaced descriptor
 * 1 or 2.
 */
function replaceOwnDescriptors(stdio) {
  const list = Array.isArray(stdio) ? [...stdio] : [stdio, stdio, stdio].map((entry) => entry ?? "pipe");
  const replaced = [];
  for (const [index, entry] of list.entries()) {
    const inherits = entry === "inherit" || entry?.type === "inherit" ? index : undefined;
    const fd = inherits ?? (typeof entry === "number" ? entry : entry?.fd);
    if (fd === 0) list[index] = "ignore";
    if (fd !== 1 && fd !== 2) continue;
    list[index] = "pipe";
    replaced.push(index);
  }
  return { stdio: list, replaced };
}

module.exports = { markChildren, patchChildren, listeningPart };
