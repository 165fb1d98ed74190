/** The address of a state directory's running server, without its token. */
import { attempt } from "../container/sandboxd/file-error.ts";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { identify, isAlive } from "../local/engine/identity.ts";
import { replaceFile } from "./output-files.ts";

const running = z.object({
  url: z.url(),
  pid: z.number().int(),
  process: z.string().optional(),
  mounts: z.array(z.string()).optional(),
});

/** `url` is the MCP endpoint, and `mounts` are the user's directories in which a sandbox can write. */
type Running = z.infer<typeof running>;

const fileIn = (stateDir: string) => join(stateDir, "server.json");

/** Records the server's address in its state directory, when the server is ready. */
export function noteRunning(stateDir: string, url: string, mounts: string[] = []): void {
  const server: Running = { url, pid: process.pid, process: identify(process.pid), mounts };
  replaceFile(fileIn(stateDir), `${JSON.stringify(server)}\n`);
}

/** Removes the record when the server ends. If the server is killed, the record stays. */
export function forgetRunning(stateDir: string): void {
  rmSync(fileIn(stateDir), { force: true });
}

export function readRunning(stateDir: string): Running | undefined {
  return attempt(() => running.parse(JSON.parse(readFileSync(fileIn(stateDir), "utf8"))), undefined);
}

/** The server; undefined if its process is gone: another program may listen at its address now, and must not get the token. */
export function findRunning(stateDir: string): Running | undefined {
  const found = readRunning(stateDir);
  return found && isRunning(found) ? found : undefined;
}

export function isRunning({ process }: Running): boolean {
  return process === undefined || isAlive(process);
}
