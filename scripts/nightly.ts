/** Runs all tests with a random seed, and with many more tries of those that use chance. TESTS_SEED repeats a run. */
import { spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { root } from "../cli/program-files.ts";

const seed = process.env.TESTS_SEED ?? String(randomInt(2 ** 31));
console.log(`TESTS_SEED=${seed}`);
const env = { ...process.env, TESTS_SEED: seed, TESTS: "long" };
const { status } = spawnSync("npm", ["test", "--", ...process.argv.slice(2)], {
  cwd: root,
  env,
  stdio: "inherit",
});
console.log(`These tests had TESTS_SEED=${seed}.`);
process.exitCode = status ?? 1;
