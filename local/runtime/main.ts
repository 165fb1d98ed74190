/**
 * The program that runs inside a local sandbox and stands in for the container's server.
 *
 *   node main.ts --socket <path> [--workspace /workspace] [--scratch <directory>]
 *
 * `--socket`: where to listen. Where the engine has given it a channel, the listeners of the way out go through that.
 * `--scratch`: a directory for files of sessions and processes, by default in /dev/shm, else in /tmp. On a tmpfs a
 * command costs less than half of what it costs on a disk.
 * SIGTERM ends all processes it started and exits with 0.
 */
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, rmSync, unlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { SandboxAPI } from "./api.ts";
import { messageOf } from "./errors.ts";
import { Files } from "./files.ts";
import { InterpreterAPI } from "./interpreter.ts";
import { log } from "./log.ts";
import { killDescendants } from "./process-tree.ts";
import { createControlServer } from "./server.ts";
import { Sessions } from "./sessions.ts";
import { handOverEgress, listen } from "./tcp.ts";
import { layBundle, trustPlatform } from "./trust.ts";

const { values } = parseArgs({
  options: {
    socket: { type: "string" },
    workspace: { type: "string", default: "/workspace" },
    scratch: { type: "string" },
  },
});

// Not what a user's `pkill node` or `pkill -f sandbox` matches.
process.title = "sbx-control";

// The engine sets it for this program, not for the user's.
delete process.env.NODE_COMPILE_CACHE;
delete process.env.SANDBOXD_ROOT;
delete process.env.SANDBOXD_TOKEN_FILE;

// Node would open its debugger, to which user code could then connect.
process.on("SIGUSR1", () => undefined);

// User code must not end the runtime: a rejection that is not handled is only logged.
process.on("unhandledRejection", (reason) => log(`unhandled rejection: ${messageOf(reason)}`));
process.on("uncaughtException", (error) => log(`uncaught exception: ${error.stack ?? messageOf(error)}`));

async function main(): Promise<void> {
  const { socket, workspace } = values;
  if (socket === undefined) throw new Error("--socket is missing");
  // Starts Node's file threads now: Node aborts when it cannot start them later because no pid is free.
  await stat("/");
  layBundle();
  const scratch = values.scratch ?? mkdtempSync(join(scratchParent(), ".sandbox-runtime-"));

  const sessions = new Sessions(workspace, scratch);
  const interpreter = new InterpreterAPI({ cwd: workspace });
  const files = new Files((sessionID) => sessions.directoryOf(sessionID));
  const server = createControlServer(new SandboxAPI({ sessions, files, interpreter }));

  const stop = async (): Promise<void> => {
    server.close();
    interpreter.close();
    await killDescendants();
    if (values.scratch === undefined) rmSync(scratch, { recursive: true, force: true });
    else empty(scratch);
    process.exit(0);
  };
  process.once("SIGTERM", () => void stop());
  process.once("SIGINT", () => void stop());

  trustPlatform();
  if (process.connected) await handOverEgress();
  removeStale(socket);
  await listen(server, { path: socket });
}

/** The directory was given, and may be a mount point, which cannot be removed. */
function empty(directory: string): void {
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true, force: true });
}

function scratchParent(): string {
  try {
    accessSync("/dev/shm", constants.W_OK);
    return "/dev/shm";
  } catch {
    return tmpdir();
  }
}

/** A socket file left by an earlier runtime would be in the way. */
function removeStale(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // There was no socket file.
  }
}

main().catch((error: unknown) => {
  log(`cannot start: ${messageOf(error)}`);
  process.exit(1);
});
