/**
 * Loaded before sandboxd. The first FAILING starts of the program that copies a command's output fail, as if the
 * sandbox had no free process. Each attempt is so slow that the command ends meanwhile.
 */
const processes = require("node:child_process");
let failing = Number(process.env.FAILING);

const { spawn } = processes;
processes.spawn = (program, ...rest) => {
  if (!program.endsWith("/sbx-copy") || failing-- <= 0) return spawn(program, ...rest);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  return spawn("/no/tee", ...rest);
};
