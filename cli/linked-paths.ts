/** Paths of the user's files through directories in which code in a sandbox can make symbolic links. */
import { constants, openSync, readlinkSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import { attempt } from "../container/sandboxd/file-error.ts";
import { O_PATH } from "../local/engine/host-files.ts";
import { findRunning } from "./running.ts";
import { type ServerOptions, stateDirectory } from "./server-address.ts";
import { leadsOut } from "./texts.ts";

const MAX_LINKS = 40;

/**
 * Returns the path as given, each symbolic link on the way to the file, and the final path of the file, which may be missing.
 * Follows as many links as Linux.
 */
export function placesOf(path: string): string[] {
  const places = [path];
  const parts = path.split("/");
  let at = "/";
  for (let part = parts.shift(); part !== undefined; part = parts.shift()) {
    const next = join(at, part);
    const target = places.length <= MAX_LINKS ? attempt(() => readlinkSync(next), undefined) : undefined;
    if (target === undefined) at = next;
    else {
      places.push(next);
      if (isAbsolute(target)) at = "/";
      parts.unshift(...target.split("/"));
    }
  }
  return [...places, at];
}

export function isSameOrAbove(outer: string, inner: string): boolean {
  const path = relative(outer, inner);
  return path === "" || (path !== ".." && !path.startsWith("../"));
}

/**
 * Opens a file or directory of the user to read it.
 * @throws {CommandError} if its path leads out of a directory that a sandbox of the running local server can change: code there may
 * have made the link. The open file is checked, because code could exchange a file with a link after a check of the path.
 */
export function openUserPath(path: string, options: ServerOptions, flags = constants.O_RDONLY): number {
  // The links up to the first mounted directory are the user's own. So code cannot change which directories are on the way.
  const mounts = findRunning(stateDirectory(options))?.mounts ?? [];
  const onTheWay = mounts.filter((mount) => placesOf(path).some((place) => isSameOrAbove(mount, place)));
  const file = openSync(path, flags);
  const target = onTheWay.length === 0 ? path : readlinkSync(`/proc/self/fd/${file}`);
  const left = onTheWay.find((mount) => !isSameOrAbove(mount, target));
  if (left !== undefined) throw leadsOut(path, target, left);
  return file;
}

/**
 * A path through the open directory of a file that is to be written, so that no link made meanwhile leads elsewhere. Only Linux has
 * such paths, and only there, sandboxes can mount directories.
 * @throws {CommandError} like `openUserPath`
 */
export function openUserDirectory(directory: string, options: ServerOptions): string {
  if (process.platform !== "linux") return directory;
  // It stays open until the program ends.
  return `/proc/self/fd/${openUserPath(directory, options, O_PATH | constants.O_DIRECTORY)}`;
}
