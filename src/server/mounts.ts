/** Directories of the operator's machine in sandboxes of the owner, as `npm start --mount` tells the Worker of them. */
import { z } from "zod";

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

/** The line that tells a model of one. */
export function describeMount({ sandbox, path, source, readOnly }: MountedDirectory): string {
  const rights = readOnly ? "read-only" : "what changes there changes here, and outlives the sandbox";
  return `Mounted: ${path} in sandbox ${sandbox} is the user's own directory ${source} (${rights}).`;
}
