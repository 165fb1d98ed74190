/**
 * Loaded before sandboxd. Runs shell commands in the workspace at sandboxd's calls of node:fs. MOVES is a list of them as JSON:
 * `command` runs before each `call` with the path `at` in the workspace, `times` times at most.
 */
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const { join } = require("node:path");
const { env } = process;
const cwd = env.SANDBOXD_WORKSPACE;
const moves = JSON.parse(env.MOVES);
const { Buffer } = globalThis;

for (const call of new Set(moves.map((move) => move.call))) {
  const original = fs[call];
  fs[call] = (path, ...rest) => {
    const text = Buffer.isBuffer(path) ? path.toString() : path;
    for (const move of moves) {
      if (move.call !== call || text !== join(cwd, move.at) || move.times-- <= 0) continue;
      execFileSync("sh", ["-ec", move.command], { cwd });
    }
    return original(path, ...rest);
  };
}
