import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../local/runtime/sdk-errors.ts";

/**
 * Makes a directory and its missing parents. Not Node's `recursive` option: that one never returns where the system
 * answers ENOENT although the parent is there, as below /proc.
 */
export function makeDirectories(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, mode);
  } catch (error) {
    const code = errnoOf(error);
    if (code === "EEXIST" && statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || parent === path || existsSync(parent)) throw error;
    makeDirectories(parent, mode);
    mkdirSync(path, mode);
  }
}
