/**
 * Loaded before sandboxd. Kills sandboxd at its KILL_AT-th system call after the file ARMED exists. It counts calls that change
 * something or consume data, and writes their names into the file CALLS. Two kinds of calls do not count: opening an existing file
 * or pipe, which the kill undoes, and removing a file that does not exist, which has no effect.
 */
const { env } = process;
const fs = require("node:fs");
const { appendFileSync, existsSync } = fs;
const { O_CREAT, O_TRUNC } = fs.constants;
const { ARMED = "", CALLS = "" } = env;
const killAt = Number(env.KILL_AT);
for (const name of ["ARMED", "CALLS", "KILL_AT", "NODE_OPTIONS"]) delete env[name];

let calls = 0;
let isArmed = false;
/** Counts only the outer call if a call makes others. */
let isInside = false;

function step(name) {
  isArmed ||= existsSync(ARMED);
  if (!isArmed || isInside || ++calls > killAt) return;
  isInside = true;
  appendFileSync(CALLS, `${name}\n`);
  isInside = false;
  if (calls === killAt) process.kill(process.pid, "SIGKILL");
}

const isCreating = (_path, flags = "r") =>
  typeof flags === "number" ? (flags & (O_CREAT | O_TRUNC)) !== 0 : !flags.startsWith("r");

/** @param changes whether a call with these arguments changes something */
function count(object, names, changes = () => true) {
  for (const name of names) {
    const original = object[name];
    object[name] = function (...args) {
      if (changes(...args)) step(name);
      return Reflect.apply(original, this, args);
    };
  }
}

count(fs, ["mkdirSync", "renameSync", "unlinkSync", "writeFileSync", "writeSync"]);
count(fs, ["openSync"], isCreating);
count(fs, ["rmSync"], existsSync);
count(fs, [
  "chmodSync",
  "ftruncateSync",
  "linkSync",
  "lutimesSync",
  "rmdirSync",
  "symlinkSync",
  "utimesSync",
]);
count(fs.promises, ["chmod", "chown", "copyFile", "mkdir", "rename", "rm"]);
count(fs.promises, ["open"], isCreating);
count(require("node:child_process"), ["execFile", "spawn"]);
const { end } = require("node:http").ServerResponse.prototype;
require("node:http").ServerResponse.prototype.end = function (...args) {
  step("response");
  return Reflect.apply(end, this, args);
};

const { readSync } = fs;
fs.readSync = (...args) => {
  const bytes = readSync(...args);
  // The data was removed from the pipe and is stored nowhere else.
  if (bytes > 0) step("readSync");
  return bytes;
};

const { open } = fs.promises;
fs.promises.open = async (...args) => {
  const handle = await open(...args);
  count(handle, ["write"]);
  return handle;
};
