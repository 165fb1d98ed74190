/**
 * Loaded before sandboxd: the first FAILING programs that are to copy a command's output cannot be started, as where no process is
 * left, and trying takes so long that the command has ended meanwhile.
 */
const processes = require("node:child_process");
let failing = Number(process.env.FAILING);

const { spawn } = processes;
processes.spawn = (program, ...rest) => {
  if (!program.endsWith("/sbx-copy") || failing-- <= 0) return spawn(program, ...rest);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  return spawn("/no/tee", ...rest);
};
