/** Reads host files that may be missing or unreadable. */
import { readFileSync } from "node:fs";

/** The flag to open a path only as a reference (open(2)). */
export const O_PATH = 0o10000000;

export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
