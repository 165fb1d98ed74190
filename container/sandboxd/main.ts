/**
 * sandboxd: the program of ours inside a sandbox. It runs commands and tells the actor of the sandbox what they print and
 * how they end; it reads and writes files.
 *
 *   node sandboxd.js [--socket <path>]
 *
 * Without --socket it listens on its port, as in the image.
 */
import { existsSync, stat, unlinkSync } from "node:fs";
import { parseArgs } from "node:util";
import { Files } from "./files.ts";
import { SANDBOXD_PORT } from "./protocol.ts";
import { Runs } from "./runs.ts";
import { createSandboxdServer } from "./server.ts";

// Not `node`: a user's `pkill node` is for the user's own.
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
const server = createSandboxdServer(runs, files);
server.on("error", (error) => {
  say("cannot listen", error);
  process.exit(1);
});
if (values.socket === undefined) server.listen(SANDBOXD_PORT, "0.0.0.0");
else {
  if (existsSync(values.socket)) unlinkSync(values.socket);
  server.listen(values.socket);
}
