/** Host directories that the operator mounted, each into one named sandbox. */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, open, readlink, realpath, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { shownName } from "../../src/shared/shown.ts";
import type { Mount } from "./bubblewrap.ts";
import { O_PATH } from "./host-files.ts";
import { systemPath } from "./host-programs.ts";
import { claimIDs, idsPerSandbox, type HostUser, type IDMap, type IDRange } from "./ids.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

const run = promisify(execFile);

export interface HostDirectory {
  /** The name of the sandbox's Durable Object. Only the sandbox's principal can reach this object. */
  name: string;
  from: string;
  to: string;
  writable: boolean;
}

export interface HostIDs extends IDRange, IDMap {
  /** For a directory of the machine's root: the map for `mountMapped`. */
  directoryMap?: string;
}

/**
 * Claims the ids of a sandbox. With a host directory, the sandbox runs only as the directory's owner. It has the owner's rights
 * there, and its files belong to the owner. It sees no other files of the owner. The machine's root is never used: a directory of
 * root appears as owned by the sandbox's own root.
 */
export async function claimIDsFor(directory: FileHandle | undefined): Promise<HostIDs> {
  const owner = directory === undefined ? undefined : await ownerOf(directory);
  const range = await claimIDs();
  const { first } = range;
  const firstUser = { uid: first, gid: first };
  if (owner === undefined) return { ...range, root: firstUser, count: idsPerSandbox };
  if (owner.uid === 0) return { ...range, root: firstUser, count: 1, directoryMap: `0 ${first} 1\n` };
  return { ...range, root: { uid: owner.uid, gid: owner.gid === 0 ? first : owner.gid }, count: 1 };
}

/**
 * `npm start` resolved the path. Programs that can write to a parent directory may have replaced it by a link since. While the directory
 * is open, no other one gets its inode number: see `requireMounted`. @throws Error for the operator if the directory is gone
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

/** @param pid the sandbox's first process, before code of the user runs @throws Error if the sandbox got another directory */
export async function requireMounted(pid: number, { from, to, opened }: Mount): Promise<void> {
  if (opened === undefined) return;
  const [expected, found] = await Promise.all([opened.stat(), stat(`/proc/${pid}/root${to}`)]);
  if (found.dev !== expected.dev || found.ino !== expected.ino)
    throw new Error(START_PROBLEMS.replaced(from));
}

async function ownerOf(opened: FileHandle): Promise<HostUser> {
  const found = await opened.stat();
  // Not the directory's group, because that may give access to other files.
  const { stdout } = await run("id", ["-g", String(found.uid)], { env: { PATH: systemPath() } }).catch(
    () => ({ stdout: "" }),
  );
  return { uid: found.uid, gid: stdout.trim() === "" ? found.gid : Number(stdout) };
}

/**
 * A sandbox that can write to a set-id program could replace the program's content through a shared mapping, and the kernel would
 * keep the set-id bit. The search cannot read a directory that this user has closed to themselves, but the sandbox has the user's
 * rights and could open the directory. So such a directory is an error. Closed directories of other users stay closed to the
 * sandbox, too.
 * @param path where to look for `find` @throws Error naming the file or the directory
 */
export async function refuseSetID(directory: string, path = systemPath()): Promise<void> {
  const user = process.getuid?.() ?? 0;
  const setID = ["-type", "f", "-perm", "/6000"];
  const closed = ["-type", "d", "-user", String(user), "!", "-perm", "-500"];
  // Root can search all directories.
  const tests = user === 0 ? setID : ["(", ...setID, "-o", ...closed, ")"];
  // find fails for unreadable files, but still names the first match.
  const { stdout, code } = await run("find", [directory, ...tests, "-print", "-quit"], {
    env: { ...process.env, PATH: path },
  }).then(
    ({ stdout: found }) => ({ stdout: found, code: undefined }),
    (error: { stdout?: string; code?: unknown }) => ({ stdout: error.stdout ?? "", code: error.code }),
  );
  if (code === "ENOENT") throw new Error(MACHINE.noFind);
  const file = stdout.trimEnd();
  if (file === "") return;
  const isDirectory = (await stat(file).catch(() => undefined))?.isDirectory() === true;
  throw new Error((isDirectory ? MACHINE.isClosed : MACHINE.hasSetID)(shownName(file)));
}
