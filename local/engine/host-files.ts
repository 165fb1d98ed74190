/** Files of the host, which may not be there or not be readable. */
import { readFileSync } from "node:fs";

/** The text of a file; empty where it cannot be read. */
export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
