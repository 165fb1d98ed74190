/** Files that the user has named for what a command answers. */
import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf } from "../src/shared/text.ts";
import { CommandError } from "./exit.ts";

/** @throws {CommandError} in place of an error of the file system */
export function writing<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new CommandError("unavailable", `${path} cannot be written: ${messageOf(error)}`);
  }
}

/** Makes a directory with those above it. Node's recursive mkdir tries without end where /proc refuses it. */
export function makeDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  if (dirname(path) !== path) makeDirectory(dirname(path));
  mkdirSync(path);
}
