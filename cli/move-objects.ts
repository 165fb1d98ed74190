import { mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { folderOf, placeOf } from "../local/platform/object-names.ts";

/** Moves objects into folders. An earlier version of this server kept all in one folder, in files named by the whole keys. */
export async function moveObjects(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const key = entry.name.replaceAll(",", "/");
    if (!entry.isFile() || folderOf(key) === undefined) continue;
    const { folder, file } = placeOf(key);
    await mkdir(join(directory, folder), { recursive: true });
    await rename(join(directory, entry.name), join(directory, folder, file));
  }
}
