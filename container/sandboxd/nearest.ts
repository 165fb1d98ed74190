/** Finds what exists near a missing path. */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { WORKSPACE } from "./directories.ts";
import type { FileFailure } from "./shapes.ts";
import { sessionDirectories } from "./session-directories.ts";

/** @param path the path that is the reason of the failure */
export async function addNearest(failure: FileFailure, path: string | undefined): Promise<FileFailure> {
  if (failure.problem !== "missing" || path === undefined) return failure;
  return {
    ...failure,
    directory: await nearestDirectory(path),
    elsewhere: await findInSessionDirectories(path),
  };
}

async function nearestDirectory(path: string): Promise<string> {
  let directory = dirname(path);
  while (directory !== "/" && !(await stat(directory).catch(() => undefined))?.isDirectory())
    directory = dirname(directory);
  return directory;
}

/** A caller may mean a path relative to a session's directory. */
async function findInSessionDirectories(path: string): Promise<string | undefined> {
  if (!path.startsWith(`${WORKSPACE}/`)) return undefined;
  for (const directory of sessionDirectories()) {
    const candidate = join(directory, path.slice(WORKSPACE.length + 1));
    if (await stat(candidate).catch(() => undefined)) return candidate;
  }
  return undefined;
}
