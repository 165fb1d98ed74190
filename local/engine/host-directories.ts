/** Directories of the host in sandboxes, as the operator mounted them: each in the sandbox of one name. */
import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { promisify } from "node:util";
import { claimIDs, idsPerSandbox, type HostUser, type IDMap, type IDRange } from "./ids.ts";

const run = promisify(execFile);

export interface HostDirectory {
  /** The name of the Durable Object whose sandbox has it, which nobody but its principal can reach. */
  name: string;
  from: string;
  to: string;
  writable: boolean;
}

/** The machine's ids that a sandbox has. Its root is never the machine's root. */
export interface HostIDs extends IDRange, IDMap {
  /** For a directory that the machine's root owns: the id on the disk, and as which the sandbox has it. */
  directoryMap?: string;
}

/**
 * Claims the ids of a sandbox. Where it has a directory of the host, it runs as the owner of that and has no other users: it has
 * the owner's rights in the directory, and what it writes there is the owner's; of the owner's other files it sees none. Only
 * the machine's root is never in a sandbox: a directory of root's is shown as if the sandbox's own root owned it.
 * @throws Error in words for the operator when the directory is gone
 */
export async function claimIDsFor(directory: HostDirectory | undefined): Promise<HostIDs> {
  const owner = directory === undefined ? undefined : await ownerOf(directory);
  const range = await claimIDs();
  const { first } = range;
  const own = { uid: first, gid: first };
  if (owner === undefined) return { ...range, root: own, count: idsPerSandbox };
  if (owner.uid === 0) return { ...range, root: own, count: 1, directoryMap: `0 ${first} 1\n` };
  return { ...range, root: { uid: owner.uid, gid: owner.gid === 0 ? first : owner.gid }, count: 1 };
}

async function ownerOf({ from }: HostDirectory): Promise<HostUser> {
  const found = await stat(from).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new Error(`This machine cannot make a sandbox: the mounted directory ${from} no longer exists.`);
  // The group of the directory may be one that opens more than its owner's own.
  const { stdout } = await run("id", ["-g", String(found.uid)]).catch(() => ({ stdout: "" }));
  return { uid: found.uid, gid: stdout.trim() === "" ? found.gid : Number(stdout) };
}
