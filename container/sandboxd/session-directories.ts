/** What shell sessions leave to their next command, as state.sh prints it. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { SESSIONS, WORKSPACE, textOf } from "./directories.ts";

/** The last line of a whole state. */
export const STATE_END = "\n# complete\n";

/** The line before it, with the directory that the session is in. */
const DIRECTORY = /\n# in (\/.*)\n# complete\n$/;

/** Bytes of a path. */
const PATH_BYTES = 4096;

/** Sessions that are looked through for a file. */
const MAX_SESSIONS = 20;

/** The directory of a state, where that is not the workspace. */
export function directoryIn(state: string | undefined): string | undefined {
  const path = state === undefined ? undefined : DIRECTORY.exec(state.slice(-2 * PATH_BYTES))?.[1];
  return path === WORKSPACE || path === undefined || path.length > PATH_BYTES ? undefined : path;
}

/** The directory that a session is in, where that is not the workspace. */
export function directoryOf(session: string): string | undefined {
  return directoryIn(textOf(join(SESSIONS, session)));
}

/** The directories that sessions are in, that of `main` first. */
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
