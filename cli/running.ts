/** The address of a state directory's running server, without its token. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "./output-files.ts";

const running = z.object({ url: z.url(), pid: z.number().int() });

/** `url` is the MCP endpoint. */
export type Running = z.infer<typeof running>;

const fileIn = (stateDir: string) => join(stateDir, "server.json");

/** Called with its state directory when the server is ready. */
export function noteRunning(stateDir: string, server: Running): void {
  replaceFile(fileIn(stateDir), `${JSON.stringify(server)}\n`);
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
