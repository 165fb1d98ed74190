/** The current directories of sessions, from the states that state.sh prints. */
import { join } from "node:path";
import { SESSIONS, WORKSPACE, entriesOf, textOf } from "./directories.ts";

export const STATE_END = "\n# complete\n";
const DIRECTORY = /\n# in (\/.*)\n# complete\n$/;
const PATH_BYTES = 4096;
const MAX_SESSIONS = 20;

export function directoryIn(state: string | undefined): string | undefined {
  const path = state === undefined ? undefined : DIRECTORY.exec(state.slice(-2 * PATH_BYTES))?.[1];
  return path === WORKSPACE || path === undefined || path.length > PATH_BYTES ? undefined : path;
}

export function directoryOf(session: string): string | undefined {
  return directoryIn(textOf(join(SESSIONS, session)));
}

export function sessionDirectories(): string[] {
  const others = entriesOf(SESSIONS).flatMap(({ name }) => (name === "main" ? [] : name));
  return ["main", ...others.slice(0, MAX_SESSIONS)].flatMap((session) => directoryOf(session) ?? []);
}
