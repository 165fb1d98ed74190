/**
 * sandboxd: our program inside a sandbox. It runs commands, and reports their output and end to the sandbox's actor (its Durable
 * Object). It also follows code, reads and writes files, and forwards preview requests to servers in the sandbox.
 *
 *   node sandboxd.cjs [--engine-key <path> | --socket <path>] [--write-base <path>]
 *
 * In a local sandbox, it connects to the engine with the key in this file (engine-link.ts), or without isolation it listens on a
 * Unix socket. In the image, it listens on its port. With --write-base it writes the list of the image's files, and
 * ends.
 */
import { existsSync, stat, unlinkSync } from "node:fs";
import { parseArgs } from "node:util";
import { beatWhile, sendHeartbeats } from "./beat.ts";
import { serveEngine } from "./engine-link.ts";
import { endInOrder } from "./orderly-stop.ts";
import { codeOf } from "./file-error.ts";
import { FileHandlers } from "./file-handlers.ts";
import { watchKernels } from "./kernel-ends.ts";
import { listenersOn } from "./listening.ts";
import { SANDBOXD_NAME } from "./directories.ts";
import { send } from "./run-processes.ts";
import { SANDBOXD_PORT } from "./protocol.ts";
import { RunTable } from "./run-table.ts";
import { createSandboxdServer } from "./http-server.ts";
import { writeList } from "./snapshots/base.ts";
import { Snapshots } from "./snapshots/snapshots.ts";

// A user's `pkill node` or `pkill -f sandbox` must not match this process.
process.title = SANDBOXD_NAME;

const { values } = parseArgs({
  options: {
    "engine-key": { type: "string" },
    socket: { type: "string" },
    "write-base": { type: "string" },
  },
});
if (values["write-base"] !== undefined) {
  writeList("/", values["write-base"]);
  process.exit(0);
}
const env = { ...process.env };
// The local engine sets these variables for sandboxd only, so user programs must not inherit them.
delete env.NODE_COMPILE_CACHE;
delete env.SANDBOXD_ROOT;

const logError = (what: string, error: unknown) =>
  process.stderr.write(`sandboxd: ${what}: ${error instanceof Error ? error.stack : String(error)}\n`);
process.on("uncaughtException", (error) => logError("uncaught", error));
process.on("unhandledRejection", (error) => logError("unhandled", error));

// Starts Node's file threads now. Node aborts if it cannot start them later, when all processes are in use.
stat("/", () => undefined);

const snapshots = new Snapshots();
try {
  snapshots.begin();
} catch (error) {
  logError("cannot record the files of the image", error);
}
const runs = new RunTable(env);
runs.begin();
watchKernels();
const files = new FileHandlers();
files.begin();
let ending: Promise<void> | undefined;
process.on("SIGUSR2", () => {
  ending ??= endInOrder(runs, files).finally(() => process.exit(0));
});
const server = createSandboxdServer(runs, files, snapshots);
server.on("error", (error) => {
  logError("cannot listen", error);
  // Kills the program that listens on the port, so that the next sandboxd can listen.
  if (codeOf(error) === "EADDRINUSE") for (const pid of listenersOn(SANDBOXD_PORT)) send(pid, "SIGKILL");
  process.exit(1);
});
const { "engine-key": key, socket } = values;
if (key !== undefined) beatWhile(serveEngine(server, "sandboxd", key));
else if (socket === undefined)
  server.listen(SANDBOXD_PORT, "0.0.0.0", () => sendHeartbeats({ port: SANDBOXD_PORT }));
else {
  if (existsSync(socket)) unlinkSync(socket);
  server.listen(socket, () => sendHeartbeats({ socketPath: socket }));
}
