/** Reads host files that may be missing or unreadable. */
import { attempt } from "../../container/sandboxd/file-error.ts";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** The flag to open a path only as a reference (open(2)). */
export const O_PATH = 0o10000000;

export function readText(file: string): string {
  return attempt(() => readFileSync(file, "utf8"), "");
}

/** Like `readText`, without blocking the engine. */
export async function loadText(file: string): Promise<string> {
  return await readFile(file, "utf8").catch(() => "");
}
