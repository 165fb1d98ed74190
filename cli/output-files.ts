/** Files that the program writes for its user. */
import { randomUUID } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { codeOf } from "../container/sandboxd/file-error.ts";
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

/**
 * Replaces a file. Only the user who runs this program can read the new file. The temporary file has a random name, because other
 * users could have put a link at a predictable name. A link at `file` is replaced, too.
 */
export function replaceFile(file: string, text: string): void {
  const temporary = `${file}.${randomUUID()}.tmp`;
  try {
    writeFileSync(temporary, text, { mode: 0o600, flag: "wx" });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/**
 * Copies a file. Only the user who runs this program can read the copy.
 * @param content if it has been read already
 * @returns the copy's path
 */
export function keepCopy(file: string, content: string | Buffer = readFileSync(file)): string {
  const copy = `${file}.${timeForName()}.bak`;
  try {
    writeFileSync(copy, content, { mode: 0o600, flag: "wx" });
  } catch (error) {
    // Another copy was made in the same millisecond.
    if (codeOf(error) === "EEXIST") return keepCopy(file, content);
    throw error;
  }
  return copy;
}
