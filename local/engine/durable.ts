/** Makes files survive a crash of the machine. */
import { open } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "../../container/sandboxd/file-error.ts";

/** Writes a file's content to the disk, and its names in its directory and in the one above, which may be new. */
export async function syncFile(path: string): Promise<void> {
  const directory = dirname(path);
  await Promise.all([path, directory, dirname(directory)].map(sync));
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } catch (error) {
    // Some file systems cannot sync directories, such as shared folders of VirtualBox. Without this, nothing could be saved there.
    if (codeOf(error) !== "EINVAL") throw error;
  } finally {
    await handle.close();
  }
}
