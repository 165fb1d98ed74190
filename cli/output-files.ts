/** Files that the user has named for what a command answers. */
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
