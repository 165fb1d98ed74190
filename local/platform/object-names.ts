/**
 * Names of the files in which the local platform keeps objects. Each run and each saved workspace has a folder. So listing the
 * objects of one takes the same time whatever else is stored.
 */

/** `<principal hash>/<run id>/`, or `<principal hash>/workspaces/<save id>/` */
const FOLDER = /^(?:[^/]+\/workspaces\/[^/]+|[^/]+\/(?!workspaces\/)[^/]+)\//;

interface ObjectPlace {
  folder: string;
  file: string;
}

/** The place of an object. @throws Error if the key names no run and no saved workspace */
export function placeOf(key: string): ObjectPlace {
  const folder = folderOf(key);
  if (folder === undefined) throw new Error(`the key ${key} names no run and no saved workspace`);
  return { folder, file: nameOf(key.slice(folder.length + 1)) };
}

/** The folder of all keys that begin with this text; undefined if they are in several folders. */
export function folderOf(prefix: string): string | undefined {
  const [folder] = FOLDER.exec(prefix) ?? [];
  return folder && nameOf(folder.slice(0, -1));
}

export function keyOf({ folder, file }: ObjectPlace): string {
  return `${folder}/${file}`.replaceAll(",", "/");
}

/**
 * A comma replaces each slash, because no key contains a comma. With a folder for each part of a key, more empty folders would
 * remain.
 */
function nameOf(text: string): string {
  return text.replaceAll("/", ",");
}
