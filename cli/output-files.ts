/** Files that the user named for a command's results. */
import { chmodSync, constants, copyFileSync } from "node:fs";
import { messageOf } from "../src/shared/text.ts";
import { unwritable } from "./texts.ts";

/** @throws {CommandError} instead of a file system error */
export function withWriteErrors<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw unwritable(path, messageOf(error));
  }
}

/** A time for file names, without colons, which some file systems refuse. */
export function timeForName(): string {
  return new Date().toISOString().replaceAll(":", "-");
}

/** Copies a file, readable only by its user. @returns the copy's path @throws Error if the copy exists */
export function keepCopy(file: string): string {
  const copy = `${file}.${timeForName()}.bak`;
  copyFileSync(file, copy, constants.COPYFILE_EXCL);
  chmodSync(copy, 0o600);
  return copy;
}
