/** Reads host files that may be missing or unreadable. */
import { attempt } from "../../container/sandboxd/file-error.ts";
import { readFileSync } from "node:fs";

/** The flag to open a path only as a reference (open(2)). */
export const O_PATH = 0o10000000;

export function readText(file: string): string {
  return attempt(() => readFileSync(file, "utf8"), "");
}
