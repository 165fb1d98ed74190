/**
 * Loaded before sandboxd: kills it when it makes its KILL_AT-th call to the system once the file ARMED is there. Calls are counted
 * that change something, and reads that take something; the file CALLS is left with the name of each.
 */
const { env } = process;
const fs = require("node:fs");
const { appendFileSync, existsSync } = fs;
const { ARMED = "", CALLS = "" } = env;
const killAt = Number(env.KILL_AT);
for (const name of ["ARMED", "CALLS", "KILL_AT", "NODE_OPTIONS"]) delete env[name];

let calls = 0;
let isArmed = false;
/** A call may be made of others. */
let isInside = false;

function step(name) {
  isArmed ||= existsSync(ARMED);
  if (!isArmed || isInside || ++calls > killAt) return;
  isInside = true;
  appendFileSync(CALLS, `${name}\n`);
  isInside = false;
  if (calls === killAt) process.kill(process.pid, "SIGKILL");
}

function count(object, names) {
  for (const name of names) {
    const original = object[name];
    object[name] = function (...args) {
      step(name);
      return Reflect.apply(original, this, args);
    };
  }
}

count(fs, ["mkdirSync", "openSync", "renameSync", "rmSync", "unlinkSync", "writeFileSync", "writeSync"]);
count(fs, [
  "chmodSync",
  "ftruncateSync",
  "linkSync",
  "lutimesSync",
  "rmdirSync",
  "symlinkSync",
  "utimesSync",
]);
count(fs.promises, ["chmod", "chown", "copyFile", "mkdir", "open", "rename", "rm"]);
count(require("node:child_process"), ["execFile", "spawn"]);
const { end } = require("node:http").ServerResponse.prototype;
require("node:http").ServerResponse.prototype.end = function (...args) {
  step("answer");
  return Reflect.apply(end, this, args);
};

const { readSync } = fs;
fs.readSync = (...args) => {
  const bytes = readSync(...args);
  // It is taken out of the pipe, and nobody else has it.
  if (bytes > 0) step("readSync");
  return bytes;
};

const { open } = fs.promises;
fs.promises.open = async (...args) => {
  const handle = await open(...args);
  count(handle, ["write", "close"]);
  return handle;
};
