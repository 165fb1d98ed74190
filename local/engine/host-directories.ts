/** Host directories that the operator mounted, each into one named sandbox. */
import { constants } from "node:fs";
import { type FileHandle, open, readlink, realpath, stat } from "node:fs/promises";
import { shownName } from "../../src/shared/shown.ts";
import type { Mount } from "./bubblewrap.ts";
import type { HostDirectory } from "./engine-settings.ts";
import { O_PATH } from "./host-files.ts";
import { runHost, systemPath, runFile } from "./host-programs.ts";
import { claimIDs, idsPerSandbox, type HostUser, type IDMap, type IDRange } from "./ids.ts";
import type { MountMaps } from "./id-mapped-mount.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

export interface HostIDs extends IDRange, IDMap {
  /** Only for a directory that belongs to the machine's root. */
  directoryMaps?: MountMaps;
}

/**
 * Claims the user and group ids of a sandbox. A sandbox with a host directory has only one user, the directory's owner. It has
 * the owner's rights in the directory, and the files that it creates belong to the owner. It sees no other files of the owner. No
 * sandbox runs as the machine's root: in the sandbox, a directory of root belongs to the sandbox's root.
 */
export async function claimIDsFor(directory: FileHandle | undefined): Promise<HostIDs> {
  const owner = directory === undefined ? undefined : await ownerOf(directory);
  const range = await claimIDs();
  const { first } = range;
  const firstUser = { uid: first, gid: first };
  if (owner === undefined) return { ...range, root: firstUser, count: idsPerSandbox };
  if (owner.uid === 0) {
    // Maps all groups, because nobody can change a file on such a mount if the file's owner or group is not in the maps.
    const directoryMaps = { users: `0 ${first} 1\n`, groups: `0 ${first} ${idsPerSandbox}\n` };
    return { ...range, root: firstUser, count: 1, directoryMaps };
  }
  return { ...range, root: { uid: owner.uid, gid: owner.gid === 0 ? first : owner.gid }, count: 1 };
}

/**
 * Opens a directory whose path `npm start` has resolved. Since then, a program that can write to a parent directory may have
 * replaced it with a link. While the directory is open, no other directory gets its inode number, which `requireMounted` compares.
 * @throws Error for the operator if the directory is gone or replaced
 */
export async function openDirectory({ from }: HostDirectory): Promise<FileHandle> {
  const flags = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  const handle = await open(from, flags).catch(() => undefined);
  const path = handle === undefined ? realpath(from) : readlink(`/proc/self/fd/${handle.fd}`);
  const now = await path.catch(() => undefined);
  if (handle !== undefined && now === from) return handle;
  await handle?.close();
  const isGone = now === undefined || now === from;
  throw new Error(isGone ? MACHINE.directoryGone(from) : MACHINE.directoryLinked(from));
}

/** Call it before user code runs. @param pid the sandbox's first process @throws Error if the sandbox got another directory */
export async function requireMounted(pid: number, { from, to, opened }: Mount): Promise<void> {
  if (opened === undefined) return;
  const [expected, found] = await Promise.all([opened.stat(), stat(`/proc/${pid}/root${to}`)]);
  if (found.dev !== expected.dev || found.ino !== expected.ino)
    throw new Error(START_PROBLEMS.replaced(from));
}

async function ownerOf(opened: FileHandle): Promise<HostUser> {
  const found = await opened.stat();
  // The owner's primary group. The directory's group could give access to other files.
  const gid = await runHost("id", ["-g", String(found.uid)]).catch(() => "");
  return { uid: found.uid, gid: gid.trim() === "" ? found.gid : Number(gid) };
}

/**
 * Refuses a directory with set-id programs. A sandbox that can write to such a program could replace its content through a shared
 * mapping, and the kernel would keep the set-id bit. A directory of the engine's user that this user may not read is refused, too.
 * The search skips such a directory, but the sandbox has this user's rights and could add the permission. The sandbox cannot change
 * directories of other users.
 * @param path where to look for `find` @throws Error naming the file or the directory
 */
export async function refuseSetID(directory: string, path = systemPath()): Promise<void> {
  const user = process.getuid?.() ?? 0;
  const setID = ["-type", "f", "-perm", "/6000"];
  const closed = ["-type", "d", "-user", String(user), "!", "-perm", "-500"];
  // Root can search all directories.
  const tests = user === 0 ? setID : ["(", ...setID, "-o", ...closed, ")"];
  // find exits with an error if it cannot read a directory, but still prints the first match.
  const { stdout, code } = await runFile("find", [directory, ...tests, "-print", "-quit"], {
    env: { ...process.env, PATH: path },
  }).then(
    ({ stdout: found }) => ({ stdout: found, code: undefined }),
    (error: { stdout?: string; code?: unknown }) => ({ stdout: error.stdout ?? "", code: error.code }),
  );
  if (code === "ENOENT") throw new Error(MACHINE.noFind(shownName(directory)));
  const file = stdout.trimEnd();
  if (file === "") return;
  const isDirectory = (await stat(file).catch(() => undefined))?.isDirectory() === true;
  throw new Error((isDirectory ? MACHINE.isClosed : MACHINE.hasSetID)(shownName(file)));
}
