/**
 * Callers without `sandbox:exec` must stay below /workspace and /tmp, because files elsewhere may be executed. `confinePaths`
 * checks every path of a call before its handler. `openInside` guards against programs in the sandbox that exchange a
 * directory afterwards.
 */
import { constants } from "node:fs";
import { type FileHandle, open, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FileError } from "./file-error.ts";
import type { Row } from "./operations.ts";
import { isPath } from "./shapes.ts";

const INSIDE = /^\/(workspace|tmp)\/./s;

/** @throws FileError `outside` if the call is confined and one of its paths leads elsewhere, also through symbolic links */
export async function confinePaths({ input }: Row, call: Readonly<Record<string, unknown>>): Promise<void> {
  if (call.confined !== true) return;
  for (const [field, schema] of Object.entries(input.shape)) {
    const path = call[field];
    if (isPath(schema) && typeof path === "string") await confine(path);
  }
}

/** The end of the path may not exist yet. */
async function confine(path: string): Promise<void> {
  const rest = [];
  for (let at = path; ; at = dirname(at)) {
    const real = await realpath(at).catch(() => undefined);
    if (real === undefined) {
      rest.unshift(basename(at));
      continue;
    }
    const leadsTo = join(real, ...rest);
    if (!INSIDE.test(leadsTo)) throw new FileError({ problem: "outside", path: leadsTo });
    return;
  }
}

/** Opens the directory before it checks the location, so that nobody can exchange it in between. @throws FileError `outside` */
export async function openInside(directory: string, target: string): Promise<FileHandle> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  const leadsTo = join(await readlink(`/proc/self/fd/${handle.fd}`), basename(target));
  if (INSIDE.test(leadsTo)) return handle;
  await handle.close();
  throw new FileError({ problem: "outside", path: leadsTo });
}
