/** A session's state for its next command, as printed by state.sh. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { SESSIONS, WORKSPACE, textOf } from "./directories.ts";

/** The last line of a complete state. */
export const STATE_END = "\n# complete\n";

/** The line before it, with the session's directory. */
const DIRECTORY = /\n# in (\/.*)\n# complete\n$/;

/** Bytes of a path. */
const PATH_BYTES = 4096;

/** The most sessions searched for a file. */
const MAX_SESSIONS = 20;

/** The directory in a state, unless it is the workspace. */
export function directoryIn(state: string | undefined): string | undefined {
  const path = state === undefined ? undefined : DIRECTORY.exec(state.slice(-2 * PATH_BYTES))?.[1];
  return path === WORKSPACE || path === undefined || path.length > PATH_BYTES ? undefined : path;
}

/** A session's directory, unless it is the workspace. */
export function directoryOf(session: string): string | undefined {
  return directoryIn(textOf(join(SESSIONS, session)));
}

/** The sessions' directories, that of `main` first. */
export function sessionDirectories(): string[] {
  const others = namesIn(SESSIONS).filter((session) => session !== "main");
  return ["main", ...others.slice(0, MAX_SESSIONS)].flatMap((session) => directoryOf(session) ?? []);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // User code has removed it.
    return [];
  }
}
