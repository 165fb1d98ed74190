"use strict";
/**
 * The JavaScript kernel of the local platform: one process per context, requests and replies as JSON lines. It replaces the
 * image's executor and works in the same way. Code runs in a vm context with only the globals listed here. The protocol uses
 * stdout, so process.stdout.write is replaced while code runs, and the output is part of the reply.
 *
 * Code is evaluated in V8's own REPL mode (top-level await, declarations that later code can use, the last expression's value).
 */
const inspector = require("node:inspector");
const readline = require("node:readline");
const vm = require("node:vm");

// Without this, the command line would contain the path of this file, and a user's `pkill -f /opt` would match it.
process.title = "node";

const context = vm.createContext({
  console,
  process,
  require,
  Buffer,
  setTimeout,
  setInterval,
  clearTimeout,
  clearInterval,
  setImmediate,
  clearImmediate,
  global,
  __dirname,
  __filename,
});

const session = new inspector.Session();
session.connect();
let contextId;
session.on("Runtime.executionContextCreated", ({ params }) => {
  if (!params.context.auxData?.isDefault) contextId = params.context.id;
});
session.post("Runtime.enable");
session.post("Runtime.disable");

let takenValue;
const TAKE = Symbol.for("sandbox-runtime.take");
globalThis[TAKE] = (value) => {
  takenValue = value;
};
context[TAKE] = globalThis[TAKE];

/** The value that the inspector describes. To get an object, a function is called in the context, and passes the object to TAKE. */
function readValue(remote) {
  if (!remote.objectId) {
    if (remote.type === "undefined") return undefined;
    if (remote.unserializableValue === undefined) return remote.value;
    return vm.runInContext(remote.unserializableValue, context);
  }
  session.post("Runtime.callFunctionOn", {
    functionDeclaration: "function (value) { globalThis[Symbol.for('sandbox-runtime.take')](value); }",
    objectId: remote.objectId,
    arguments: [{ objectId: remote.objectId }],
  });
  const value = takenValue;
  takenValue = undefined;
  return value;
}

function evaluate(code) {
  return new Promise((resolve, reject) => {
    session.post(
      "Runtime.evaluate",
      { expression: code, replMode: true, awaitPromise: true, contextId, objectGroup: "run" },
      (error, reply) => {
        if (error) return reject(error);
        if (reply.exceptionDetails) return reject(readValue(reply.exceptionDetails.exception));
        // If the last value is a promise, `resolve` also waits for that promise.
        resolve(readValue(reply.result));
      },
    );
  }).finally(() => session.post("Runtime.releaseObjectGroup", { objectGroup: "run" }));
}

async function execute({ code }) {
  const captured = { stdout: "", stderr: "" };
  const saved = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ["stdout", "stderr"]) {
    process[name].write = (chunk, encoding, callback) => {
      captured[name] += chunk.toString();
      if (callback) callback();
      return true;
    };
  }
  let success = true;
  try {
    await evaluate(code);
  } catch (error) {
    captured.stderr += error?.stack || String(error);
    success = false;
  } finally {
    process.stdout.write = saved.stdout;
    process.stderr.write = saved.stderr;
  }
  return { ...captured, success };
}

const lines = readline.createInterface({ input: process.stdin, output: process.stdout, terminal: false });
lines.on("line", async (line) => {
  let reply;
  try {
    reply = await execute(JSON.parse(line));
  } catch (error) {
    const stderr = `Error processing request: ${error.message}`;
    reply = { stdout: "", stderr, success: false };
  }
  console.log(JSON.stringify(reply));
});
// Saves process.exit now, because code may replace it.
const exit = process.exit.bind(process);
lines.on("close", () => exit(0));
process.on("SIGTERM", () => exit(0));
process.on("SIGINT", () => exit(0));
console.log(JSON.stringify({ status: "ready" }));
