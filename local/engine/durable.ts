/** Makes files survive a crash of the machine. */
import { open } from "node:fs/promises";
import { dirname } from "node:path";

/** Writes a file's content to the disk, and its names in its directory and in the one above, which may be new. */
export async function syncFile(path: string): Promise<void> {
  const directory = dirname(path);
  await Promise.all([path, directory, dirname(directory)].map(sync));
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
