import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf } from "../container/sandboxd/file-error.ts";

/** Like `mkdir -p`. Node's `recursive` never returns if the system reports ENOENT although the parent exists, as below /proc. */
export function makeDirectories(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, mode);
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST" && statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || parent === path || existsSync(parent)) throw error;
    makeDirectories(parent, mode);
    mkdirSync(path, mode);
  }
}
