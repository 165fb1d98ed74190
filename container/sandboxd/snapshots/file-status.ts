/** What the file system says of one file, without its content. */
import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from "node:fs";
import { bytesOf } from "./manifest.ts";

/** Something found, without its content. */
export interface FoundFile {
  path: string;
  type: "file" | "directory" | "symlink" | "removed";
  mode: number;
  /** Microseconds since the epoch. */
  mtime: number;
  /** When its status changed last, nanoseconds since the epoch. */
  changedAt: bigint;
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

/**
 * Something that is there, which a save has to leave out: sockets, pipes and devices, what cannot be looked at, and what is in
 * a directory that can be made again, where a snapshot does not hold as many files.
 */
export type ScannedEntry = FoundFile | { type: "special" | "unreadable" | "crowded"; path: string };

/** What is not mounted: whether files say the device of their file system too. */
export interface Devices {
  dev: bigint;
  ofFiles: boolean;
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
export function scanEntry(root: string, path: string, { dev, ofFiles }: Devices): ScannedEntry | undefined {
  const at = bytesOf(root, path);
  try {
    const stats = lstatSync(at, { bigint: true });
    if (stats.dev !== dev && (ofFiles || stats.isDirectory())) return undefined;
    const common = {
      path,
      mode: Number(stats.mode & 0o7777n),
      mtime: Number(stats.mtimeNs / 1000n),
      changedAt: stats.ctimeNs,
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
