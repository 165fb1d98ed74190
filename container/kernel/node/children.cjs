"use strict";
/** Keeps the executor's descriptors 0, 1 and 2 out of the reach of the children that code starts. */
const childProcess = require("node:child_process");
const { syncBuiltinESMExports } = require("node:module");
const { account } = require("./log.cjs");

/** A child that inherits descriptors inherits the run's, never the protocol's. */
function patchChildren(streams) {
  const { ChildProcess } = childProcess;
  const spawn = ChildProcess.prototype.spawn;
  ChildProcess.prototype.spawn = function (options) {
    const { stdio, taken } = replaced(options.stdio, "pipe");
    const answer = Reflect.apply(spawn, this, [{ ...options, stdio }]);
    for (const index of taken) {
      const name = index === 1 ? "stdout" : "stderr";
      this.stdio[index]?.on("data", (data) => streams.write(name, data));
      this[name] = null;
    }
    return answer;
  };
  for (const name of ["spawnSync", "execSync", "execFileSync"]) {
    const real = childProcess[name];
    childProcess[name] = (...args) => {
      const at = args.findLastIndex((one) => one?.stdio !== undefined);
      const options = args[at];
      if (!options?.stdio) return real(...args);
      const { stdio, taken } = replaced(options.stdio, "pipe");
      if (taken.length === 0) return real(...args.with(at, { ...options, stdio }));
      return withFiles(streams, stdio, taken, (files) =>
        real(...args.with(at, { ...options, stdio: files })),
      );
    };
  }
  syncBuiltinESMExports();
}

/** A synchronous child writes straight into the run's files, so that its output is there while it runs. */
function withFiles(streams, stdio, taken, call) {
  streams.flush();
  streams.spill();
  // Nobody listens between runs.
  if (!streams.active || !streams.spilled)
    return call(stdio.map((one, index) => (taken.includes(index) ? "ignore" : one)));
  const logs = taken.map((index) => [index, index === 1 ? streams.logs.stdout : streams.logs.stderr]);
  for (const [, log] of logs) log.flush();
  try {
    return call(stdio.map((one, index) => logs.find(([at]) => at === index)?.[1].file ?? one));
  } finally {
    for (const [, log] of logs) account(log);
  }
}

/** `stdio` as an array in which nothing refers to the kernel's own 0, 1 and 2, and which of 1 and 2 were meant. */
function replaced(stdio, instead) {
  const list = Array.isArray(stdio) ? [...stdio] : [stdio, stdio, stdio].map((one) => one ?? "pipe");
  const taken = [];
  for (const [index, one] of list.entries()) {
    const inherits = one === "inherit" || one?.type === "inherit" ? index : undefined;
    const fd = inherits ?? (typeof one === "number" ? one : one?.fd);
    if (fd === 0) list[index] = "ignore";
    if (fd !== 1 && fd !== 2) continue;
    list[index] = instead;
    taken.push(index);
  }
  return { stdio: list, taken };
}

module.exports = { patchChildren };
