"use strict";
/** Records how a JavaScript kernel ends, in a file that sandboxd reads when the kernel is gone. */
const fs = require("node:fs");
const { Reflect, process } = globalThis;
/** Saved here, because files.cjs replaces them later. */
const { closeSync, openSync, writeSync } = fs;

/**
 * Makes the file descriptor 2, so that V8 and native addons write their last words there. Node has no dup2, but a new file gets the
 * lowest free descriptor.
 */
function recordEnd(started) {
  const path = `/var/lib/sandbox-mcp/runs/kernel-${process.pid}-${started}`;
  let file;
  try {
    file = openSync(path, "a", 0o600);
    closeSync(2);
    openSync(path, "a");
    closeSync(file);
  } catch {
    // Without the directory, nothing is recorded.
    return;
  }
  const exit = process.reallyExit;
  process.reallyExit = (code) => {
    writeSync(2, `exit status ${code}\n`);
    return Reflect.apply(exit, process, [code]);
  };
}

module.exports = { recordEnd };
