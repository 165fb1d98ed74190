/**
 * The control server of a local sandbox. In the image, the SDK's server has this role.
 *
 *     node control.cjs (--engine-key <path> | --socket <path>) --kernels <path> [--workspace /workspace]
 *
 * With `--engine-key`, the path of the key's file, the program connects to the engine (container/sandboxd/engine-link.ts). Else it
 * listens on the Unix socket `--socket`. `--kernels` is the directory of the kernels' scripts,
 * and `--workspace` the directory in which kernels start. If the engine has opened an IPC channel of Node, the program hands over
 * the sandbox's listeners (`handOverListeners`). On SIGTERM, the program kills all its descendants, and
 * then exits with status 0.
 */
import { rmSync } from "node:fs";
import { stat } from "node:fs/promises";
import { parseArgs } from "node:util";
import { serveEngine } from "../../container/sandboxd/engine-link.ts";
import { messageOf } from "../../src/shared/text.ts";
import { InterpreterAPI } from "./interpreter.ts";
import { log } from "./stderr-log.ts";
import { killDescendants } from "./process-tree.ts";
import { createControlServer } from "./control-server.ts";
import { handOverListeners, listen } from "./tcp.ts";
import { writeBundle, trustPlatform } from "./trust.ts";

const { values } = parseArgs({
  options: {
    "engine-key": { type: "string" },
    socket: { type: "string" },
    kernels: { type: "string" },
    workspace: { type: "string", default: "/workspace" },
  },
});

// A user's `pkill node` or `pkill -f sandbox` must not match this process.
process.title = "sbx-control";

// The engine sets these variables for this program, not for user programs.
delete process.env.NODE_COMPILE_CACHE;
delete process.env.SANDBOXD_ROOT;
delete process.env.SANDBOXD_TOKEN_FILE;

// Without a handler, the signal would open Node's debugger, and user code could connect to it.
process.on("SIGUSR1", () => undefined);

// Replaces Node's classes with empty ones, because Node loads its HTTP client when one of its classes is first used. capnweb reads
// only the prototypes and constants of these classes. The deletion comes first, because redefining a property would load the
// client, too.
for (const name of ["Headers", "Request", "Response", "WebSocket"]) {
  Reflect.deleteProperty(globalThis, name);
  Object.defineProperty(globalThis, name, { value: { prototype: {} } });
}

// User code must not end the runtime, so an unhandled rejection is only logged.
process.on("unhandledRejection", (reason) => log(`unhandled rejection: ${messageOf(reason)}`));
process.on("uncaughtException", (error) => log(`uncaught exception: ${error.stack ?? messageOf(error)}`));

async function main(): Promise<void> {
  const { "engine-key": key, socket, kernels, workspace } = values;
  if (kernels === undefined) throw new Error("--kernels is missing");
  // Starts Node's file threads now. Node aborts if it cannot start them later because no pid is free.
  await stat("/");
  writeBundle();
  const interpreter = new InterpreterAPI(kernels, workspace);
  const server = createControlServer(interpreter);

  const stop = async (): Promise<void> => {
    server.close();
    // Kernels and their processes end together. If the kernels ended first, their processes would no longer be descendants.
    await killDescendants();
    interpreter.close();
    process.exit(0);
  };
  process.once("SIGTERM", () => void stop());
  process.once("SIGINT", () => void stop());

  trustPlatform();
  if (process.connected) await handOverListeners();
  if (key !== undefined) serveEngine(server, "control", key);
  if (socket === undefined) return;
  rmSync(socket, { force: true });
  await listen(server, { path: socket });
}

main().catch((error: unknown) => {
  log(`cannot start: ${messageOf(error)}`);
  process.exit(1);
});
