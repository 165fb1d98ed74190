/** Directories of the operator's machine that `npm start --mount` mounts into the owner's sandboxes. */
import * as z from "zod";
import { OWNER_ID } from "./principal.ts";

const directory = z.strictObject({
  sandbox: z.string(),
  path: z.string(),
  source: z.string(),
  readOnly: z.boolean(),
});

export const mountedDirectories = z.array(directory, "must be a JSON list");

export type MountedDirectory = z.output<typeof directory>;

/**
 * Lines about mounted directories for the owner's model; none for other principals. A directory is listed even before its
 * sandbox exists.
 */
export function mountLines({ mounts }: { mounts: readonly MountedDirectory[] }, principal: { id: string }) {
  return principal.id === OWNER_ID ? mounts.map(lineOf) : [];
}

function lineOf({ sandbox, path, source, readOnly }: MountedDirectory): string {
  const rights = readOnly
    ? "read-only"
    : "changes in it change the user's files, and remain when the sandbox is gone";
  return `Mounted: ${path} in sandbox ${sandbox} is the user's own directory ${source} (${rights}).`;
}
