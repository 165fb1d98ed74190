/** The status of one file, as the file system reports it. Reads no content. */
import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from "node:fs";
import { attempt, codeOf } from "../file-error.ts";
import { bytesOf } from "./manifest.ts";

export interface FoundFile {
  path: string;
  type: "file" | "directory" | "symlink" | "removed";
  mode: number;
  /** Microseconds since the epoch. */
  mtime: number;
  /** When the file's status last changed, in nanoseconds since the epoch. */
  changedAt: bigint;
  /** When the file was last read or mapped, in nanoseconds since the epoch. Undefined if it was not scanned. */
  accessedAt?: bigint;
  uid: number;
  gid: number;
  size: number;
  status: string;
  target?: string;
  inode?: string;
}

/**
 * A save leaves out entries of the last three types. `special`: sockets, pipes and devices. `crowded`: directories that tools can
 * create again, and that have too many entries for a snapshot.
 */
export type ScannedEntry = FoundFile | { type: "special" | "unreadable" | "crowded"; path: string };

export function isFound(entry: ScannedEntry): entry is FoundFile {
  return entry.type !== "special" && entry.type !== "unreadable" && entry.type !== "crowded";
}

/**
 * The device of the scanned file system. `hasOneDevice`: whether its files report this device, and not only its directories: see
 * `hasOneDevice` in scan.ts.
 */
export interface Devices {
  dev: bigint;
  hasOneDevice: boolean;
}

export function isGoneError(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"].includes(codeOf(error) ?? "");
}

export function namesIn(root: string, directory: string): string[] | undefined {
  try {
    // The system may return a name twice if the directory changes meanwhile.
    const names = new Set(readdirSync(bytesOf(root, directory), { encoding: "latin1" }));
    // Sorted, because the entries are part of the directory's state and the system's order varies.
    return [...names].sort();
  } catch (error) {
    return isGoneError(error) ? [] : undefined;
  }
}

/** Returns the entry of a path; undefined if nothing is there, or if it is a mount point. */
export function scanEntry(
  root: string,
  path: string,
  { dev, hasOneDevice }: Devices,
): ScannedEntry | undefined {
  const pathBytes = bytesOf(root, path);
  try {
    const stats = lstatSync(pathBytes, { bigint: true });
    if (stats.dev !== dev && (hasOneDevice || stats.isDirectory())) return undefined;
    const common = {
      path,
      ...attributesOf(stats),
      changedAt: stats.ctimeNs,
      accessedAt: stats.atimeNs,
      size: stats.isFile() ? Number(stats.size) : 0,
      status: statusOf(stats),
    };
    if (stats.isDirectory()) return { ...common, type: "directory" };
    if (stats.isSymbolicLink())
      return { ...common, type: "symlink", target: readlinkSync(pathBytes, { encoding: "latin1" }) };
    if (!stats.isFile()) return { type: "special", path };
    return { ...common, type: "file", inode: stats.nlink > 1n ? String(stats.ino) : undefined };
  } catch (error) {
    return isGoneError(error) ? undefined : { type: "unreadable", path };
  }
}

/** Returns the status of a path; undefined if nothing is there, or if it cannot be read. */
export function statusAt(root: string, path: string): string | undefined {
  const stats = attempt(
    () => lstatSync(bytesOf(root, path), { bigint: true, throwIfNoEntry: false }),
    undefined,
  );
  return stats && statusOf(stats);
}

export const attributesOf = ({ mode, mtimeNs, uid, gid }: BigIntStats) => ({
  mode: Number(mode & 0o7777n),
  mtime: microseconds(mtimeNs),
  uid: Number(uid),
  gid: Number(gid),
});

/** Rounded down, like the system's own times. Division alone would round times before 1970 up. */
function microseconds(nanoseconds: bigint): number {
  const truncated = nanoseconds / 1000n;
  return Number(truncated * 1000n > nanoseconds ? truncated - 1n : truncated);
}

export function inodeOf(status: string): string {
  return status.slice(status.lastIndexOf(" ") + 1);
}

/** What stays the same if a file is renamed: its status without the status change time. */
export function contentOf(status: string): string {
  const [size, mtime, , inode] = status.split(" ");
  return [size, mtime, inode].join(" ");
}

export function statusOf({ size, mtimeNs, ctimeNs, ino }: BigIntStats): string {
  return [size, mtimeNs, ctimeNs, ino].join(" ");
}
