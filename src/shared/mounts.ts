/** Directories of the operator's machine in sandboxes of the owner, as `npm start --mount` tells the Worker of them. */
import { z } from "zod";
import { OWNER_ID } from "./principal.ts";

const directory = z.strictObject({
  /** The owner's sandbox that has it. */
  sandbox: z.string(),
  /** Where it is in there. */
  path: z.string(),
  /** Where it is on the machine. */
  source: z.string(),
  readOnly: z.boolean(),
});

export const mountedDirectories = z.array(directory, "must be a JSON list");

export type MountedDirectory = z.output<typeof directory>;

/** The lines that tell a model of them. They are the owner's, and there before their sandboxes are. */
export function mountLines(
  { mounts }: { mounts: readonly MountedDirectory[] },
  principal: { id: string },
): string[] {
  return principal.id === OWNER_ID ? mounts.map(lineOf) : [];
}

function lineOf({ sandbox, path, source, readOnly }: MountedDirectory): string {
  const rights = readOnly ? "read-only" : "what changes there changes here, and outlives the sandbox";
  return `Mounted: ${path} in sandbox ${sandbox} is the user's own directory ${source} (${rights}).`;
}
