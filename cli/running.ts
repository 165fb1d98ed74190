/** The address of a state directory's running server, without its token. */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

const running = z.object({ url: z.url(), pid: z.number().int() });

/** `url` is the MCP endpoint. */
export type Running = z.infer<typeof running>;

const fileIn = (stateDir: string) => join(stateDir, "server.json");

/** Called with its state directory when the server is ready. */
export function noteRunning(stateDir: string, server: Running): void {
  const file = fileIn(stateDir);
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(server)}\n`, { mode: 0o600 });
  renameSync(temporary, file);
}

/** Called when the server ends. If it is killed, the file stays, but nothing responds at its URL. */
export function forgetRunning(stateDir: string): void {
  rmSync(fileIn(stateDir), { force: true });
}

export function readRunning(stateDir: string): Running | undefined {
  try {
    return running.parse(JSON.parse(readFileSync(fileIn(stateDir), "utf8")));
  } catch {
    return undefined;
  }
}
