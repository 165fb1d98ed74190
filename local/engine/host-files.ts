/** Reads host files that may be missing or unreadable, and shortens the paths of Unix sockets. */
import { attempt } from "../../container/sandboxd/file-error.ts";
import { closeSync, openSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";

/** The flag to open a path only as a reference (open(2)). */
export const O_PATH = 0o10000000;

export function readText(file: string): string {
  return attempt(() => readFileSync(file, "utf8"), "");
}

/** Like `readText`, without blocking the engine. */
export async function loadText(file: string): Promise<string> {
  return await readFile(file, "utf8").catch(() => "");
}

/**
 * Calls a function with a short path of a Unix socket. The path is valid only during the call. Linux allows paths of 107 bytes, and
 * a state directory can have a longer path.
 */
export async function withShortPath<T>(socket: string, use: (path: string) => Promise<T>): Promise<T> {
  const directory = openSync(dirname(socket), O_PATH);
  try {
    return await use(`/proc/self/fd/${directory}/${basename(socket)}`);
  } finally {
    closeSync(directory);
  }
}
