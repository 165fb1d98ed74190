/**
 * sandboxd: our program inside a sandbox. It runs commands and reports their output and end to the sandbox's actor, follows
 * code, reads and writes files, and passes on requests to previews.
 *
 *   node sandboxd.js [--socket <path>]
 *
 * Without --socket it listens on its port, as in the image.
 */
import { existsSync, stat, unlinkSync } from "node:fs";
import { parseArgs } from "node:util";
import { Files } from "./files.ts";
import { listenersOn } from "./listening.ts";
import { send } from "./processes.ts";
import { SANDBOXD_PORT } from "./protocol.ts";
import { Runs } from "./runs.ts";
import { createSandboxdServer } from "./server.ts";
import { Snapshots } from "./snapshots/snapshots.ts";

// Not `node`, so that a user's `pkill node` does not end it.
process.title = "sandboxd";

const { values } = parseArgs({ options: { socket: { type: "string" } } });
const env = { ...process.env };
// The local engine sets these for this program alone.
delete env.NODE_COMPILE_CACHE;
delete env.SANDBOXD_ROOT;

const say = (what: string, error: unknown) =>
  process.stderr.write(`sandboxd: ${what}: ${error instanceof Error ? error.stack : String(error)}\n`);
process.on("uncaughtException", (error) => say("uncaught", error));
process.on("unhandledRejection", (error) => say("unhandled", error));

// Starts the threads for file work now: Node aborts when it cannot start them later, with all processes in use.
stat("/", () => undefined);

const runs = new Runs(env);
runs.begin();
const files = new Files();
files.begin();
const server = createSandboxdServer(runs, files, new Snapshots());
server.on("error", (error) => {
  say("cannot listen", error);
  // The next one finds its place free.
  if ("code" in error && error.code === "EADDRINUSE")
    for (const pid of listenersOn(SANDBOXD_PORT)) send(pid, "SIGKILL");
  process.exit(1);
});
if (values.socket === undefined) server.listen(SANDBOXD_PORT, "0.0.0.0");
else {
  if (existsSync(values.socket)) unlinkSync(values.socket);
  server.listen(values.socket);
}
