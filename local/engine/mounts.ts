/** Directories of the host in sandboxes, as the operator mounted them: each in the sandbox of one name. */
import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface HostDirectory {
  /** The name of the Durable Object whose sandbox has it, which nobody but its principal can reach. */
  name: string;
  from: string;
  to: string;
  writable: boolean;
}

/** Who a sandbox is on the host. */
export interface HostUser {
  uid: number;
  gid: number;
}

/**
 * The owner of a directory. A sandbox that runs as the owner has the owner's rights in the directory, and what it writes
 * there is the owner's; of the owner's other files it sees none.
 * @throws Error in words for the operator when the directory is gone
 */
export async function ownerOf({ from }: HostDirectory): Promise<HostUser> {
  const found = await stat(from).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new Error(
      `This machine cannot make a sandbox: the mounted directory ${from} is not there any more.`,
    );
  // The group of the directory may be one that opens more than its owner's own.
  const { stdout } = await run("id", ["-g", String(found.uid)]).catch(() => ({ stdout: "" }));
  return { uid: found.uid, gid: stdout.trim() === "" ? found.gid : Number(stdout) };
}
