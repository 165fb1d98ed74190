/**
 * Loaded before sandboxd: the first FAILING starts of a program that copies a command's output fail, as if no process were left.
 * Each attempt takes so long that the command ends meanwhile.
 */
const processes = require("node:child_process");
let failing = Number(process.env.FAILING);

const { spawn } = processes;
processes.spawn = (program, ...rest) => {
  if (!program.endsWith("/sbx-copy") || failing-- <= 0) return spawn(program, ...rest);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  return spawn("/no/tee", ...rest);
};
