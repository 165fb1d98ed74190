/** What there is in the workspace, and what of it a save holds. */
import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from "node:fs";
import { FileError } from "../file-error.ts";
import { MAX_LEFT, type NamedFiles, type Plan, SNAPSHOT_ENTRIES } from "./calls.ts";
import { turns } from "../small-steps.ts";
import { bytesOf } from "./manifest.ts";

/** Something found, without its content. */
export interface FoundFile {
  path: string;
  type: "file" | "directory" | "symlink" | "removed";
  mode: number;
  /** Microseconds since the epoch. */
  mtime: number;
  uid: number;
  gid: number;
  /** Bytes of a file. */
  size: number;
  /** Changes with the content. */
  status: string;
  target?: string;
  /** The same for all hard links of a file. */
  inode?: string;
}

/** What can be made again. */
const REGENERABLE = /((?:^|\/)(?:node_modules|\.venv|venv|__pycache__|\.cache|\.next|target))\/.*/s;

/**
 * Something that is there, which a save has to leave out: sockets, pipes and devices, what cannot be looked at, and what is in
 * a directory that can be made again, where a snapshot does not hold as many files.
 */
export type ScannedEntry = FoundFile | { type: "special" | "unreadable" | "crowded"; path: string };

/**
 * Everything below a directory on its own file system, each directory before what is in it; nothing where there is no such
 * directory. What can be made again comes last, and is `crowded` where there is no room for all of it.
 * @param from below the root, where it begins
 * @param most how many are found at most
 * @throws {FileError} for more than a snapshot holds
 */
export async function scan(
  root: string,
  signal: AbortSignal,
  from = "",
  most = SNAPSHOT_ENTRIES,
): Promise<ScannedEntry[]> {
  const seen: ScannedEntry[] = [];
  const stats = lstatSync(root, { bigint: true, throwIfNoEntry: false });
  if (stats === undefined) return seen;
  const { dev } = stats;
  let directories = [from];
  const later: string[] = [];
  /** The one of `later` that is looked through, and how many were seen before. */
  let madeAgain: { path: string; before: number } | undefined;
  const turn = turns();
  for (;;) {
    let next = directories.pop();
    if (next === undefined) {
      next = later.shift();
      if (next === undefined) return seen;
      madeAgain = { path: next, before: seen.length };
    }
    const prefix = next === "" ? "" : `${next}/`;
    const names = namesIn(root, next);
    if (names === undefined) seen.push({ type: "unreadable", path: next });
    for (const name of names ?? []) {
      await turn();
      signal.throwIfAborted();
      const path = `${prefix}${name}`;
      const one = scanEntry(root, path, dev);
      if (one === undefined) continue;
      seen.push(one);
      if (one.type === "directory")
        (madeAgain === undefined && REGENERABLE.test(`${path}/`) ? later : directories).push(path);
      if (seen.length <= most) continue;
      if (madeAgain === undefined) throw new FileError({ problem: "too_large" });
      seen.length = madeAgain.before;
      seen.push({ type: "crowded", path: madeAgain.path });
      directories = [];
      break;
    }
  }
}

/** What lies below a directory of the root and has a word in its path, with the directories that lead there. */
export async function scanNamed(
  root: string,
  from: string,
  word: string,
  signal: AbortSignal,
): Promise<ScannedEntry[]> {
  const ofWord = (await scan(root, signal, from)).filter(({ path }) => path.includes(word));
  const { dev } = lstatSync(root, { bigint: true });
  const all = new Map(ofWord.map((one) => [one.path, one]));
  for (const { path } of ofWord)
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const above = path.slice(0, end);
      const directory = all.has(above) ? undefined : scanEntry(root, above, dev);
      if (directory) all.set(above, directory);
    }
  // A directory's path stands before those of what is in it.
  return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Whether an error says that there is nothing any more, or a link or a socket where a file or a directory was. */
export function saysGone(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** What a directory holds; undefined where it cannot be read. */
export function namesIn(root: string, directory: string): string[] | undefined {
  try {
    // What a directory holds is part of its state, and the system says it in any order.
    return readdirSync(bytesOf(root, directory), { encoding: "latin1" }).sort();
  } catch (error) {
    return saysGone(error) ? [] : undefined;
  }
}

/** Undefined for what has gone meanwhile, or is mounted there. */
export function scanEntry(root: string, path: string, dev: bigint): ScannedEntry | undefined {
  const at = bytesOf(root, path);
  try {
    const stats = lstatSync(at, { bigint: true });
    if (stats.dev !== dev) return undefined;
    const common = {
      path,
      mode: Number(stats.mode & 0o7777n),
      mtime: Number(stats.mtimeNs / 1000n),
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      size: stats.isFile() ? Number(stats.size) : 0,
      status: statusOf(stats),
    };
    if (stats.isDirectory()) return { ...common, type: "directory" };
    if (stats.isSymbolicLink())
      return { ...common, type: "symlink", target: readlinkSync(at, { encoding: "latin1" }) };
    if (!stats.isFile()) return { type: "special", path };
    return { ...common, type: "file", inode: stats.nlink > 1n ? String(stats.ino) : undefined };
  } catch (error) {
    return saysGone(error) ? undefined : { type: "unreadable", path };
  }
}

/** Says whether a file is the same as at another time. */
export function statusOf({ size, mtimeNs, ctimeNs, ino }: BigIntStats): string {
  return [size, mtimeNs, ctimeNs, ino].join(" ");
}

/** Counts paths, and names some of them. */
export function named(paths: readonly string[]): NamedFiles | undefined {
  if (paths.length === 0) return undefined;
  return { count: paths.length, names: paths.slice(0, MAX_LEFT).map(nameOf) };
}

function nameOf(path: string): string {
  return Buffer.from(path, "latin1").toString().slice(0, 4096) || ".";
}

function isFound(one: ScannedEntry): one is FoundFile {
  return one.type !== "special" && one.type !== "unreadable" && one.type !== "crowded";
}

/**
 * Leaves out what cannot be saved, and the files for which there is no room: first those that can be made again, then the
 * largest.
 */
export function choose(
  seen: readonly ScannedEntry[],
  max: number,
): { chosen: FoundFile[]; left: Plan["left"] } {
  const found = seen.filter(isFound);
  const pathsOf = (type: ScannedEntry["type"]) =>
    seen.filter((one) => one.type === type).map(({ path }) => path);
  const total = found.reduce((sum, { size }) => sum + size, 0);
  const left: Plan["left"] = {
    count: 0,
    bytes: 0,
    largest: [],
    unreadable: named(pathsOf("unreadable")),
    special: named(pathsOf("special")),
    crowded: named(pathsOf("crowded")),
  };
  if (total <= max) return { chosen: found, left };
  const ranked = found
    .filter(({ type }) => type === "file")
    .map((file) => ({ file, isLast: REGENERABLE.test(file.path) }))
    .sort((a, b) => Number(a.isLast) - Number(b.isLast) || a.file.size - b.file.size);
  const out = new Set<FoundFile>();
  const places = new Map<string, number>();
  let sum = 0;
  for (const { file } of ranked) {
    if (sum + file.size <= max) {
      sum += file.size;
      continue;
    }
    out.add(file);
    left.count++;
    left.bytes += file.size;
    const where = file.path.replace(REGENERABLE, "$1");
    places.set(where, (places.get(where) ?? 0) + file.size);
  }
  left.largest = [...places]
    .sort(([a, aSize], [b, bSize]) => bSize - aSize || (a < b ? -1 : 1))
    .slice(0, MAX_LEFT)
    .map(([path, size]) => ({ path: nameOf(path), size }));
  return { chosen: found.filter((one) => !out.has(one)), left };
}
