/**
 * Callers without `sandbox:exec` may change files only below /workspace and /tmp, because files elsewhere may be executed.
 * `confinePaths` checks every path of a call before its handler. `GuardedPath` guards against programs in the sandbox that
 * exchange a directory after this check.
 */
import { type Stats, constants, lstatSync } from "node:fs";
import { type FileHandle, open, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FileError } from "./file-error.ts";
import { type Row, pathsOf } from "./operations.ts";

const INSIDE = /^\/(workspace|tmp)\/./s;

/** @throws FileError `outside` if the call is confined and one of its paths leads elsewhere, also through symbolic links */
export async function confinePaths(row: Row, call: Readonly<Record<string, unknown>>): Promise<void> {
  if (call.confined !== true) return;
  for (const [field, path] of Object.entries(pathsOf(row, call))) await confine(path, field);
}

/** Checks one path. Its last parts may not exist yet. */
async function confine(path: string, field: string): Promise<void> {
  const rest = [];
  for (let at = path; ; at = dirname(at)) {
    const real = await realpath(at).catch(() => undefined);
    if (real === undefined) {
      rest.unshift(basename(at));
      continue;
    }
    const leadsTo = join(real, ...rest);
    if (!INSIDE.test(leadsTo)) throw new FileError({ problem: "outside", path: leadsTo, field });
    return;
  }
}

/**
 * The path of a file to change. The file may not exist yet. Every function that changes a file requires a GuardedPath, so none
 * can forget the confinement.
 */
export class GuardedPath {
  /** The path to open. If the caller is confined, the file's directory stays open, so that nobody can exchange that directory. */
  readonly path: string;
  readonly target: string;
  readonly #directory: FileHandle | undefined;

  private constructor(target: string, directory?: FileHandle) {
    this.path = directory ? join(`/proc/self/fd/${directory.fd}`, basename(target)) : target;
    this.target = target;
    this.#directory = directory;
  }

  /**
   * @param directory the real path of the file's directory
   * @throws FileError `outside` if the caller is confined and the file is not below /workspace or /tmp
   */
  static async open(directory: string, name: string, isConfined: boolean): Promise<GuardedPath> {
    const target = join(directory, name);
    if (!isConfined) return new GuardedPath(target);
    // Opened before the check, so that nobody can exchange the directory in between.
    const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    const leadsTo = join(await readlink(`/proc/self/fd/${handle.fd}`), name);
    if (INSIDE.test(leadsTo)) return new GuardedPath(target, handle);
    await handle.close();
    throw new FileError({ problem: "outside", path: leadsTo });
  }

  /** The file's status. For a symbolic link, this is the status of the link itself. */
  get stats(): Stats | undefined {
    return lstatSync(this.path, { throwIfNoEntry: false });
  }

  async close(): Promise<void> {
    await this.#directory?.close();
  }
}
