/** Reads host files that may be missing or unreadable. */
import { readFileSync } from "node:fs";

export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
