/** Files that the user has named for what a command answers. */
import { chmodSync, constants, copyFileSync } from "node:fs";
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

/** The time in the name of a file, without the colons that some file systems refuse. */
export function timeForName(): string {
  return new Date().toISOString().replaceAll(":", "-");
}

/**
 * Keeps a copy of a file beside it, for its user alone.
 * @returns the path of the copy
 * @throws Error rather than replacing another copy
 */
export function keepCopy(file: string): string {
  const copy = `${file}.${timeForName()}.bak`;
  copyFileSync(file, copy, constants.COPYFILE_EXCL);
  chmodSync(copy, 0o600);
  return copy;
}
